//! Prometheus' text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>): base units, HELP and
//! TYPE of everything.

use super::alarms::Alarms;
use super::board::{Board, Now};
use super::json::SYSFS;
use crate::health::{Counter, Metric, memory, thermal};
use crate::heatmap::Heatmap;
use std::fmt::{Display, Write};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Upper bounds in seconds: from a desktop's few milliseconds to a small board's seconds.
const BOUNDS_S: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What goes on at this sink.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections open now.
    pub(super) connections: AtomicUsize,
    /// Connections turned away because there were enough.
    pub(super) refused: Counter,
    /// Requests with a wrong token.
    pub(super) denied: Counter,
    pub(super) requests: Counter,
    /// Pictures of streams that went out ...
    pub(super) frames_sent: Counter,
    /// ... and those that a viewer was too slow for.
    pub(super) frames_dropped: Counter,
    pub(super) events_sent: Counter,
    latency: Histogram,
    inference: Histogram,
    views: Counter,
}

/// Durations counted by size.
#[derive(Debug, Default)]
struct Histogram {
    /// The last one: above all bounds.
    buckets: [Counter; BOUNDS_S.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|&bound| seconds <= bound).unwrap_or(BOUNDS_S.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(duration.as_micros() as u64);
    }
}

impl Stats {
    /// A heatmap came, `latency` after its frame.
    pub(super) fn heatmap(&self, latency: Duration, heatmap: &Heatmap) {
        self.latency.add(latency);
        // A heatmap published again cost nothing and says nothing about the board.
        if heatmap.spent_ms > 0.0 {
            self.inference.add(Duration::from_secs_f64(heatmap.spent_ms.clamp(0.0, 1e9) / 1e3));
            self.views.add(heatmap.views.iter().filter(|view| view.age_ms == 0.0).count() as u64);
        }
    }
}

/// What the daemon's counters mean. One that is not here is told by its name.
const COUNTERS: &[(&str, &str)] = &[
    ("frames", "Frames that the camera yielded."),
    ("frames_skipped", "Older frames passed over for a newer one."),
    ("frames_lost", "Gaps in the camera's sequence numbers."),
    ("frames_bad", "Frames flagged by the driver, too short, or not decodable."),
    ("camera_stalls", "Waits for a frame that ran into the timeout."),
    ("camera_reopens", "Times that the camera was opened again."),
    ("heatmaps", "Heatmaps published."),
    ("inferences_failed", "Frames on which the model failed."),
    ("reloads", "Configurations taken up while running."),
    ("reloads_refused", "Configurations refused, the old one staying."),
];

const SINK_COUNTERS: &[(&str, &str)] = &[
    ("published", "Heatmaps that the sink took."),
    ("dropped", "Heatmaps replaced by a newer one before the sink got to them."),
    ("failed", "Heatmaps that the sink could not take."),
];

/// The text in the making.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// The two lines before a metric's values.
    fn open(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP salientd_{name} {help}\n# TYPE salientd_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.0, "salientd_{name}");
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.open(name, kind, help);
        self.value(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.open(name, "histogram", help);
        let (bucket, mut count) = (format!("{name}_bucket"), 0);
        for (i, counter) in histogram.buckets.iter().enumerate() {
            count += counter.get();
            let bound = BOUNDS_S.get(i).map_or("+Inf".into(), f64::to_string);
            self.value(&bucket, &[("le", &bound)], count);
        }
        self.value(&format!("{name}_sum"), &[], histogram.sum_us.get() as f64 / 1e6);
        self.value(&format!("{name}_count"), &[], count);
    }
}

/// `/metrics`.
pub(super) fn text(board: &Board) -> String {
    let mut out = Exposition::default();
    let model = &board.about.model;
    out.open("build_info", "gauge", "Always 1; the version and the model are its labels.");
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("model", &model.name),
        ("model_sha256", &model.sha256),
    ];
    out.value("build_info", &labels, 1);
    now(&mut out, board);
    rules(&mut out, &board.now.borrow().alarms);
    counters(&mut out, &board.about.health.counters.snapshot());
    for Metric { name, kind, help, value } in board.about.health.counters.of_sinks() {
        out.one(name, kind, help, value);
    }
    streams(&mut out, board);
    machine(&mut out, board);
    out.0
}

