//! What no single key can be blamed for: combinations that cannot work.

use super::{CameraSource, ClassSelect, Config, Merge};

/// A combination of keys that has to hold.
pub(super) struct Rule {
    /// Dotted paths; the first is the one to change.
    pub keys: &'static [&'static str],
    /// The problem and what is allowed, or `None` if all is well.
    pub broken: fn(&Config) -> Option<String>,
}

pub(super) static RULES: &[Rule] = &[
    Rule {
        keys: &["geometry.crop"],
        broken: |c| match c.geometry.crop {
            Some([_, _, w, h]) if w == 0 || h == 0 => Some(format!(
                "the crop is {w} by {h} pixels, allowed a width and height of at least 1"
            )),
            _ => None,
        },
    },
    Rule {
        keys: &["classes.leave", "classes.enter"],
        broken: |c| {
            let (enter, leave) = (c.classes.enter, c.classes.leave);
            (leave > enter).then(|| format!("{leave} is above classes.enter, allowed 0 to {enter}"))
        },
    },
    Rule {
        keys: &["classes.list", "classes.select"],
        broken: |c| {
            (c.classes.select == ClassSelect::List && c.classes.list.is_empty()).then(|| {
                "empty although classes.select = \"list\", allowed at least one label or index"
                    .into()
            })
        },
    },
    Rule {
        keys: &["camera.files.paths", "camera.source"],
        broken: |c| {
            (c.camera.source == CameraSource::Files && c.camera.files.paths.is_empty()).then(|| {
                "empty although camera.source = \"files\", allowed at least one file, folder or \
                 glob pattern"
                    .into()
            })
        },
    },
    Rule {
        keys: &["model.std", "model.mean"],
        broken: |c| {
            (c.model.mean.is_some() && c.model.std.is_none())
                .then(|| "missing although model.mean is set, allowed both or neither".into())
        },
    },
    Rule {
        keys: &["model.mean", "model.std"],
        broken: |c| {
            (c.model.std.is_some() && c.model.mean.is_none())
                .then(|| "missing although model.std is set, allowed both or neither".into())
        },
    },
    Rule {
        keys: &["tta.merge", "tta.budget.budget_ms"],
        broken: |c| {
            (c.tta.merge == Merge::Keras && c.tta.budget.budget_ms.is_some()).then(|| {
                "\"keras\" needs the complete set of views, which a budget may cut short, \
                 allowed \"mean\" with [tta.budget]"
                    .into()
            })
        },
    },
];
