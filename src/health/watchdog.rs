//! The service manager's watchdog, fed only while every stage moves.

use super::heartbeat::{Silence, Stages};
use std::time::{Duration, Instant};

/// Decides when to tell the service manager that all is well: at half of its interval, as
/// sd_watchdog_enabled(3) recommends, and only while no stage is silent. It neither sleeps
/// nor sends: the pipeline's thread does.
#[derive(Debug)]
pub struct Watchdog {
    every: Duration,
    due: Instant,
    silent: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing; look again at [`Watchdog::due`].
    Wait,
    /// Tell the service manager that all is well.
    Ping,
    /// No ping: these stages hang. The first time it is worth an error in the log, which
    /// will stand right before the service manager's own.
    Hang { first: bool, stages: Vec<Silence> },
}

impl Watchdog {
    /// `timeout` is after how long without a ping the service manager acts; see
    /// [`super::Notifier::watchdog_timeout`]. The first ping is due at once.
    pub fn new(timeout: Duration, now: Instant) -> Self {
        // A timeout of 0 would spin.
        Self { every: (timeout / 2).max(Duration::from_millis(1)), due: now, silent: false }
    }

    /// When to look again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Looks at the stages, if it is time to.
    pub fn check(&mut self, stages: &Stages, now: Instant) -> Verdict {
        if now < self.due {
            return Verdict::Wait;
        }
        self.due = now + self.every;
        let silent = stages.silent(now);
        let first = !self.silent;
        self.silent = !silent.is_empty();
        if silent.is_empty() { Verdict::Ping } else { Verdict::Hang { first, stages: silent } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pings_while_every_stage_beats_and_stops_for_each_that_hangs() {
        let start = Instant::now();
        for hanging in ["camera", "infer", "socket"] {
            let stages = Stages::new(start);
            let beats = ["camera", "infer", "socket"]
                .map(|name| (name, stages.register(name, 3 * SECOND, start)));
            let mut watchdog = Watchdog::new(2 * SECOND, start);
            let mut verdicts = Vec::new();
            for second in 0..10 {
                let now = start + second * SECOND;
                for (name, beat) in &beats {
                    if *name != hanging || second < 4 {
                        beat.beat(now);
                    }
                }
                verdicts.push(watchdog.check(&stages, now));
            }
            // Last beat at 3 s, allowed 3 s: at 6 s it is just not late, at 7 s it is.
            assert_eq!(verdicts[..7], vec![Verdict::Ping; 7], "{hanging}");
            for (second, first) in [(7, true), (8, false), (9, false)] {
                let silent = (second - 3) * SECOND;
                let silence = Silence { stage: hanging, silent, allowed: 3 * SECOND };
                let expected = Verdict::Hang { first, stages: vec![silence] };
                assert_eq!(verdicts[second as usize], expected, "{hanging} at {second}");
            }
        }
    }

    #[test]
    fn pings_at_half_the_timeout_and_not_before() {
        let start = Instant::now();
        let stages = Stages::new(start);
        let mut watchdog = Watchdog::new(10 * SECOND, start);
        let pings: Vec<u32> = (0..=20)
            .filter(|s| watchdog.check(&stages, start + *s * SECOND) == Verdict::Ping)
            .collect();
        assert_eq!(pings, [0, 5, 10, 15, 20]);
        assert_eq!(watchdog.due(), start + 25 * SECOND);
    }

    #[test]
    fn a_dead_thread_is_missed_and_a_retired_stage_is_not() {
        let start = Instant::now();
        let stages = Stages::new(start);
        let late = start + 2 * SECOND;
        stages.register("finished", SECOND, start).retire();
        assert_eq!(stages.silent(late), []);
        drop(stages.register("died", SECOND, start));
        let silent = stages.silent(late);
        assert_eq!(silent.len(), 1);
        assert_eq!(silent[0].to_string(), "died has not moved for 2.0 s, allowed 1.0 s");
    }

    #[test]
    fn a_hang_that_ends_pings_again_and_is_news_the_next_time() {
        let start = Instant::now();
        let stages = Stages::new(start);
        let beat = stages.register("infer", SECOND, start);
        let mut watchdog = Watchdog::new(2 * SECOND, start);
        let mut at = |second: u32, moves: bool| {
            let now = start + second * SECOND;
            if moves {
                beat.beat(now);
            }
            match watchdog.check(&stages, now) {
                Verdict::Hang { first, .. } => {
                    if first {
                        "news"
                    } else {
                        "hang"
                    }
                }
                Verdict::Ping => "ping",
                Verdict::Wait => "wait",
            }
        };
        let seen = [at(1, true), at(3, false), at(4, false), at(5, true), at(7, false)];
        assert_eq!(seen, ["ping", "news", "hang", "ping", "news"]);
    }
}
