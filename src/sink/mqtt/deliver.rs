//! The thread that talks to the broker: connects, sends, and connects again.

use super::MAX_OUT_BYTES;
use super::queue::{Message, Queue, WINDOW};
use crate::health::{Metric, Metrics};
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    NoticeFailureReason, Outgoing, Packet, PublishOptions, QoS,
};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A broker that does not answer in this time is away.
const CONNECT_TIMEOUT_S: u64 = 10;
/// Between the first two attempts; doubled up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A connection that held for this long was a good one. What breaks sooner, as when two
/// devices have one name and the broker drops one for the other, is tried ever more rarely.
const HELD: Duration = Duration::from_secs(60);
/// What the last messages get at the end.
pub(super) const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// What the sink and its thread share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Rung when there is something to send, or to end.
    bell: Notify,
    closing: AtomicBool,
    pub stats: Arc<MqttStats>,
    /// A message was larger than a packet may be, and that was told.
    told_large: AtomicBool,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    is_connected: bool,
}

/// What goes on at the broker; kept by whoever wants to report it.
#[derive(Debug, Default)]
pub struct MqttStats {
    connected: AtomicBool,
    connects: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
}

impl MqttStats {
    /// Whether the broker has accepted us.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Times that it did.
    pub fn connects(&self) -> u64 {
        self.connects.load(Relaxed)
    }

    /// Messages that the broker has; of those sent with quality of service 0, that went out.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Messages lost: those that a full queue had no room for, that were too large, and of those
    /// sent with quality of service 0 also pictures that a newer one took the place of, and
    /// what was on its way when the connection broke.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Metrics for MqttStats {
    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::gauge(
                "mqtt_connected",
                "Whether the broker has accepted the daemon.",
                self.is_connected().into(),
            ),
            Metric::counter("mqtt_connects_total", "Times that the broker did.", self.connects()),
            Metric::counter(
                "mqtt_messages_delivered_total",
                "Messages that the broker has, with quality of service 0 that went out.",
                self.delivered(),
            ),
            Metric::counter(
                "mqtt_messages_dropped_total",
                "Messages lost to a full queue, their size or a broken connection.",
                self.dropped(),
            ),
        ]
    }
}

