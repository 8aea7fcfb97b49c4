//! What happened so far, counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

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

/// A number that a part of the daemon keeps itself, as Prometheus has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Without the daemon's own; a counter's ends in `_total`.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    pub help: &'static str,
    pub value: u64,
}

impl Metric {
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, kind: "counter", help, value }
    }

    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, kind: "gauge", help, value }
    }
}

/// Whoever keeps some.
pub trait Metrics: Send + Sync {
    fn metrics(&self) -> Vec<Metric>;
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
    /// Maps published ...
    pub heatmaps: Counter,
    /// ... of these for a frame that had not changed, so an earlier one's map.
    pub heatmaps_republished: Counter,
    /// ... and of these after more than 1.1 times `tta.budget.budget_ms`, heat considered.
    pub heatmaps_late: Counter,
    /// Views run for them ...
    pub views_run: Counter,
    /// ... and views kept from earlier frames that were merged into them.
    pub views_kept: Counter,
    /// Frames on which the model failed.
    pub inferences_failed: Counter,
    /// Configurations taken up while running ...
    pub reloads: Counter,
    /// ... and those refused, the old one staying.
    pub reloads_refused: Counter,
    sinks: Mutex<Vec<Arc<SinkCounters>>>,
    /// By the name of the sink; gone with it.
    watched: Mutex<Vec<(String, Weak<dyn Metrics>)>>,
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

    /// Takes up what the sink `name` counts itself, in place of an earlier one of that name.
    pub fn watch(&self, name: &str, metrics: Option<Arc<dyn Metrics>>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|(known, _)| known != name);
        watched.extend(metrics.map(|metrics| (name.into(), Arc::downgrade(&metrics))));
    }

    /// What sinks count themselves.
    pub fn of_sinks(&self) -> Vec<Metric> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let there = watched.iter().filter_map(|(_, metrics)| metrics.upgrade());
        there.flat_map(|metrics| metrics.metrics()).collect()
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
            ("heatmaps_republished", &self.heatmaps_republished),
            ("heatmaps_late", &self.heatmaps_late),
            ("views_run", &self.views_run),
            ("views_kept", &self.views_kept),
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
        assert_eq!(snapshot.len(), 14 + 2 * 3);
    }

    struct One(u64);

    impl Metrics for One {
        fn metrics(&self) -> Vec<Metric> {
            vec![Metric::gauge("x", "Help.", self.0)]
        }
    }

    #[test]
    fn what_a_sink_counts_is_there_as_long_as_the_sink() {
        let counters = Counters::default();
        let values = || counters.of_sinks().iter().map(|m| m.value).collect::<Vec<_>>();
        let [old, new, other] = [1, 2, 3].map(|value| -> Arc<dyn Metrics> { Arc::new(One(value)) });
        counters.watch("a", Some(old.clone()));
        counters.watch("b", Some(other.clone()));
        counters.watch("a", Some(new.clone()));
        counters.watch("c", None);
        assert_eq!(values(), [3, 2]);
        drop(new);
        assert_eq!(values(), [3]);
    }
}
