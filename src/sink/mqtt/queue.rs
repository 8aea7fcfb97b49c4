//! Messages on their way to the broker: a bounded queue, and those sent but not confirmed.
//!
//! A message leaves only when the broker has it. When the connection breaks, what was sent
//! and not confirmed goes back to the front, in its order: the broker may see a message
//! twice, but every one that was not dropped here at least once, and first sightings in
//! order. rumqttc keeps such a list too, but drops it where the broker has forgotten the
//! session, as after a restart.

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

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    waiting: VecDeque<Message>,
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    message: Message,
    /// Given when it goes onto the wire; 0 for quality of service 0.
    packet: Option<u16>,
}

impl Queue {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, waiting: VecDeque::new(), sent: VecDeque::new() }
    }

    /// Returns how many older ones had to go.
    pub fn push(&mut self, message: Message) -> u64 {
        self.waiting.push_back(message);
        let mut dropped = 0;
        while self.waiting.len() > self.capacity {
            self.waiting.pop_front();
            dropped += 1;
        }
        dropped
    }

    /// Ahead of all others, in this order; may exceed the capacity by these.
    pub fn push_front(&mut self, messages: Vec<Message>) {
        messages.into_iter().rev().for_each(|message| self.waiting.push_front(message));
    }

    /// The next to send, if the window has room.
    pub fn send_next(&mut self) -> Option<Message> {
        if self.sent.len() >= WINDOW {
            return None;
        }
        let message = self.waiting.pop_front()?;
        self.sent.push_back(Sent { message: message.clone(), packet: None });
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

    /// The connection is gone.
    pub fn broken(&mut self) {
        while let Some(sent) = self.sent.pop_back() {
            self.waiting.push_front(sent.message);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> Message {
        Message { topic: "t".into(), payload: [n].into(), qos: 1, retain: false }
    }

    fn send(queue: &mut Queue) -> Option<u8> {
        queue.send_next().map(|message| message.payload[0])
    }

    #[test]
    fn what_was_not_confirmed_comes_again_in_order() {
        let mut queue = Queue::new(10);
        (0..6).for_each(|n| assert_eq!(queue.push(message(n)), 0));
        assert_eq!([0, 1, 2, 3].map(|_| send(&mut queue)), [0, 1, 2, 3].map(Some));
        assert_eq!([7, 8].map(|packet| queue.on_wire(packet)), [0, 0]);
        assert_eq!((queue.confirmed(8), queue.confirmed(8), queue.confirmed(9)), (1, 0, 0));
        queue.broken();
        queue.push_front(vec![message(100), message(101)]);
        let all: Vec<u8> = std::iter::from_fn(|| send(&mut queue)).collect();
        assert_eq!(all, [100, 101, 0, 2, 3, 4, 5]);
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
}
