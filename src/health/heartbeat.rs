//! Heartbeats: every stage's loop says that it goes round, within a time of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The stages that have to beat.
#[derive(Debug)]
pub struct Stages {
    origin: Instant,
    stages: Mutex<Vec<Arc<Stage>>>,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    allowed: Duration,
    origin: Instant,
    /// Last beat, in µs since `origin`.
    last_us: AtomicU64,
    retired: AtomicBool,
}

/// A stage's own end. Dropping it is not an end in good order: a stage whose thread died
/// falls silent and is missed. See [`Heartbeat::retire`].
#[derive(Debug)]
pub struct Heartbeat(Arc<Stage>);

/// A stage that has not beaten within its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    pub stage: &'static str,
    /// Since the last beat.
    pub silent: Duration,
    pub allowed: Duration,
}

impl std::fmt::Display for Silence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (silent, allowed) = (self.silent.as_secs_f64(), self.allowed.as_secs_f64());
        write!(f, "{} has not moved for {silent:.1} s, allowed {allowed:.1} s", self.stage)
    }
}

impl Stages {
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, stages: Mutex::new(Vec::new()) }
    }

    /// Adds a stage whose loop goes round at least once in `allowed`: longer than its
    /// longest wait and its longest work together. It counts as having just beaten.
    pub fn register(&self, name: &'static str, allowed: Duration, now: Instant) -> Heartbeat {
        let stage = Arc::new(Stage {
            name,
            allowed,
            origin: self.origin,
            last_us: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        });
        let heartbeat = Heartbeat(Arc::clone(&stage));
        heartbeat.beat(now);
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.retain(|s| !s.retired.load(Relaxed));
        stages.push(stage);
        heartbeat
    }

    /// The stages that have been silent for too long; none: all is well.
    pub fn silent(&self, now: Instant) -> Vec<Silence> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        stages.iter().filter_map(|stage| stage.silence(now)).collect()
    }
}

impl Stage {
    fn silence(&self, now: Instant) -> Option<Silence> {
        let last = self.origin + Duration::from_micros(self.last_us.load(Relaxed));
        let silent = now.saturating_duration_since(last);
        (silent > self.allowed && !self.retired.load(Relaxed)).then_some(Silence {
            stage: self.name,
            silent,
            allowed: self.allowed,
        })
    }
}

impl Heartbeat {
    /// The loop has gone round. Costs one store.
    pub fn beat(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.origin);
        self.0.last_us.store(u64::try_from(since.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The stage has ended as it should and is not expected to beat again.
    pub fn retire(self) {
        self.0.retired.store(true, Relaxed);
    }
}
