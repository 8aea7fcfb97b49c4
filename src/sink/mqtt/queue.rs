//! Messages on their way to the broker: a bounded queue, and those sent but not confirmed.
//!
//! A message leaves only when the broker has it. When the connection breaks, what was sent
//! and not confirmed goes back to the front, in its order: the broker may see a message
//! twice, but every one that was not dropped here at least once, and first sightings in
//! order. rumqttc keeps such a list too, but drops it where the broker has forgotten the
//! session, as after a restart.
//!
//! Pictures are the large messages, and of these at most two are here: one on its way, and
//! the newest, which waits. One that broke the connection does not come again.

use std::collections::VecDeque;
use std::sync::Arc;

/// Sent and not confirmed, at most.
pub(super) const WINDOW: usize = 32;

/// One publication.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    pub topic: Arc<str>,
    pub payload: Arc<[u8]>,
    /// 0 or 1.
    pub qos: u8,
    pub retain: bool,
}

impl Message {
    /// On the wire, at most.
    pub fn bytes(&self) -> usize {
        const HEADERS: usize = 16;
        HEADERS + self.topic.len() + self.payload.len()
    }

    /// What the broker keeps the newest of, and need not see every one of.
    fn is_picture(&self) -> bool {
        self.qos == 0 && self.retain
    }

    /// A newer picture, or none.
    fn replaces(&self, older: &Message) -> bool {
        self.retain && older.is_picture() && self.topic == older.topic
    }
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    /// What this connection is told first.
    greeting: VecDeque<Message>,
    waiting: VecDeque<Message>,
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    message: Message,
    is_greeting: bool,
    /// Given when it goes onto the wire; 0 for quality of service 0.
    packet: Option<u16>,
}

impl Queue {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            greeting: VecDeque::new(),
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    /// Returns how many older ones had to go.
    pub fn push(&mut self, message: Message) -> u64 {
        if let Some(older) = self.waiting.iter_mut().find(|older| message.replaces(older)) {
            *older = message;
            return 1;
        }
        self.waiting.push_back(message);
        self.drop_oldest()
    }

    fn drop_oldest(&mut self) -> u64 {
        let dropped = self.waiting.len().saturating_sub(self.capacity);
        self.waiting.drain(..dropped);
        dropped as u64
    }

    /// Begins a connection: these go ahead of all others, in this order.
    pub fn greet(&mut self, greeting: Vec<Message>) {
        self.greeting = greeting.into();
    }

    /// Whether the broker has confirmed all of the greeting.
    pub fn has_greeted(&self) -> bool {
        self.greeting.is_empty() && !self.sent.iter().any(|sent| sent.is_greeting)
    }

    /// The next to send, if the window has room.
    pub fn send_next(&mut self) -> Option<Message> {
        if self.sent.len() >= WINDOW {
            return None;
        }
        let is_greeting = !self.greeting.is_empty();
        let message = match self.greeting.pop_front() {
            Some(message) => message,
            None => {
                let is_free = |next: &Message| !self.sent.iter().any(|s| next.replaces(&s.message));
                let at = self.waiting.iter().position(is_free)?;
                self.waiting.remove(at)?
            }
        };
        self.sent.push_back(Sent { message: message.clone(), is_greeting, packet: None });
        Some(message)
    }

    /// The oldest that had no packet number went onto the wire with this one. Returns how
    /// many are done with that: one where nobody confirms.
    pub fn on_wire(&mut self, packet: u16) -> u64 {
        let Some(at) = self.sent.iter().position(|sent| sent.packet.is_none()) else { return 0 };
        if packet == 0 {
            self.sent.remove(at);
            return 1;
        }
        self.sent[at].packet = Some(packet);
        0
    }

    /// The broker has it. Returns how many are done with that.
    pub fn confirmed(&mut self, packet: u16) -> u64 {
        let at = self.sent.iter().position(|sent| sent.packet == Some(packet));
        u64::from(at.and_then(|at| self.sent.remove(at)).is_some())
    }

    /// The connection is gone. Returns how many messages are lost with it: those that come
    /// once or not at all, as one of them may be what the connection broke of, and the oldest
    /// that are too many. The next connection has a greeting of its own.
    pub fn broken(&mut self) -> u64 {
        self.greeting.clear();
        let mut lost = 0;
        while let Some(Sent { message, is_greeting, .. }) = self.sent.pop_back() {
            match message.qos {
                _ if is_greeting => {}
                0 => lost += 1,
                _ => self.waiting.push_front(message),
            }
        }
        lost + self.drop_oldest()
    }

