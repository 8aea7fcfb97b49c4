//! Which classes get a map: the best few, a list, or all; with thresholds to enter and to
//! leave, so that labels do not flicker.

use crate::config::{ClassName, ClassSelect, ClassesConfig};

/// A class in the configuration that the model does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClassError {
    #[error("{key}: the model has no class \"{label}\"; it has {known}")]
    Label { key: &'static str, label: String, known: String },
    #[error("{key}: the model has no class {index}; allowed 0 to {last}")]
    Index { key: &'static str, index: usize, last: usize },
}

/// Chooses classes frame by frame.
#[derive(Clone, Debug)]
pub struct ClassPicker {
    config: ClassesConfig,
    /// The classes that may be chosen, in the order of the configuration or the model.
    allowed: Vec<usize>,
    /// Whether they come in that order, not best first.
    keeps_order: bool,
    /// In by the thresholds, per class.
    active: Vec<bool>,
}

impl ClassPicker {
    pub fn new(config: &ClassesConfig, labels: &[String]) -> Result<Self, ClassError> {
        let allowed = match config.select {
            ClassSelect::Top | ClassSelect::All => (0..labels.len()).collect(),
            ClassSelect::List => config
                .list
                .iter()
                .map(|name| index_of("classes.list", name, labels))
                .collect::<Result<_, _>>()?,
        };
        let active = vec![false; labels.len()];
        Ok(Self { config: config.clone(), allowed, keeps_order: false, active })
    }

    /// From now on `list` and `all` come in their order, for arrays that programs index.
    pub fn keep_order(&mut self) {
        self.keeps_order = self.config.select != ClassSelect::Top;
    }

    /// The classes of this frame, best first and never none: of those allowed the ones that
    /// are in by the thresholds, else the best alone. `probabilities` holds one value per class.
    pub fn pick(&mut self, probabilities: &[f32]) -> Vec<usize> {
        for (active, &p) in self.active.iter_mut().zip(probabilities) {
            *active = p >= self.config.enter || (*active && p >= self.config.leave);
        }
        // Classes that are in come before better ones that are not (yet).
        let rank = |c: usize| (!self.active[c], std::cmp::Reverse(Total(probabilities[c])));
        let mut order = self.allowed.clone();
        order.sort_by_key(|&class| rank(class));
        let most = match self.config.select {
            ClassSelect::Top => self.config.top,
            ClassSelect::List | ClassSelect::All => order.len(),
        };
        order.truncate(order.iter().filter(|&&c| self.active[c]).count().clamp(1, most.max(1)));
        if self.keeps_order {
            let mut kept = self.allowed.clone();
            kept.retain(|class| order.contains(class));
            return kept;
        }
        order
    }

    /// Forgets which classes were in: another scene, another source.
    pub fn clear(&mut self) {
        self.active.fill(false);
    }
}

/// `f32` in its total order.
#[derive(PartialEq)]
struct Total(f32);
impl Eq for Total {}
impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The index of a class as the user wrote it under `key`.
pub fn index_of(
    key: &'static str,
    name: &ClassName,
    labels: &[String],
) -> Result<usize, ClassError> {
    match name {
        ClassName::Index(index) if *index < labels.len() => Ok(*index),
        ClassName::Index(index) => {
            Err(ClassError::Index { key, index: *index, last: labels.len() - 1 })
        }
        ClassName::Label(label) => labels.iter().position(|l| l == label).ok_or_else(|| {
            let mut known: Vec<&str> = labels.iter().take(12).map(String::as_str).collect();
            if labels.len() > known.len() {
                known.push("…");
            }
            ClassError::Label { key, label: label.clone(), known: known.join(", ") }
        }),
    }
}

/// Softmax: logits to probabilities that sum to one.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = logits.iter().map(|l| (l - most).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["tench", "church", "golf ball"].map(String::from).to_vec()
    }

    fn picker(config: ClassesConfig) -> ClassPicker {
        ClassPicker::new(&config, &labels()).unwrap()
    }

    #[test]
    fn top_takes_the_best_and_never_none() {
        let mut top2 = picker(ClassesConfig { top: 2, ..Default::default() });
        assert_eq!(top2.pick(&[0.1, 0.2, 0.7]), [2, 1]);
        let mut strict = picker(ClassesConfig { enter: 0.9, leave: 0.5, ..Default::default() });
        assert_eq!(strict.pick(&[0.4, 0.35, 0.25]), [0]);
    }

    #[test]
    fn a_class_stays_until_it_falls_below_leave() {
        let config = ClassesConfig { enter: 0.6, leave: 0.3, ..Default::default() };
        let mut p = picker(config);
        assert_eq!(p.pick(&[0.7, 0.2, 0.1]), [0]);
        // Better, but not yet in.
        assert_eq!(p.pick(&[0.4, 0.55, 0.05]), [0]);
        assert_eq!(p.pick(&[0.35, 0.62, 0.03]), [1]);
        assert_eq!(p.pick(&[0.61, 0.31, 0.08]), [0]);
    }

    #[test]
    fn lists_are_best_first_and_hold_what_is_in() {
        let list = vec![ClassName::Index(0), ClassName::Index(2)];
        let config = ClassesConfig { select: ClassSelect::List, list, ..Default::default() };
        let mut every = picker(config.clone());
        assert_eq!(every.pick(&[0.2, 0.5, 0.3]), [2, 0]);
        every.keep_order();
        assert_eq!(every.pick(&[0.2, 0.5, 0.3]), [0, 2]);
        let mut some = picker(ClassesConfig { enter: 0.4, leave: 0.25, ..config });
        for (probabilities, expected) in [
            ([0.1, 0.7, 0.2], vec![2]), // neither is in: the better one
            ([0.45, 0.1, 0.45], vec![0, 2]),
            ([0.3, 0.6, 0.1], vec![0]),
            ([0.28, 0.02, 0.7], vec![2, 0]),
        ] {
            assert_eq!(some.pick(&probabilities), expected, "{probabilities:?}");
        }
        some.clear();
        assert_eq!(some.pick(&[0.3, 0.6, 0.1]), [0]);
        let mut all = picker(ClassesConfig { select: ClassSelect::All, ..Default::default() });
        assert_eq!(all.pick(&[0.2, 0.5, 0.3]), [1, 2, 0]);
        all.keep_order();
        assert_eq!(all.pick(&[0.2, 0.5, 0.3]), [0, 1, 2]);
    }

    #[test]
    fn lists_take_labels_and_indices_and_name_what_is_unknown() {
        let list = |list: Vec<ClassName>| {
            let config = ClassesConfig { select: ClassSelect::List, list, ..Default::default() };
            ClassPicker::new(&config, &labels()).map(|mut p| p.pick(&[0.2, 0.3, 0.5]))
        };
        let church = ClassName::Label("church".into());
        assert_eq!(list(vec![ClassName::Index(2), church]), Ok(vec![2, 1]));
        let error = list(vec![ClassName::Label("cat".into())]).unwrap_err().to_string();
        assert_eq!(
            error,
            "classes.list: the model has no class \"cat\"; it has tench, church, golf ball"
        );
        let error = list(vec![ClassName::Index(3)]).unwrap_err().to_string();
        assert_eq!(error, "classes.list: the model has no class 3; allowed 0 to 2");
    }
}
