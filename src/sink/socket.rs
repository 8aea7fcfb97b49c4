//! Heatmaps on a Unix stream socket, for any number of clients up to a limit.
//!
//! One thread serves them all with `poll` and writes that never block. Publishing puts
//! one shared message into the `Ring` of each client and rings a bell; it never waits
//! for a client, and encodes nothing while nobody is connected.

mod ring;
mod serve;

use super::listen::{Key, Listener};
use super::wire::{self, CameraHeader, EventHeader, Header, HeatmapHeader, Hello, ModelEntry};
use super::{CameraState, Published, Sink, SinkError};
use crate::config::SocketConfig;
use crate::health::{Metric, Metrics};
use crate::rules::Event;
use ring::Rings;
use rustix::event::{EventfdFlags, eventfd};
use serve::Server;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

const KEY: Key = Key { table: "sink.socket", address: "sink.socket.path" };

/// The `socket` sink. Stops serving when it is dropped.
pub struct SocketSink {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

/// What goes on at the socket; kept by whoever wants to report it.
#[derive(Debug, Default)]
pub struct SocketStats {
    clients: AtomicUsize,
    sent: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl SocketStats {
    /// Clients connected now.
    pub fn clients(&self) -> usize {
        self.clients.load(Acquire)
    }

    /// Messages that clients took in full.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Heatmaps and events that a client lost because it did not read them in time, or left.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Connections above `max_clients`.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Metrics for SocketStats {
    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::gauge("socket_clients", "Clients of the socket.", self.clients() as u64),
            Metric::counter(
                "socket_messages_sent_total",
                "Messages that clients took.",
                self.sent(),
            ),
            Metric::counter(
                "socket_messages_dropped_total",
                "Heatmaps and events that clients were too slow for, each counted for each client.",
                self.dropped(),
            ),
            Metric::counter(
                "socket_refused_total",
                "Connections above max_clients.",
                self.refused(),
            ),
        ]
    }
}

/// What publishing and serving share.
struct Shared {
    state: Mutex<State>,
    /// Written to when there is something to do for the serving thread.
    bell: OwnedFd,
    closing: AtomicBool,
    stats: Arc<SocketStats>,
}

struct State {
    /// With the camera's state as it is now.
    hello: Hello,
    rings: Rings,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn ring_bell(&self) {
        // Fails only when the bell has been rung 2^64 − 2 times unheard: it is ringing.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl SocketSink {
    /// Listens at `config.path`. A socket file that nobody listens on any more is
    /// replaced; one in use by a living process is an error, as is any other file.
    /// `classes` are all the model's labels, in the order of their indices.
    pub fn open(
        config: &SocketConfig,
        model: ModelEntry,
        classes: Vec<String>,
    ) -> Result<Self, SinkError> {
        let listener = Listener::bind(&config.path, &config.mode, KEY)?;
        Self::start(listener, config, model, classes)
    }

    /// Takes over a socket that already listens, as systemd's socket activation hands
    /// it down. Its file, mode included, stays what its owner made it.
    pub fn from_listener(
        listener: UnixListener,
        config: &SocketConfig,
        model: ModelEntry,
        classes: Vec<String>,
    ) -> Result<Self, SinkError> {
        Self::start(Listener::inherited(listener), config, model, classes)
    }

    fn start(
        listener: Listener,
        config: &SocketConfig,
        model: ModelEntry,
        classes: Vec<String>,
    ) -> Result<Self, SinkError> {
        let path = config.path.clone();
        let failed = |what, source| SinkError::Io { what, path: config.path.clone(), source };
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| failed("eventfd for", errno.into()))?;
        let hello = Hello {
            protocol: wire::VERSION,
            server: concat!("salientd ", env!("CARGO_PKG_VERSION")).into(),
            model,
            classes,
            camera: CameraHeader { running: false, reason: "starting".into() },
        };
        wire::encode(&Header::Hello(hello.clone()), &[])?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { hello, rings: Rings::new(config.queue) }),
            bell,
            closing: AtomicBool::new(false),
            stats: Arc::default(),
        });
        let server = Server::new(listener, Arc::clone(&shared), config.max_clients)
            .map_err(|source| failed("listen on", source))?;
        let thread = std::thread::Builder::new()
            .name("sink-socket".into())
            .spawn(move || server.run())
            .map_err(|source| failed("thread for", source))?;
        Ok(Self { shared, thread: Some(thread), path })
    }

    /// Counters that go on counting for as long as the sink lives.
    pub fn stats(&self) -> Arc<SocketStats> {
        Arc::clone(&self.shared.stats)
    }

    fn nobody_listens(&self) -> bool {
        self.shared.stats.clients() == 0
    }

    /// An error if the serving thread is gone.
    fn check_serving(&self) -> Result<(), SinkError> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Ok(());
        }
        let source = io::Error::other("the serving thread has ended");
        Err(SinkError::Io { what: "publish on", path: self.path.clone(), source })
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.closing.store(true, Release);
        self.shared.ring_bell();
        if thread.join().is_err() {
            log::error!("sink socket: the serving thread panicked");
        }
    }
}

impl Sink for SocketSink {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        self.check_serving()?;
        if self.nobody_listens() {
            return Ok(());
        }
        let header = Header::Heatmap(HeatmapHeader::from(&*item.heatmap));
        let message = wire::encode(&header, &item.heatmap.values)?;
        let dropped = self.shared.lock().rings.push_heatmap(message.into());
        self.shared.stats.dropped.fetch_add(dropped, Relaxed);
        self.shared.ring_bell();
        Ok(())
    }

    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError> {
        self.check_serving()?;
        let camera = CameraHeader::from(state);
        let message = wire::encode(&Header::Camera(camera.clone()), &[])?;
        let mut shared = self.shared.lock();
        shared.hello.camera = camera;
        shared.rings.push_camera(message.into());
        drop(shared);
        self.shared.ring_bell();
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        self.check_serving()?;
        if self.nobody_listens() {
            return Ok(());
        }
        let message = wire::encode(&Header::Event(EventHeader::from(event)), &[])?;
        let dropped = self.shared.lock().rings.push_event(message.into());
        self.shared.stats.dropped.fetch_add(dropped, Relaxed);
        self.shared.ring_bell();
        Ok(())
    }

    fn metrics(&self) -> Option<Arc<dyn Metrics>> {
        Some(self.stats())
    }

    /// Waits at most `serve::FLUSH_AT_MOST` for clients to take what they were sent.
    fn finish(&mut self) -> Result<(), SinkError> {
        self.stop();
        Ok(())
    }
}

impl Drop for SocketSink {
    fn drop(&mut self) {
        self.stop();
    }
}
