//! What no single key can be blamed for: combinations that cannot work.

use super::schema::any_of;
use super::{CameraSource, ClassSelect, Config, Merge, Method};

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
        keys: &["tta.merge"],
        broken: |c| {
            let key = c.tta.limited_by().filter(|_| c.tta.merge == Merge::Keras)?;
            Some(format!(
                "\"keras\" needs the complete set of views, which {key} may cut short, allowed \
                 \"mean\" with it"
            ))
        },
    },
    Rule {
        keys: &["heatmap.method"],
        broken: |c| {
            let key = c.tta.limited_by().filter(|_| c.heatmap.method == Method::ScoreCam)?;
            Some(format!(
                "\"scorecam\" runs the model many times for each view, which {key} cannot limit, \
                 allowed any other with it"
            ))
        },
    },
    Rule {
        keys: &["tta.rolling.enabled", "tta.scales"],
        broken: |c| {
            (c.tta.rolling.enabled && !c.tta.scales.contains(&1.0)).then(|| {
                "true although the view that every frame gets, scale 1, is not among tta.scales, \
                 allowed with 1.0 among them"
                    .into()
            })
        },
    },
    Rule {
        keys: &["tta.budget.order", "tta.scales", "tta.hflip"],
        broken: |c| {
            let flips: &[&str] = if c.tta.hflip { &["", "f"] } else { &[""] };
            let scales = c.tta.scales.iter();
            let views: Vec<_> =
                scales.flat_map(|s| flips.iter().map(move |f| format!("{s}{f}"))).collect();
            let stranger = c.tta.budget.order.iter().find(|view| !views.contains(view))?;
            Some(format!("{stranger:?} is no view here, allowed {}", any_of(&views)))
        },
    },
    Rule {
        keys: &["tta.gate.unsure_entropy", "tta.gate.usual_percent", "tta.gate.sure_margin"],
        broken: |c| {
            let gate = &c.tta.gate;
            let spared = gate.usual_percent < 100.0 || gate.sure_margin.is_some();
            (gate.unsure_entropy.is_some() && !spared).then(|| {
                "changes nothing where every frame gets all of the budget, allowed with \
                 usual_percent below 100 or with sure_margin"
                    .into()
            })
        },
    },
    Rule {
        keys: &["tta.thermal.cool_celsius", "tta.thermal.hot_celsius"],
        broken: |c| {
            let (hot, cool) = (c.tta.thermal.hot_celsius, c.tta.thermal.cool_celsius);
            (cool >= hot).then(|| {
                format!("{cool} is not below tta.thermal.hot_celsius, allowed less than {hot}")
            })
        },
    },
];
