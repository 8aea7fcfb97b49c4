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
    use loom::thread;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(3600);

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
            let writer = thread::spawn({
                let slot = slot.clone();
                move || {
                    slot.put(|_| 1);
                    slot.put(|_| 2);
                    slot.close();
                }
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
            let writer = thread::spawn({
                let slot = slot.clone();
                move || slot.put(|_| 1)
            });
            assert_eq!(slot.take(LONG), Taken::Item(1));
            writer.join().unwrap();
        });
    }

    #[test]
    fn what_a_writer_makes_of_the_old_item_is_never_lost() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writers: Vec<_> = [1, 10]
                .map(|n| {
                    let slot = slot.clone();
                    thread::spawn(move || slot.put(|old| old.unwrap_or(0) + n))
                })
                .into();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            slot.close();
            assert_eq!(all_taken(&slot), [11]);
        });
    }

    #[test]
    fn a_writer_that_waits_loses_nothing() {
        loom::model(|| {
            let slot = Arc::new(Slot::default());
            let writer = thread::spawn({
                let slot = slot.clone();
                move || {
                    for item in [1, 2] {
                        slot.put_when_empty(item, LONG).unwrap();
                    }
                    slot.close();
                }
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
            let writer = thread::spawn({
                let slot = slot.clone();
                move || slot.put_when_empty(2, LONG)
            });
            slot.close();
            assert_eq!(writer.join().unwrap(), Err(2));
            assert_eq!(all_taken(&slot), [1]);
        });
    }

    #[test]
    fn closing_wakes_a_reader() {
        loom::model(|| {
            let slot = Arc::new(Slot::<u32>::default());
            let reader = thread::spawn({
                let slot = slot.clone();
                move || all_taken(&slot)
            });
            slot.close();
            assert_eq!(reader.join().unwrap(), []);
        });
    }
}
