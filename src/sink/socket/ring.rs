//! What waits for each client: a bounded ring that drops its oldest heatmap when full.

use std::collections::VecDeque;
use std::sync::Arc;

/// An encoded message, shared by all clients that it goes to.
pub(super) type Shared = Arc<[u8]>;

/// The rings of all clients.
pub(super) struct Rings {
    /// Most heatmaps that wait in one ring.
    capacity: usize,
    rings: Vec<(ClientId, Ring)>,
}

/// Never used twice.
pub(super) type ClientId = u64;

/// Messages in the order in which they go out: at most `capacity` heatmaps and one
/// camera state, as a newer state makes an older one worthless.
#[derive(Default)]
struct Ring {
    waiting: VecDeque<Waiting>,
}

enum Waiting {
    Heatmap(Shared),
    Camera(Shared),
}

impl Waiting {
    fn is_heatmap(&self) -> bool {
        matches!(self, Self::Heatmap(_))
    }
}

impl Ring {
    fn heatmaps(&self) -> usize {
        self.waiting.iter().filter(|message| message.is_heatmap()).count()
    }

    /// Returns whether another heatmap had to go.
    fn push_heatmap(&mut self, message: Shared, capacity: usize) -> bool {
        let full = self.heatmaps() >= capacity;
        if full && let Some(oldest) = self.waiting.iter().position(Waiting::is_heatmap) {
            self.waiting.remove(oldest);
        }
        self.waiting.push_back(Waiting::Heatmap(message));
        full
    }

    fn push_camera(&mut self, message: Shared) {
        self.waiting.retain(Waiting::is_heatmap);
        self.waiting.push_back(Waiting::Camera(message));
    }
}

impl Rings {
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), rings: Vec::new() }
    }

    pub fn add(&mut self, client: ClientId) {
        self.rings.push((client, Ring::default()));
    }

    /// Returns how many heatmaps were still waiting.
    pub fn remove(&mut self, client: ClientId) -> u64 {
        let Some(at) = self.rings.iter().position(|(id, _)| *id == client) else { return 0 };
        self.rings.swap_remove(at).1.heatmaps() as u64
    }

    /// To every client. Returns how many heatmaps were dropped for it.
    pub fn push_heatmap(&mut self, message: Shared) -> u64 {
        let capacity = self.capacity;
        let push = |(_, ring): &mut (_, Ring)| ring.push_heatmap(Arc::clone(&message), capacity);
        self.rings.iter_mut().map(push).filter(|&dropped| dropped).count() as u64
    }

    /// To every client.
    pub fn push_camera(&mut self, message: Shared) {
        for (_, ring) in &mut self.rings {
            ring.push_camera(Arc::clone(&message));
        }
    }

    /// The message that goes to `client` next; it leaves the ring.
    pub fn pop(&mut self, client: ClientId) -> Option<Shared> {
        let (_, ring) = self.rings.iter_mut().find(|(id, _)| *id == client)?;
        ring.waiting
            .pop_front()
            .map(|(Waiting::Heatmap(message) | Waiting::Camera(message))| message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(rings: &mut Rings, client: ClientId) -> Vec<u8> {
        std::iter::from_fn(|| rings.pop(client)).map(|message| message[0]).collect()
    }

    #[test]
    fn a_full_ring_drops_the_oldest_heatmap_and_keeps_the_newest_camera_state() {
        let mut rings = Rings::new(2);
        rings.add(7);
        assert_eq!(rings.push_heatmap([1].into()), 0);
        rings.push_camera([100].into());
        assert_eq!(rings.push_heatmap([2].into()), 0);
        assert_eq!(rings.push_heatmap([3].into()), 1);
        rings.push_camera([101].into());
        assert_eq!(rings.push_heatmap([4].into()), 1);
        assert_eq!(drain(&mut rings, 7), [3, 101, 4]);
    }

    #[test]
    fn clients_do_not_share_their_losses() {
        let mut rings = Rings::new(1);
        rings.add(1);
        rings.add(2);
        rings.push_heatmap([1].into());
        assert_eq!(drain(&mut rings, 1), [1]);
        assert_eq!(rings.push_heatmap([2].into()), 1);
        assert_eq!((drain(&mut rings, 1), drain(&mut rings, 2)), (vec![2], vec![2]));
        rings.push_heatmap([3].into());
        assert_eq!((rings.remove(2), rings.remove(2)), (1, 0));
        assert_eq!(rings.push_heatmap([4].into()), 1);
        assert!(drain(&mut rings, 2).is_empty());
    }
}
