//! The thread that serves all clients.

use super::Shared;
use super::ring::{self, ClientId};
use crate::sink::listen::Listener;
use crate::sink::wire::{self, Header, Refused};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// How long the end waits for clients to take what they were sent.
pub(super) const FLUSH_AT_MOST: Duration = Duration::from_millis(500);
/// A client that takes no byte for this long gives its place to another.
const PATIENCE: Duration = Duration::from_secs(60);
/// No wait is longer.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`: the usual cause is too many open files, and the
/// listener stays readable meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Most connections accepted, and most bytes read from a client, in one turn.
const ACCEPTS_PER_TURN: usize = 64;
const READ_BYTES: usize = 4096;

pub(super) struct Server {
    listener: Listener,
    shared: Arc<Shared>,
    max_clients: usize,
    patience: Duration,
    clients: Vec<Client>,
    next_id: ClientId,
    accept_after: Option<Instant>,
    /// Since when we wait for the last clients.
    closing_since: Option<Instant>,
}

struct Client {
    id: ClientId,
    stream: UnixStream,
    /// The message on its way, and how many of its bytes are gone.
    sending: Option<(ring::Shared, usize)>,
    /// The client may still write; what it writes is thrown away.
    reads: bool,
    last_progress: Instant,
}

/// What became of a client in one turn.
#[derive(PartialEq)]
enum Fate {
    Stays,
    Leaves,
}

impl Server {
    pub fn new(listener: Listener, shared: Arc<Shared>, max_clients: usize) -> io::Result<Self> {
        listener.socket.set_nonblocking(true)?;
        Ok(Self {
            listener,
            shared,
            max_clients,
            patience: PATIENCE,
            clients: Vec::new(),
            next_id: 0,
            accept_after: None,
            closing_since: None,
        })
    }

    pub fn run(mut self) {
        while !self.is_done() {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    log::error!("sink socket: poll: {errno}");
                    return;
                }
            };
            // Asked first: whatever was published before the end is served in this turn.
            let closing = self.shared.closing.load(Acquire);
            self.serve(&ready.clients);
            if ready.listener {
                self.accept();
            }
            if closing && self.closing_since.is_none() {
                self.listener.unlink();
                self.closing_since = Some(Instant::now());
            }
        }
        self.shared.stats.clients.store(0, Relaxed);
    }

    fn is_done(&self) -> bool {
        self.closing_since.is_some_and(|since| {
            self.clients.iter().all(|client| client.sending.is_none())
                || since.elapsed() >= FLUSH_AT_MOST
        })
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> Result<Ready, Errno> {
        let now = Instant::now();
        let accepts =
            self.closing_since.is_none() && self.accept_after.is_none_or(|after| now >= after);
        let listens = if accepts { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = Vec::with_capacity(2 + self.clients.len());
        fds.push(PollFd::new(&self.shared.bell, PollFlags::IN));
        fds.push(PollFd::new(&self.listener.socket, listens));
        fds.extend(self.clients.iter().map(|client| PollFd::new(&client.stream, client.awaits())));
        poll(&mut fds, Some(&timespec(self.longest_wait(now))))?;
        if fds[0].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.shared.bell, &mut [0u8; 8]);
        }
        Ok(Ready {
            listener: fds[1].revents().contains(PollFlags::IN),
            clients: fds[2..].iter().map(PollFd::revents).collect(),
        })
    }

    fn longest_wait(&self, now: Instant) -> Duration {
        let flush_end = self.closing_since.map(|since| since + FLUSH_AT_MOST);
        [flush_end, self.accept_after]
            .into_iter()
            .flatten()
            .filter(|&moment| moment > now)
            .map(|moment| moment - now)
            .fold(TICK, Duration::min)
    }

    /// Gives every client what it can take, and parts with those who left.
    fn serve(&mut self, ready: &[PollFlags]) {
        let mut at = 0;
        for &revents in ready {
            if self.turn(at, revents) == Fate::Stays {
                at += 1;
            } else {
                self.part_with(at);
            }
        }
    }

    fn turn(&mut self, at: usize, revents: PollFlags) -> Fate {
        let client = &mut self.clients[at];
        if revents.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Fate::Leaves;
        }
        if revents.contains(PollFlags::IN) && client.discard_input().is_err() {
            return Fate::Leaves;
        }
        match client.send(&self.shared) {
            Err(_) => Fate::Leaves,
            Ok(()) if client.is_stuck(self.patience) => {
                log::info!("sink socket: a client took nothing for {:?}: closed", self.patience);
                Fate::Leaves
            }
            Ok(()) => Fate::Stays,
        }
    }

    fn part_with(&mut self, at: usize) {
        // In order: `serve` walks the clients beside what `poll` said of them.
        let client = self.clients.remove(at);
        let mut lost = self.shared.lock().rings.remove(client.id);
        lost += u64::from(client.sending.is_some());
        self.shared.stats.dropped.fetch_add(lost, Relaxed);
        self.shared.stats.clients.store(self.clients.len(), Relaxed);
    }

    fn accept(&mut self) {
        self.accept_after = None;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.socket.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client left before its turn came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("sink socket: cannot accept a client: {error}");
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.clients.len() >= self.max_clients {
            self.shared.stats.refused.fetch_add(1, Relaxed);
            let reason = format!("all {} places for clients are taken", self.max_clients);
            let refusal = wire::encode(&Header::Refused(Refused { reason }), &[]);
            // A fresh socket's buffer takes it whole; a client that is gone already needs none.
            let _ = refusal.map(|bytes| rustix::net::send(&stream, &bytes, SendFlags::NOSIGNAL));
            return;
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut shared = self.shared.lock();
        let hello = Header::Hello(shared.hello.clone());
        let Ok(hello) = wire::encode(&hello, &[]) else {
            log::error!("sink socket: the hello cannot be encoded");
            return;
        };
        shared.rings.add(id);
        drop(shared);
        self.clients.push(Client {
            id,
            stream,
            sending: Some((hello.into(), 0)),
            reads: true,
            last_progress: Instant::now(),
        });
        // Before the hello goes out: who has read it gets every heatmap from then on.
        self.shared.stats.clients.store(self.clients.len(), Release);
        if let Some(client) = self.clients.last_mut() {
            // What goes wrong here `poll` will tell in the next turn.
            let _ = client.send(&self.shared);
        }
    }
}

