//! Rules over zones: when a class's mass has lain on the wrong side of a zone for too long,
//! an event. No clock: time is that of the heatmaps.
//!
//! A rule is quiet, waiting or raised. With `s` the share of the mass on the rule's side:
//!
//! ```text
//!            s ≥ above              s ≥ above for for_s: Raised
//!   quiet ─────────────► waiting ─────────────────────────────► raised
//!     ▲ ◄─────────────────┘ s < above                             │
//!     └───────────────────────────────────────────────────────────┘
//!                           s < below: Cleared
//! ```
//!
//! A heatmap without a map of the rule's class, or one without positive mass, has `s = 0`.

use crate::classes::{ClassError, index_of};
use crate::config::{RuleConfig, Side};
use crate::heatmap::Heatmap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A rule was raised or cleared.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub change: Change,
    pub rule: Arc<str>,
    pub zone: Arc<str>,
    pub side: Side,
    /// Index and label; absent where the heatmap has no map of the rule's class.
    pub class: Option<(usize, String)>,
    /// Of the class's positive mass on that side, 0–1.
    pub share: Option<f32>,
    /// Sequence number of the frame that brought it about.
    pub sequence: u64,
    pub captured_wall: SystemTime,
    pub model_sha256: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Raised,
    Cleared,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Cleared => "cleared",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} {}", self.rule, self.change.as_str())?;
        let (Some((_, label)), Some(share)) = (&self.class, self.share) else { return Ok(()) };
        let side = self.side.as_str();
        write!(f, ": {:.0} % of the mass of {label} {side} {}", share * 100.0, self.zone)
    }
}

/// The configured rules, each with its state.
#[derive(Debug)]
pub struct Rules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    zone: Arc<str>,
    side: Side,
    /// `None`: the best of each heatmap.
    class: Option<usize>,
    above: f32,
    below: f32,
    after: Duration,
    state: State,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Quiet,
    Waiting {
        since: Instant,
    },
    /// The event, to be cleared.
    Raised(Event),
}

impl Rules {
    /// `labels` are all the model's, in the order of their indices.
    pub fn new(config: &[RuleConfig], labels: &[String]) -> Result<Self, ClassError> {
        let rule = |r: &RuleConfig| {
            let class = r.class.as_ref().map(|name| index_of("rules.class", name, labels));
            Ok(Rule {
                name: r.name.as_str().into(),
                zone: r.zone.as_str().into(),
                side: r.side,
                class: class.transpose()?,
                above: r.above as f32,
                below: r.below as f32,
                after: Duration::try_from_secs_f64(r.for_s).unwrap_or(Duration::MAX),
                state: State::Quiet,
            })
        };
        config.iter().map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// What a heatmap, with its zones' shares in it, changes.
    pub fn judge(&mut self, heatmap: &Heatmap) -> Vec<Event> {
        self.0.iter_mut().filter_map(|rule| rule.judge(heatmap)).collect()
    }

    /// Nobody knows what was to be seen meanwhile: what waits begins anew.
    pub fn interrupted(&mut self) {
        for rule in &mut self.0 {
            if matches!(rule.state, State::Waiting { .. }) {
                rule.state = State::Quiet;
            }
        }
    }

    /// No more heatmaps come: what is raised is cleared, so that nobody waits for it.
    pub fn end(&mut self) -> Vec<Event> {
        let end = |rule: &mut Rule| match std::mem::replace(&mut rule.state, State::Quiet) {
            State::Raised(event) => Some(Event { change: Change::Cleared, share: None, ..event }),
            _ => None,
        };
        self.0.iter_mut().filter_map(end).collect()
    }
}

impl Rule {
    fn judge(&mut self, heatmap: &Heatmap) -> Option<Event> {
        let class = match self.class {
            None => Some(0),
            Some(index) => heatmap.classes.iter().position(|c| c.index == index),
        };
        let share = class.and_then(|c| self.share(heatmap, c));
        let event = |change| Event {
            change,
            rule: self.name.clone(),
            zone: self.zone.clone(),
            side: self.side,
            class: class.and_then(|c| heatmap.classes.get(c)).map(|c| (c.index, c.label.clone())),
            share,
            sequence: heatmap.sequence,
            captured_wall: heatmap.captured_wall,
            model_sha256: heatmap.model_sha256.clone(),
        };
        let (now, above) = (heatmap.captured_at, share.unwrap_or(0.0) >= self.above);
        let next = match &self.state {
            State::Raised(_) if share.unwrap_or(0.0) < self.below => {
                let event = event(Change::Cleared);
                self.state = State::Quiet;
                return Some(event);
            }
            State::Raised(_) => return None,
            _ if !above => State::Quiet,
            State::Quiet if self.after.is_zero() => State::Raised(event(Change::Raised)),
            State::Quiet => State::Waiting { since: now },
            State::Waiting { since } if now.saturating_duration_since(*since) >= self.after => {
                State::Raised(event(Change::Raised))
            }
            State::Waiting { .. } => return None,
        };
        self.state = next;
        match &self.state {
            State::Raised(event) => Some(event.clone()),
            _ => None,
        }
    }

