//! What no single key can be blamed for: combinations that cannot work.

use super::polygon;
use super::schema::any_of;
use super::{CameraSource, ClassSelect, Config, FileKind, Merge, Method};

/// A combination of keys that has to hold.
pub(super) struct Rule {
    /// Dotted paths; the first is the one to change.
    pub keys: &'static [&'static str],
    /// The problem and what is allowed, or `None` if all is well.
    pub broken: fn(&Config) -> Option<String>,
}

/// The same for each entry of a list of tables.
pub(super) struct EachRule {
    pub table: &'static str,
    /// The one to change.
    pub key: &'static str,
    pub count: fn(&Config) -> usize,
    /// As [`Rule::broken`], of the entry with this number.
    pub broken: fn(&Config, usize) -> Option<String>,
}

pub(super) static EACH_RULES: &[EachRule] = &[
    EachRule {
        table: "zones",
        key: "name",
        count: |c| c.zones.len(),
        broken: |c, i| twice(c.zones[..=i].iter().map(|z| &z.name)),
    },
    EachRule {
        table: "zones",
        key: "polygon",
        count: |c| c.zones.len(),
        broken: |c, i| {
            let polygon = &c.zones[i].polygon;
            let (a, b) = polygon::crossing(polygon)?;
            Some(match a == b {
                true => format!("side {} has no length, allowed distinct neighbours", a + 1),
                false => format!(
                    "sides {} and {} cross or touch, allowed a polygon that does not cross itself",
                    a + 1,
                    b + 1
                ),
            })
        },
    },
    EachRule {
        table: "rules",
        key: "name",
        count: |c| c.rules.len(),
        broken: |c, i| twice(c.rules[..=i].iter().map(|r| &r.name)),
    },
    EachRule {
        table: "rules",
        key: "zone",
        count: |c| c.rules.len(),
        broken: |c, i| {
            let zone = &c.rules[i].zone;
            let names: Vec<_> = c.zones.iter().map(|z| format!("{:?}", z.name)).collect();
            let allowed = if names.is_empty() { "one of [[zones]]".into() } else { any_of(&names) };
            (!c.zones.iter().any(|z| z.name == *zone))
                .then(|| format!("there is no zone {zone:?}, allowed {allowed}"))
        },
    },
    EachRule {
        table: "rules",
        key: "below",
        count: |c| c.rules.len(),
        broken: |c, i| {
            let (above, below) = (c.rules[i].above, c.rules[i].below);
            (below > above).then(|| format!("{below} is above rules.above, allowed 0 to {above}"))
        },
    },
];

/// Whether the last of these names stands among those before it.
fn twice<'a>(mut names: impl DoubleEndedIterator<Item = &'a String>) -> Option<String> {
    let last = names.next_back()?;
    names.any(|name| name == last).then(|| format!("{last:?} stands twice, allowed once"))
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
    Rule {
        keys: &["sink.files.write", "mean.path"],
        broken: |c| {
            let files = c.sink.files.as_ref()?;
            let mean = files.write.iter().find_map(|kind| match kind {
                FileKind::MeanPng => Some("mean-png"),
                FileKind::MeanNpy => Some("mean-npy"),
                _ => None,
            })?;
            c.mean.is_none().then(|| format!("{mean:?} shows what [mean] keeps, allowed with it"))
        },
    },
    Rule {
        keys: &["sink.mqtt.username", "sink.mqtt.password_file"],
        broken: |c| {
            let mqtt = c.sink.mqtt.as_ref()?;
            (mqtt.password_file.is_some() && mqtt.username.is_none()).then(|| {
                "missing although sink.mqtt.password_file is set, allowed both or username alone"
                    .into()
            })
        },
    },
    Rule {
        keys: &["sink.mqtt.client_key_file", "sink.mqtt.client_cert_file"],
        broken: |c| {
            let mqtt = c.sink.mqtt.as_ref()?;
            (mqtt.client_cert_file.is_some() != mqtt.client_key_file.is_some()).then(|| {
                "missing although the other is set, allowed client_cert_file and client_key_file \
                 or neither"
                    .into()
            })
        },
    },
    Rule {
        keys: &["sink.mqtt.tls", "sink.mqtt.ca_file", "sink.mqtt.client_cert_file"],
        broken: |c| {
            let mqtt = c.sink.mqtt.as_ref()?;
            let files = mqtt.ca_file.is_some() || mqtt.client_cert_file.is_some();
            (files && !mqtt.tls)
                .then(|| "false although certificates are named, allowed true with them".into())
        },
    },
];