fn now(out: &mut Exposition, board: &Board) {
    let Now { newest, camera, .. } = board.now.borrow().clone();
    out.one("camera_up", "gauge", "Whether the camera yields frames.", camera.running as u8);
    let healthy = board.ailment().is_none() as u8;
    out.one("healthy", "gauge", "Whether heatmaps flow, as /healthz tells.", healthy);
    let Stats { latency, inference, views, .. } = &board.stats;
    out.histogram("heatmap_latency_seconds", "From a frame's capture to its heatmap.", latency);
    out.histogram("inference_seconds", "From decoded frame to merged map.", inference);
    out.one("views_total", "counter", "Views that were run.", views.get());
    let Some(newest) = newest else { return };
    let heatmap = &newest.item.heatmap;
    let age = newest.came.elapsed().as_secs_f64();
    out.one("heatmap_age_seconds", "gauge", "Time since the newest heatmap.", age);
    let merged = heatmap.views.len();
    out.one("heatmap_views", "gauge", "Views merged into the newest heatmap.", merged);
    let oldest_ms = heatmap.views.iter().map(|view| view.age_ms).fold(0.0, f64::max);
    let help = "Age of the oldest view merged into the newest heatmap.";
    out.one("heatmap_oldest_view_seconds", "gauge", help, oldest_ms / 1e3);
    if let Some(budget_ms) = heatmap.budget_ms {
        let help = "What inference was to stay within.";
        out.one("budget_seconds", "gauge", help, budget_ms / 1e3);
    }
    if let Some(factor) = heatmap.heat_factor {
        let help = "Share of the budget that heat leaves, 0 to 1.";
        out.one("heat_budget_ratio", "gauge", help, factor);
    }
    out.open("class_probability", "gauge", "Probability of each class of the newest heatmap.");
    for class in heatmap.classes.iter().filter(|class| class.probability.is_finite()) {
        let labels = [("class", class.label.as_str()), ("index", &class.index.to_string())];
        out.value("class_probability", &labels, class.probability);
    }
    if heatmap.zones.is_empty() {
        return;
    }
    let help = "Share of each class's positive mass in each zone, of the newest heatmap.";
    out.open("zone_mass_ratio", "gauge", help);
    for zone in &heatmap.zones {
        let classes = heatmap.classes.iter().zip(&zone.shares);
        for (class, share) in classes.filter_map(|(class, share)| Some((class, (*share)?))) {
            let index = class.index.to_string();
            let labels =
                [("zone", &*zone.name), ("class", class.label.as_str()), ("index", &index)];
            out.value("zone_mass_ratio", &labels, share);
        }
    }
}

/// Those of the configuration, from its start: an alert can tell quiet from unknown.
fn rules(out: &mut Exposition, alarms: &Alarms) {
    if alarms.rules().next().is_none() {
        return;
    }
    out.open("rule_raised", "gauge", "Whether the rule is raised.");
    for (rule, is_raised, _) in alarms.rules() {
        out.value("rule_raised", &[("rule", rule)], is_raised as u8);
    }
    out.open("rule_raises_total", "counter", "Times that the rule was raised.");
    for (rule, _, raises) in alarms.rules() {
        out.value("rule_raises_total", &[("rule", rule)], raises);
    }
}

