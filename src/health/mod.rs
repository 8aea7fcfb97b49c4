//! Is the daemon well? Counters, heartbeats of the stages, the service manager's watchdog,
//! temperature. Knows nothing of frames; time comes in from outside.

mod counters;
mod heartbeat;
pub mod memory;
mod notify;
pub mod thermal;
mod watchdog;

pub use counters::{Counter, Counters, Metric, Metrics, SinkCounters};
pub use heartbeat::{Heartbeat, Silence, Stages};
pub use notify::Notifier;
pub use watchdog::{Verdict, Watchdog};

/// What the stages share: cheap to update from any thread, read by sinks and metrics.
#[derive(Debug)]
pub struct Health {
    pub counters: Counters,
    pub stages: Stages,
}

impl Health {
    /// All counters zero, no stage registered. `now` is the origin of the heartbeats.
    pub fn new(now: std::time::Instant) -> Self {
        Self { counters: Counters::default(), stages: Stages::new(now) }
    }
}
