//! What waits for each client: a bounded ring that drops its oldest heatmap when full, and
//! its oldest event when there are very many.

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

/// Events are rare and each counts: only a client that has long stopped reading loses one.
const MAX_EVENTS: usize = 64;

/// Messages in the order in which they go out: at most `capacity` heatmaps, [`MAX_EVENTS`]
/// events and one camera state, as a newer state makes an older one worthless.
#[derive(Default)]
struct Ring {
    waiting: VecDeque<Waiting>,
}

enum Waiting {
    Heatmap(Shared),
    Event(Shared),
    Camera(Shared),
}

impl Waiting {
    fn is_heatmap(&self) -> bool {
        matches!(self, Self::Heatmap(_))
    }

    fn is_event(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    fn is_camera(&self) -> bool {
        matches!(self, Self::Camera(_))
    }
}

impl Ring {
    fn count(&self, of: fn(&Waiting) -> bool) -> usize {
        self.waiting.iter().filter(|message| of(message)).count()
    }

    /// Returns whether another message of its kind had to go.
    fn push(&mut self, message: Waiting, kind: fn(&Waiting) -> bool, capacity: usize) -> bool {
        let full = self.count(kind) >= capacity;
        if full && let Some(oldest) = self.waiting.iter().position(kind) {
            self.waiting.remove(oldest);
        }
        self.waiting.push_back(message);
        full
    }
}

impl Rings {
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), rings: Vec::new() }
    }

    pub fn add(&mut self, client: ClientId) {
        self.rings.push((client, Ring::default()));
    }

    /// Returns how many heatmaps and events were still waiting.
    pub fn remove(&mut self, client: ClientId) -> u64 {
        let Some(at) = self.rings.iter().position(|(id, _)| *id == client) else { return 0 };
        let ring = self.rings.swap_remove(at).1;
        (ring.count(Waiting::is_heatmap) + ring.count(Waiting::is_event)) as u64
    }

    /// To every client. Returns how many heatmaps were dropped for it.
    pub fn push_heatmap(&mut self, message: Shared) -> u64 {
        let capacity = self.capacity;
        self.push(|| Waiting::Heatmap(Arc::clone(&message)), Waiting::is_heatmap, capacity)
    }

    /// To every client. Returns how many events were dropped for it.
    pub fn push_event(&mut self, message: Shared) -> u64 {
        self.push(|| Waiting::Event(Arc::clone(&message)), Waiting::is_event, MAX_EVENTS)
    }

    /// To every client.
    pub fn push_camera(&mut self, message: Shared) {
        self.push(|| Waiting::Camera(Arc::clone(&message)), Waiting::is_camera, 1);
    }

    fn push(
        &mut self,
        message: impl Fn() -> Waiting,
        kind: fn(&Waiting) -> bool,
        capacity: usize,
    ) -> u64 {
        let push = |(_, ring): &mut (_, Ring)| ring.push(message(), kind, capacity);
        self.rings.iter_mut().map(push).filter(|&dropped| dropped).count() as u64
    }

    /// The message that goes to `client` next; it leaves the ring.
    pub fn pop(&mut self, client: ClientId) -> Option<Shared> {
        let (_, ring) = self.rings.iter_mut().find(|(id, _)| *id == client)?;
        match ring.waiting.pop_front()? {
            Waiting::Heatmap(message) | Waiting::Event(message) | Waiting::Camera(message) => {
                Some(message)
            }
        }
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
    fn heatmaps_do_not_push_events_out() {
        let mut rings = Rings::new(1);
        rings.add(7);
        rings.push_event([50].into());
        rings.push_heatmap([1].into());
        assert_eq!((rings.push_heatmap([2].into()), rings.push_event([51].into())), (1, 0));
        assert_eq!(drain(&mut rings, 7), [50, 2, 51]);
        let dropped: u64 = (0..70).map(|i| rings.push_event([i].into())).sum();
        assert_eq!((dropped, drain(&mut rings, 7)), (6, (6..70).collect()));
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