fn counters(out: &mut Exposition, snapshot: &[(String, u64)]) {
    for (name, value) in snapshot.iter().filter(|(name, _)| !name.starts_with("sink.")) {
        let known = COUNTERS.iter().find(|(counter, _)| counter == name);
        let help = known.map_or(name.replace('_', " "), |(_, help)| help.to_string());
        out.one(&format!("{name}_total"), "counter", &help, value);
    }
    for (what, help) in SINK_COUNTERS {
        let name = format!("sink_{what}_total");
        out.open(&name, "counter", help);
        for (counter, value) in snapshot {
            let sink = counter.strip_prefix("sink.").and_then(|rest| rest.split_once('.'));
            if let Some((sink, _)) = sink.filter(|(_, counted)| counted == what) {
                out.value(&name, &[("sink", sink)], value);
            }
        }
    }
}

fn streams(out: &mut Exposition, board: &Board) {
    let stats = &board.stats;
    out.open("http_viewers", "gauge", "Streams that are watched.");
    for (stream, viewers) in [
        ("overlay", board.overlay.watching()),
        ("raw", board.raw.watching()),
        ("events", board.listeners.load(Relaxed)),
    ] {
        out.value("http_viewers", &[("stream", stream)], viewers);
    }
    let open = stats.connections.load(Relaxed);
    out.one("http_connections", "gauge", "Connections that are open.", open);
    for (name, help, counter) in [
        ("http_requests_total", "Requests.", &stats.requests),
        ("http_refused_total", "Connections above max_connections.", &stats.refused),
        ("http_denied_total", "Requests with a wrong token.", &stats.denied),
        ("http_frames_sent_total", "Pictures sent in streams.", &stats.frames_sent),
        (
            "http_frames_dropped_total",
            "Pictures that a viewer was too slow for.",
            &stats.frames_dropped,
        ),
        ("http_events_sent_total", "Heatmaps told as events.", &stats.events_sent),
    ] {
        out.one(name, "counter", help, counter.get());
    }
}

fn machine(out: &mut Exposition, board: &Board) {
    let zones = thermal::zones(Path::new(SYSFS));
    if !zones.is_empty() {
        out.open("temperature_celsius", "gauge", "What the board's sensors say.");
    }
    for zone in &zones {
        let labels = [("zone", zone.zone.as_str()), ("sensor", &zone.kind)];
        out.value("temperature_celsius", &labels, zone.celsius);
    }
    if let Some(bytes) = memory::rss_bytes() {
        out.one("resident_memory_bytes", "gauge", "Memory that the daemon holds.", bytes);
    }
    let times = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu_s = times.tv_sec as f64 + times.tv_nsec as f64 / 1e9;
    out.one("cpu_seconds_total", "counter", "Processor time of the daemon.", cpu_s);
    let uptime = board.about.started.elapsed().as_secs_f64();
    out.one("uptime_seconds", "gauge", "Time since the daemon started.", uptime);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_first_bucket_that_holds_them() {
        let histogram = Histogram::default();
        for ms in [5, 6, 100, 40_000] {
            histogram.add(Duration::from_millis(ms));
        }
        let mut out = Exposition::default();
        out.histogram("x_seconds", "Help.", &histogram);
        let lines: Vec<&str> = out.0.lines().collect();
        assert_eq!(
            lines[..2],
            ["# HELP salientd_x_seconds Help.", "# TYPE salientd_x_seconds histogram"]
        );
        for line in [
            "salientd_x_seconds_bucket{le=\"0.005\"} 1",
            "salientd_x_seconds_bucket{le=\"0.01\"} 2",
            "salientd_x_seconds_bucket{le=\"0.05\"} 2",
            "salientd_x_seconds_bucket{le=\"0.1\"} 3",
            "salientd_x_seconds_bucket{le=\"30\"} 3",
            "salientd_x_seconds_bucket{le=\"+Inf\"} 4",
            "salientd_x_seconds_sum 40.111",
            "salientd_x_seconds_count 4",
        ] {
            assert!(lines.contains(&line), "no {line} in\n{}", out.0);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition::default();
        out.value("x", &[("a", "say \"no\"\\\n"), ("b", "Ü")], 1);
        assert_eq!(out.0, "salientd_x{a=\"say \\\"no\\\"\\\\\\n\",b=\"Ü\"} 1\n");
    }
}