/// What `poll` found.
struct Ready {
    listener: bool,
    /// In the order of the clients.
    clients: Vec<PollFlags>,
}

impl Client {
    fn awaits(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.reads);
        flags.set(PollFlags::OUT, self.sending.is_some());
        flags
    }

    /// Clients have nothing to say in this version: whatever they write is thrown away.
    fn discard_input(&mut self) -> Result<(), Errno> {
        let mut scratch = [0u8; READ_BYTES];
        match rustix::net::recv(&self.stream, &mut scratch, RecvFlags::DONTWAIT) {
            // It closed its writing half and may still read.
            Ok((_, 0)) => self.reads = false,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Writes until nothing waits or the client takes no more.
    fn send(&mut self, shared: &Shared) -> Result<(), Errno> {
        loop {
            let next = self.sending.take().or_else(|| {
                self.last_progress = Instant::now();
                Some((shared.lock().rings.pop(self.id)?, 0))
            });
            let Some((message, sent)) = next else { return Ok(()) };
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let taken = match rustix::net::send(&self.stream, &message[sent..], flags) {
                Ok(taken) => taken,
                Err(Errno::AGAIN) => {
                    self.sending = Some((message, sent));
                    return Ok(());
                }
                Err(Errno::INTR) => 0,
                Err(errno) => return Err(errno),
            };
            if taken > 0 {
                self.last_progress = Instant::now();
            }
            if sent + taken < message.len() {
                self.sending = Some((message, sent + taken));
            } else {
                shared.stats.sent.fetch_add(1, Relaxed);
            }
        }
    }

    fn is_stuck(&self, patience: Duration) -> bool {
        self.sending.is_some() && self.last_progress.elapsed() >= patience
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as _, tv_nsec: duration.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::sink::socket::ring::Rings;
    use crate::sink::wire::Hello;
    use rustix::event::{EventfdFlags, eventfd};
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::sync::Mutex;

    /// A client that stops reading holds its place for only so long; one that has been
    /// sent nothing may be silent for ever.
    #[test]
    fn a_client_that_takes_nothing_is_closed_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::inherited(UnixListener::bind(&path).unwrap());
        let shared = Arc::new(Shared {
            state: Mutex::new(State { hello: Hello::default(), rings: Rings::new(4) }),
            bell: eventfd(0, EventfdFlags::NONBLOCK).unwrap(),
            closing: false.into(),
            stats: Arc::default(),
        });
        let mut server = Server::new(listener, Arc::clone(&shared), 8).unwrap();
        server.patience = Duration::from_millis(50);
        let mut stuck = UnixStream::connect(&path).unwrap();
        server.accept();
        shared.lock().rings.push_heatmap(vec![0; 4 << 20].into());
        let mut idle = UnixStream::connect(&path).unwrap();
        server.accept();
        let thread = std::thread::spawn(|| server.run());

        // Served until its buffer is full, then closed: the end comes before the whole.
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        while shared.stats.clients() == 2 && start.elapsed() < Duration::from_secs(20) {
            shared.ring_bell();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((shared.stats.clients(), shared.stats.dropped()), (1, 1));
        let mut taken = Vec::new();
        stuck.read_to_end(&mut taken).unwrap();
        assert!(taken.len() < 4 << 20, "{}", taken.len());

        shared.closing.store(true, std::sync::atomic::Ordering::Release);
        shared.ring_bell();
        thread.join().unwrap();
        let mut hello = Vec::new();
        idle.read_to_end(&mut hello).unwrap();
        assert_eq!(hello[..4], wire::MAGIC);
    }
}
