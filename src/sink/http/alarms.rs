//! What rules said: which are raised, and the newest events for those who listen.

use super::json;
use crate::rules::{Change, Event};
use crate::sink::wire::EventHeader;
use hyper::body::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Events kept for listeners that are behind; as many as wait for a sink.
const MAX_KEPT: usize = 64;

/// Cloned on change: listeners hold what they were given.
#[derive(Clone, Default)]
pub(super) struct Alarms {
    /// By rule: the events of those that are raised.
    raised: BTreeMap<String, EventHeader>,
    /// How often each rule was raised; those that never were, too.
    raises: BTreeMap<String, u64>,
    /// The newest events as JSON.
    newest: VecDeque<Bytes>,
    /// How many there have been.
    count: u64,
}

impl Alarms {
    /// Of rules with these names, none of them raised.
    pub fn new(rules: &[String]) -> Self {
        let raises = rules.iter().map(|rule| (rule.clone(), 0)).collect();
        Self { raises, ..Self::default() }
    }

    pub fn add(&mut self, event: &Event) {
        let header = EventHeader::from(event);
        if self.newest.len() >= MAX_KEPT {
            self.newest.pop_front();
        }
        self.newest.push_back(json::rule(&header));
        self.count += 1;
        match event.change {
            Change::Raised => {
                *self.raises.entry(header.rule.clone()).or_default() += 1;
                self.raised.insert(header.rule.clone(), header)
            }
            Change::Cleared => self.raised.remove(&header.rule),
        };
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The events of the rules that are raised, in the order of the rules' names.
    pub fn raised(&self) -> impl Iterator<Item = &EventHeader> {
        self.raised.values()
    }

    /// Every rule in the order of names: whether it is raised, and how often it was.
    pub fn rules(&self) -> impl Iterator<Item = (&str, bool, u64)> {
        let is_raised = |rule: &String| self.raised.contains_key(rule);
        self.raises.iter().map(move |(rule, &raises)| (&**rule, is_raised(rule), raises))
    }

    /// The events after the first `seen`, as far as they are kept.
    pub fn since(&self, seen: u64) -> impl Iterator<Item = &Bytes> {
        let unseen = (self.count - seen.min(self.count)) as usize;
        self.newest.iter().skip(self.newest.len().saturating_sub(unseen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Side;
    use std::time::UNIX_EPOCH;

    fn event(rule: &str, sequence: u64, change: Change) -> Event {
        Event {
            change,
            rule: rule.into(),
            zone: "gate".into(),
            side: Side::Outside,
            class: None,
            share: None,
            sequence,
            captured_wall: UNIX_EPOCH,
            model_sha256: "ab".into(),
        }
    }

    #[test]
    fn what_is_raised_and_what_is_new() {
        let mut alarms = Alarms::new(&["quiet".into(), "a".into()]);
        let raised = |alarms: &Alarms| {
            alarms.raised().map(|e| format!("{} {}", e.rule, e.sequence)).collect::<Vec<_>>()
        };
        alarms.add(&event("b", 1, Change::Raised));
        alarms.add(&event("a", 2, Change::Raised));
        assert_eq!(raised(&alarms), ["a 2", "b 1"]);
        alarms.add(&event("b", 3, Change::Cleared));
        assert_eq!(raised(&alarms), ["a 2"]);
        let rules: Vec<_> = alarms.rules().collect();
        assert_eq!(rules, [("a", true, 1), ("b", false, 1), ("quiet", false, 0)]);
        for (seen, unseen) in [(0, 3), (2, 1), (3, 0), (9, 0)] {
            assert_eq!(alarms.since(seen).count(), unseen, "after {seen}");
        }
        for sequence in 0..100 {
            alarms.add(&event("c", sequence, Change::Raised));
        }
        assert_eq!((alarms.since(3).count(), alarms.since(100).count()), (MAX_KEPT, 3));
    }
}