    pub fn is_empty(&self) -> bool {
        self.greeting.is_empty() && self.waiting.is_empty() && self.sent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> Message {
        Message { topic: "t".into(), payload: [n].into(), qos: 1, retain: false }
    }

    fn picture(n: u8) -> Message {
        Message { topic: "picture".into(), qos: 0, retain: true, ..message(n) }
    }

    fn send(queue: &mut Queue) -> Option<u8> {
        queue.send_next().map(|message| message.payload[0])
    }

    fn send_all(queue: &mut Queue) -> Vec<u8> {
        std::iter::from_fn(|| send(queue)).collect()
    }

    #[test]
    fn what_was_not_confirmed_comes_again_in_order() {
        let mut queue = Queue::new(10);
        (0..6).for_each(|n| assert_eq!(queue.push(message(n)), 0));
        assert_eq!([0, 1, 2, 3].map(|_| send(&mut queue)), [0, 1, 2, 3].map(Some));
        assert_eq!([7, 8].map(|packet| queue.on_wire(packet)), [0, 0]);
        assert_eq!((queue.confirmed(8), queue.confirmed(8), queue.confirmed(9)), (1, 0, 0));
        assert_eq!(queue.broken(), 0);
        queue.greet(vec![message(100), message(101)]);
        assert_eq!(send_all(&mut queue), [100, 101, 0, 2, 3, 4, 5]);
        assert!(!queue.is_empty());
        assert_eq!((0..7).map(|_| queue.on_wire(0)).sum::<u64>(), 7);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_drops_its_oldest_and_the_window_is_bounded() {
        let mut queue = Queue::new(3);
        let dropped: u64 = (0..5).map(|n| queue.push(message(n))).sum();
        assert_eq!((dropped, send(&mut queue)), (2, Some(2)));
        let mut queue = Queue::new(100);
        (0..50).for_each(|n| assert_eq!(queue.push(message(n)), 0));
        assert_eq!(std::iter::from_fn(|| send(&mut queue)).count(), WINDOW);
    }

    #[test]
    fn broken_connections_leave_no_more_than_the_queue_may_hold() {
        let mut queue = Queue::new(3);
        (0..3).for_each(|n| assert_eq!(queue.push(message(n)), 0));
        // A broker that accepts and drops, before it confirms anything.
        for _ in 0..5 {
            queue.greet((0..8).map(|n| message(100 + n)).collect());
            assert_eq!(send_all(&mut queue).len(), 8 + 3);
            assert!(!queue.has_greeted());
            assert_eq!(queue.broken(), 0);
        }
        assert_eq!(send_all(&mut queue), [0, 1, 2]);
        (3..6).for_each(|n| assert_eq!(queue.push(message(n)), 0));
        // The oldest make way.
        assert_eq!(queue.broken(), 3);
        assert_eq!(send_all(&mut queue), [3, 4, 5]);
        assert!(queue.has_greeted());
    }

    #[test]
    fn a_picture_that_breaks_the_connection_does_not_come_again() {
        let mut queue = Queue::new(10);
        queue.push(picture(0));
        queue.push(message(1));
        assert_eq!(send_all(&mut queue), [0, 1]);
        assert_eq!(queue.broken(), 1);
        assert_eq!(send_all(&mut queue), [1]);
    }

    #[test]
    fn of_pictures_one_is_on_its_way_and_the_newest_waits() {
        let mut queue = Queue::new(10);
        assert_eq!([0, 1].map(|n| queue.push(picture(n))), [0, 1]);
        assert_eq!(send_all(&mut queue), [1]);
        assert_eq!([2, 3].map(|n| queue.push(picture(n))), [0, 1]);
        queue.push(message(4));
        assert_eq!(send_all(&mut queue), [4]);
        assert_eq!(queue.on_wire(0), 1);
        assert_eq!(send_all(&mut queue), [3]);
        // Where there are to be none, none that waits comes after that.
        assert_eq!(queue.push(picture(5)), 0);
        assert_eq!(queue.push(Message { qos: 1, ..picture(6) }), 1);
        assert_eq!([1, 0].map(|packet| queue.on_wire(packet)), [0, 1]);
        assert_eq!(send_all(&mut queue), [6]);
    }
}
