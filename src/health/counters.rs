//! What happened so far, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A number that only grows. Counters are independent of each other, hence relaxed.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes up a total that somebody else counts.
    pub fn set(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The daemon's counters since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that the camera yielded.
    pub frames: Counter,
    /// Older frames passed over for a newer one.
    pub frames_skipped: Counter,
    /// Gaps in the camera's sequence numbers.
    pub frames_lost: Counter,
    /// Frames flagged by the driver, too short, or not decodable.
    pub frames_bad: Counter,
    /// Waits for a frame that ran into the timeout.
    pub camera_stalls: Counter,
    /// Times that the camera was opened again.
    pub camera_reopens: Counter,
    /// Maps published.
    pub heatmaps: Counter,
    /// Frames on which the model failed.
    pub inferences_failed: Counter,
    /// Configurations taken up while running ...
    pub reloads: Counter,
    /// ... and those refused, the old one staying.
    pub reloads_refused: Counter,
    sinks: Mutex<Vec<Arc<SinkCounters>>>,
}

/// One sink's counters.
#[derive(Debug, Default)]
pub struct SinkCounters {
    name: String,
    /// Items the sink took.
    pub published: Counter,
    /// Items replaced by a newer one before the sink got to them.
    pub dropped: Counter,
    /// Items the sink could not take: disk full, and so on.
    pub failed: Counter,
}

impl Counters {
    /// The counters of the sink `name`; made at its first use, the same ever after, so that
    /// a reload does not start them anew.
    pub fn sink(&self, name: &str) -> Arc<SinkCounters> {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = sinks.iter().find(|s| s.name == name) {
            return Arc::clone(known);
        }
        let new = Arc::new(SinkCounters { name: name.into(), ..Default::default() });
        sinks.push(Arc::clone(&new));
        new
    }

    /// All counters by name, sinks as `sink.NAME.published` and so on.
    pub fn snapshot(&self) -> Vec<(String, u64)> {
        let own = [
            ("frames", &self.frames),
            ("frames_skipped", &self.frames_skipped),
            ("frames_lost", &self.frames_lost),
            ("frames_bad", &self.frames_bad),
            ("camera_stalls", &self.camera_stalls),
            ("camera_reopens", &self.camera_reopens),
            ("heatmaps", &self.heatmaps),
            ("inferences_failed", &self.inferences_failed),
            ("reloads", &self.reloads),
            ("reloads_refused", &self.reloads_refused),
        ];
        let mut all: Vec<_> = own.map(|(name, c)| (name.to_string(), c.get())).into();
        for sink in self.sinks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (what, counter) in [
                ("published", &sink.published),
                ("dropped", &sink.dropped),
                ("failed", &sink.failed),
            ] {
                all.push((format!("sink.{}.{what}", sink.name), counter.get()));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_several_threads_and_keeps_a_sinks_counters() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counters.frames.add(1)));
            }
        });
        counters.sink("files").dropped.add(2);
        counters.sink("files").dropped.add(1);
        counters.sink("socket").published.add(7);
        let snapshot = counters.snapshot();
        let get = |name: &str| snapshot.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        assert_eq!(get("frames"), Some(4000));
        assert_eq!(get("sink.files.dropped"), Some(3));
        assert_eq!(get("sink.files.failed"), Some(0));
        assert_eq!(get("sink.socket.published"), Some(7));
        assert_eq!(get("sink.socket.dropped"), Some(0));
        assert_eq!(snapshot.len(), 10 + 2 * 3);
    }
}
