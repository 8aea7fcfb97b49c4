//! What is told as JSON. The heatmap's part is that of the socket's messages
//! (docs/protocol.md), so that a client knows it already.

use super::board::{Board, Newest, Now};
use crate::config::ZoneConfig;
use crate::health::thermal::{self, Zone};
use crate::sink::CameraState;
use crate::sink::wire::{CameraHeader, EventHeader, HeatmapHeader, ModelEntry};
use hyper::body::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

/// Linux's view of its devices.
pub(super) const SYSFS: &str = "/sys";

/// A `heatmap` event.
#[derive(Serialize)]
struct Event {
    #[serde(flatten)]
    heatmap: HeatmapHeader,
    /// From the camera to here.
    latency_ms: f64,
    /// The hottest sensor of the board; null where there is none.
    temperature_celsius: Option<f64>,
}

/// `/state`.
#[derive(Serialize)]
struct State<'a> {
    server: &'static str,
    uptime_s: f64,
    healthy: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    ailment: Option<String>,
    camera: CameraHeader,
    model: &'a ModelEntry,
    classes: &'a [String],
    /// As configured: polygons in fractions of the upright picture.
    zones: &'a [ZoneConfig],
    /// The events of the rules that are raised now.
    raised: Vec<&'a EventHeader>,
    /// By rule: how often it was raised since the daemon took up this configuration.
    raises: BTreeMap<&'a str, u64>,
    heatmap: Option<Event>,
    heatmap_age_ms: Option<f64>,
    temperatures: Vec<Zone>,
    viewers: Watching,
    counters: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Watching {
    overlay: usize,
    raw: usize,
    events: usize,
}

fn bytes(value: &impl Serialize) -> Bytes {
    // Plain data: numbers, strings, lists.
    serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec()).into()
}

fn millis(duration: std::time::Duration) -> f64 {
    // To the microsecond.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn describe(newest: &Newest) -> Event {
    Event {
        heatmap: HeatmapHeader::from(&*newest.item.heatmap),
        latency_ms: millis(newest.latency),
        temperature_celsius: thermal::temperature(Path::new(SYSFS), "hottest"),
    }
}

pub(super) fn event(newest: &Newest) -> Bytes {
    bytes(&describe(newest))
}

pub(super) fn camera(state: &CameraState) -> Bytes {
    bytes(&CameraHeader::from(state))
}

pub(super) fn rule(event: &EventHeader) -> Bytes {
    bytes(event)
}

pub(super) fn state(board: &Board) -> Bytes {
    let Now { newest, camera, alarms } = board.now.borrow().clone();
    let ailment = board.ailment_in_full();
    bytes(&State {
        server: concat!("salientd ", env!("CARGO_PKG_VERSION")),
        uptime_s: board.about.started.elapsed().as_secs_f64(),
        healthy: ailment.is_none(),
        ailment,
        camera: CameraHeader::from(&camera),
        model: &board.about.model,
        classes: &board.about.classes,
        zones: &board.about.zones,
        raised: alarms.raised().collect(),
        raises: alarms.rules().map(|(rule, _, raises)| (rule, raises)).collect(),
        heatmap: newest.as_deref().map(describe),
        heatmap_age_ms: newest.map(|newest| millis(newest.came.elapsed())),
        temperatures: thermal::zones(Path::new(SYSFS)),
        viewers: Watching {
            overlay: board.overlay.watching(),
            raw: board.raw.watching(),
            events: board.listeners.load(Relaxed),
        },
        counters: board.about.health.counters.snapshot().into_iter().collect(),
    })
}
