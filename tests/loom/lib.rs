//! Every interleaving of two threads at a slot. loom knows no time: a wait ends when it is
//! notified and not before, so a wake-up that gets lost shows as a deadlock.

#[cfg(test)]
mod slot {
    include!(concat!(env!("OUT_DIR"), "/slot.rs"));
}

#[cfg(test)]
mod tests {
    use super::slot::{Slot, Taken};
    use loom::sync::Arc;
    use loom::thread::{self, JoinHandle};
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(3600);

    /// Does `work` with the slot on a thread of its own.
    fn beside<T: 'static>(
        slot: &Arc<Slot<u32>>,
        work: impl FnOnce(&Slot<u32>) -> T + 'static,
    ) -> JoinHandle<T> {
        let slot = slot.clone();
        thread::spawn(move || work(&slot))
    }

    fn all_taken(slot: &Slot<u32>) -> Vec<u32> {
        let mut seen = Vec::new();
        loop {
            match slot.take(LONG) {
                Taken::Item(item) => seen.push(item),
                Taken::Nothing => {}
                Taken::Closed => return seen,
            }
        }
    }

    #[test]
    fn the_newest_always_arrives() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writer = beside(&slot, |slot| {
                slot.put(|_| 1);
                slot.put(|_| 2);
                slot.close();
            });
            let seen = all_taken(&slot);
            writer.join().unwrap();
            assert!(seen == [1, 2] || seen == [2], "{seen:?}");
        });
    }

    #[test]
    fn an_item_wakes_who_waits() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writer = beside(&slot, |slot| slot.put(|_| 1));
            assert_eq!(slot.take(LONG), Taken::Item(1));
            writer.join().unwrap();
        });
    }

    #[test]
    fn what_a_writer_makes_of_the_old_item_is_never_lost() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writers =
                [1, 10].map(|n| beside(&slot, move |slot| slot.put(|old| old.unwrap_or(0) + n)));
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            slot.close();
            assert_eq!(all_taken(&slot), [11]);
        });
    }

    #[test]
    fn a_writer_that_waits_loses_nothing() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writer = beside(&slot, |slot| {
                for item in [1, 2] {
                    slot.put_when_empty(item, LONG).unwrap();
                }
                slot.close();
            });
            assert_eq!(all_taken(&slot), [1, 2]);
            writer.join().unwrap();
        });
    }

    #[test]
    fn closing_wakes_who_waits() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            slot.put(|_| 1);
            let writer = beside(&slot, |slot| slot.put_when_empty(2, LONG));
            slot.close();
            assert_eq!(writer.join().unwrap(), Err(2));
            assert_eq!(all_taken(&slot), [1]);
        });
    }

    #[test]
    fn closing_wakes_a_reader() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let reader = beside(&slot, all_taken);
            slot.close();
            assert_eq!(reader.join().unwrap(), []);
        });
    }
}