impl Shared {
    pub fn new(capacity: usize) -> Self {
        let state = State { queue: Queue::new(capacity), is_connected: false };
        Self {
            state: Mutex::new(state),
            bell: Notify::new(),
            closing: AtomicBool::new(false),
            stats: Arc::default(),
            told_large: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn connected(&self, greeting: Vec<Message>) {
        let mut state = self.lock();
        state.queue.greet(greeting);
        state.is_connected = true;
        self.stats.connected.store(true, Relaxed);
        self.stats.connects.fetch_add(1, Relaxed);
    }

    fn disconnected(&self) {
        let mut state = self.lock();
        state.is_connected = false;
        let lost = state.queue.broken();
        self.stats.dropped.fetch_add(lost, Relaxed);
        self.stats.connected.store(false, Relaxed);
    }

    /// Whether the broker has confirmed what it is told first.
    pub fn has_greeted(&self) -> bool {
        let state = self.lock();
        state.is_connected && state.queue.has_greeted()
    }

    pub fn push(&self, message: Message) {
        // It would break the connection, again and again.
        if message.bytes() > MAX_OUT_BYTES {
            self.stats.dropped.fetch_add(1, Relaxed);
            if !self.told_large.swap(true, Relaxed) {
                let (topic, bytes) = (&message.topic, message.bytes());
                log::warn!(
                    "sink mqtt: {topic}: {bytes} bytes are left out, a message may have \
                     {MAX_OUT_BYTES}; make sink.mqtt.picture_width_px smaller"
                );
            }
            return;
        }
        let dropped = self.lock().queue.push(message);
        self.stats.dropped.fetch_add(dropped, Relaxed);
        self.bell.notify_one();
    }

    pub fn close(&self) {
        self.closing.store(true, Relaxed);
        self.bell.notify_one();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }
}

/// Delivers until the sink closes. `greeting` makes what goes out first on every connection.
pub(super) async fn deliver(
    shared: &Shared,
    options: MqttOptions,
    greeting: impl Fn() -> Vec<Message>,
) {
    let (client, mut events) = AsyncClient::builder(options).capacity(WINDOW).build();
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(CONNECT_TIMEOUT_S);
    events.set_network_options(network);
    tokio::select! {
        () = converse(shared, &mut events, greeting) => {}
        () = send(shared, &client) => {}
        () = ended(shared) => {}
    }
    let was_connected = std::mem::replace(&mut shared.lock().is_connected, false);
    if was_connected && client.try_disconnect().is_ok() {
        let goodbye = async {
            while !matches!(events.poll().await, Err(_) | Ok(Event::Outgoing(Outgoing::Disconnect)))
            {
            }
        };
        let _ = tokio::time::timeout(FINISH_WITHIN / 4, goodbye).await;
    }
    shared.stats.connected.store(false, Relaxed);
}

/// Returns once the sink closes and everything is out, or its time is.
async fn ended(shared: &Shared) {
    let mut until = None;
    loop {
        if shared.is_closing() {
            let until = *until.get_or_insert(Instant::now() + FINISH_WITHIN);
            let state = shared.lock();
            if state.queue.is_empty() || !state.is_connected || Instant::now() >= until {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Hands messages over as long as the window has room.
async fn send(shared: &Shared, client: &AsyncClient) {
    loop {
        shared.bell.notified().await;
        loop {
            let next = {
                let mut state = shared.lock();
                if state.is_connected { state.queue.send_next() } else { None }
            };
            let Some(Message { topic, payload, qos, retain }) = next else { break };
            let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let options = PublishOptions::new(qos).retain(retain);
            // As long as the window, the channel has room for all of it.
            if let Err(error) = client.try_publish(&*topic, payload.to_vec(), options) {
                log::error!("sink mqtt: {error}");
            }
        }
    }
}

/// Keeps the connection and takes note of what the broker confirms.
async fn converse(shared: &Shared, events: &mut EventLoop, greeting: impl Fn() -> Vec<Message>) {
    let mut backoff = Backoff(MIN_BACKOFF);
    let mut connected: Option<Instant> = None;
    let mut told = String::new();
    loop {
        let done = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                log::info!("sink mqtt: connected to {}", address(events));
                connected = Some(Instant::now());
                told.clear();
                shared.connected(greeting());
                0
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => shared.lock().queue.confirmed(ack.pkid),
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => shared.lock().queue.on_wire(packet),
            Ok(_) => continue,
            Err(error) => {
                // What rumqttc would send again our queue does, and in order.
                events.clean();
                events.drain_pending_as_failed(NoticeFailureReason::SessionReset);
                shared.disconnected();
                let why = explained(&error);
                if told != why {
                    log::warn!("sink mqtt: {}: {why}; trying again", address(events));
                    told = why;
                }
                let held = connected.take().map_or(Duration::ZERO, |since| since.elapsed());
                tokio::time::sleep(jittered(backoff.after(held))).await;
                continue;
            }
        };
        shared.stats.delivered.fetch_add(done, Relaxed);
        shared.bell.notify_one();
    }
}

/// The next wait.
struct Backoff(Duration);

impl Backoff {
    /// How long to wait after a connection that held for so long; zero: there was none.
    fn after(&mut self, held: Duration) -> Duration {
        if held >= HELD {
            self.0 = MIN_BACKOFF;
        }
        let doubled = (self.0 * 2).min(MAX_BACKOFF);
        std::mem::replace(&mut self.0, doubled)
    }
}

fn address(events: &EventLoop) -> String {
    let broker = events.mqtt_options.broker().tcp_address();
    broker.map_or_else(String::new, |(host, port)| format!("{host}:{port}"))
}

/// Between half of it and all: a fleet whose broker was away does not come back at once.
fn jittered(backoff: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8) as f64 / u64::MAX as f64;
    backoff.mul_f64(0.5 + random / 2.0)
}

/// An error in words that name what to do.
fn explained(error: &ConnectionError) -> String {
    use rumqttc::ConnectReturnCode::{BadClientId, BadUserNamePassword, NotAuthorized};
    let advice = match error {
        ConnectionError::ConnectionRefused(BadUserNamePassword | NotAuthorized) => {
            "the broker refuses us: check sink.mqtt.username, sink.mqtt.password_file and what \
             the broker allows this user"
        }
        ConnectionError::ConnectionRefused(BadClientId) => {
            "the broker refuses our name: set sink.mqtt.device"
        }
        ConnectionError::NetworkTimeout => "no answer: check sink.mqtt.host and sink.mqtt.port",
        _ => return chain(error),
    };
    advice.into()
}

/// An error and its causes; rumqttc leaves the last, most telling one to `source`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_connection_that_held_makes_the_next_wait_short() {
        let mut backoff = Backoff(MIN_BACKOFF);
        let mut wait = |held_s| backoff.after(Duration::from_secs(held_s)).as_secs_f64();
        // As two devices of one name do to each other: accepted, and dropped for the other.
        assert_eq!([0, 1, 59, 1].map(&mut wait), [0.5, 1.0, 2.0, 4.0]);
        assert_eq!([0; 6].map(&mut wait), [8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
        assert_eq!([60, 0].map(&mut wait), [0.5, 1.0]);
    }

    #[test]
    fn a_message_that_no_packet_holds_is_left_out() {
        let shared = Shared::new(10);
        let message = |bytes: usize| Message {
            topic: "t".into(),
            payload: vec![0; bytes].into(),
            qos: 1,
            retain: false,
        };
        shared.push(message(MAX_OUT_BYTES));
        assert!(shared.lock().queue.is_empty());
        assert_eq!(shared.stats.dropped(), 1);
        shared.push(message(MAX_OUT_BYTES - 64));
        assert!(!shared.lock().queue.is_empty());
    }
}
