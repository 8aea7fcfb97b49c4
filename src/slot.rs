//! A place for the newest of something between two threads: the writer never waits for
//! the reader, and nothing queues up.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Holds at most one `T`.
#[derive(Debug)]
pub struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    item: Option<T>,
    closed: bool,
}

/// What a wait for an item came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<T> {
    Item(T),
    /// Nothing within the time.
    Nothing,
    /// The slot is closed and empty.
    Closed,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        let state = Mutex::new(State { item: None, closed: false });
        Self { state, changed: Condvar::new() }
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No holder of the lock leaves the state half-changed.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Puts in what `make` makes of what was still there.
    pub fn put(&self, make: impl FnOnce(Option<T>) -> T) {
        let mut state = self.lock();
        let old = state.item.take();
        state.item = Some(make(old));
        self.changed.notify_all();
    }

    /// Puts an item in once the slot is empty: for sources of which nothing may be
    /// skipped. Gives it back after `timeout`, or when the slot is closed.
    pub fn put_when_empty(&self, item: T, timeout: Duration) -> Result<(), T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.item.is_some() && !state.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(item);
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
        if state.closed {
            return Err(item);
        }
        state.item = Some(item);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for an item, at most `timeout`.
    pub fn take(&self, timeout: Duration) -> Taken<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(item) = state.item.take() {
                self.changed.notify_all();
                return Taken::Item(item);
            }
            if state.closed {
                return Taken::Closed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Nothing;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// Whether [`Slot::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// No more items will come; what is in the slot can still be taken.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn the_newest_wins() {
        let slot = Slot::default();
        slot.put(|old| {
            assert_eq!(old, None);
            1
        });
        slot.put(|old| old.unwrap() + 1);
        assert_eq!(slot.take(SOON), Taken::Item(2));
        assert_eq!(slot.take(SOON), Taken::Nothing);
    }

    #[test]
    fn a_closed_slot_gives_out_its_last_item() {
        let slot = Slot::default();
        slot.put(|_| 1);
        slot.close();
        assert_eq!(slot.take(SOON), Taken::Item(1));
        assert_eq!(slot.take(SOON), Taken::Closed);
        assert_eq!(slot.put_when_empty(2, SOON), Err(2));
    }

    #[test]
    fn nothing_is_lost_when_the_writer_waits() {
        let slot = std::sync::Arc::new(Slot::default());
        let reader = std::thread::spawn({
            let slot = slot.clone();
            move || {
                let mut seen = Vec::new();
                while let Taken::Item(i) = slot.take(Duration::from_secs(10)) {
                    seen.push(i);
                }
                seen
            }
        });
        for i in 0..100 {
            slot.put_when_empty(i, Duration::from_secs(10)).unwrap();
        }
        slot.close();
        assert_eq!(reader.join().unwrap(), (0..100).collect::<Vec<_>>());
    }
}