    fn share(&self, heatmap: &Heatmap, class: usize) -> Option<f32> {
        let zone = heatmap.zones.iter().find(|z| z.name == self.zone)?;
        let inside = (*zone.shares.get(class)?)?;
        Some(match self.side {
            Side::Inside => inside,
            Side::Outside => 1.0 - inside,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClassName;
    use crate::heatmap::ClassScore;
    use crate::heatmap::zone::ZoneShare;

    fn labels() -> Vec<String> {
        vec!["church".into(), "golf ball".into()]
    }

    /// A heatmap `ms` after `start` whose class `index` has the share `inside` of the gate.
    fn heatmap(start: Instant, ms: u64, index: usize, inside: Option<f32>) -> Heatmap {
        let class =
            ClassScore { index, label: labels()[index].clone(), logit: 1.0, probability: 0.9 };
        Heatmap {
            classes: vec![class],
            zones: vec![ZoneShare { name: "gate".into(), shares: vec![inside] }],
            sequence: ms,
            ..Heatmap::of_one_cell(start + Duration::from_millis(ms))
        }
    }

    /// Feeds shares inside the gate at times in ms; what came out, as `ms change`.
    fn check(
        name: &str,
        config: &RuleConfig,
        heatmaps: &[(u64, usize, Option<f32>)],
        expected: &[&str],
    ) {
        let mut rules = Rules::new(std::slice::from_ref(config), &labels()).unwrap();
        let start = Instant::now();
        let mut seen = Vec::new();
        for &(ms, index, inside) in heatmaps {
            for event in rules.judge(&heatmap(start, ms, index, inside)) {
                assert_eq!((&*event.rule, &*event.zone), ("looks-away", "gate"));
                seen.push(format!("{ms} {:?}", event.change));
            }
        }
        assert_eq!(seen, expected, "{name}");
    }

    #[test]
    fn rules_are_raised_and_cleared() {
        // Outside above 0.6 for 1 s, until below 0.5.
        let outside = RuleConfig { for_s: 1.0, ..RuleConfig::default() };
        let (far, near, between) = (Some(0.2), Some(0.8), Some(0.45));
        check(
            "long enough",
            &outside,
            &[
                (0, 0, far),
                (500, 0, far),
                (999, 0, far),
                (1000, 0, far),
                (1500, 0, far),
                (2000, 0, near),
            ],
            &["1000 Raised", "2000 Cleared"],
        );
        check(
            "not on end",
            &outside,
            &[(0, 0, far), (500, 0, near), (600, 0, far), (1500, 0, far)],
            &[],
        );
        check(
            "between the thresholds it stays raised, and does not begin to wait",
            &outside,
            &[
                (0, 0, far),
                (1000, 0, far),
                (1100, 0, between),
                (1200, 0, near),
                (1300, 0, between),
                (3000, 0, between),
            ],
            &["1000 Raised", "1200 Cleared"],
        );
        check(
            "no mass clears",
            &outside,
            &[(0, 0, far), (1000, 0, far), (1100, 0, None)],
            &["1000 Raised", "1100 Cleared"],
        );
        let at_once = RuleConfig { for_s: 0.0, side: Side::Inside, ..outside.clone() };
        check("at once, inside", &at_once, &[(0, 0, far), (10, 0, near)], &["10 Raised"]);
        let ball = RuleConfig {
            class: Some(ClassName::Label("golf ball".into())),
            for_s: 0.0,
            ..outside.clone()
        };
        check(
            "only its own class",
            &ball,
            &[(0, 0, far), (10, 1, far), (20, 0, far)],
            &["10 Raised", "20 Cleared"],
        );
    }

    #[test]
    fn an_interruption_ends_the_wait_and_an_end_clears() {
        let config = RuleConfig { for_s: 1.0, ..RuleConfig::default() };
        let mut rules = Rules::new(&[config], &labels()).unwrap();
        let start = Instant::now();
        let judge = |rules: &mut Rules, ms| rules.judge(&heatmap(start, ms, 0, Some(0.0)));
        assert_eq!(judge(&mut rules, 0), []);
        rules.interrupted();
        assert_eq!(judge(&mut rules, 5000), []);
        let raised = judge(&mut rules, 6000);
        assert_eq!((raised[0].change, raised[0].share), (Change::Raised, Some(1.0)));
        rules.interrupted();
        let cleared = rules.end();
        assert_eq!((cleared[0].change, cleared[0].share), (Change::Cleared, None));
        assert_eq!(rules.end(), []);
    }

    #[test]
    fn unknown_classes_are_told() {
        let unknown = RuleConfig { class: Some(ClassName::Index(2)), ..RuleConfig::default() };
        let error = Rules::new(&[unknown], &labels()).unwrap_err().to_string();
        assert_eq!(error, "rules.class: the model has no class 2; allowed 0 to 1");
    }
}
