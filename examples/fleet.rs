//! Many devices against one MQTT broker: the daemon's own sink, once for each, with heatmaps
//! made up. For the figures of docs/fleet.md.
//!
//! ```text
//! mosquitto -p 1884 &
//! cargo run --example fleet -- 127.0.0.1 1884 500 30 1.0 $!
//! ```
//! Host, port, devices (at most 2000), seconds (at most 600), seconds between heatmaps, and
//! the broker's process, where it runs here: its processor time and memory are told.

use anyhow::{Context, bail};
use salientd::config::{MqttConfig, OverlayConfig};
use salientd::frame::{Picture, Rect};
use salientd::heatmap::zone::ZoneShare;
use salientd::heatmap::{ClassScore, Heatmap};
use salientd::sink::mqtt::MqttSink;
use salientd::sink::{Published, Sink};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, devices, seconds, every_s, rest @ ..] = &arguments[..] else {
        bail!("usage: fleet HOST PORT DEVICES SECONDS EVERY_S [BROKER_PID]");
    };
    let (devices, seconds): (usize, f64) = (devices.parse()?, seconds.parse()?);
    let (port, every_s): (u16, f64) = (port.parse()?, every_s.parse()?);
    if devices > 2000 || seconds > 600.0 || every_s < 0.01 {
        bail!("at most 2000 devices for 600 s, with 0.01 s or more between heatmaps");
    }
    let broker = rest.first().map(|pid| pid.parse()).transpose()?;
    let fleet = connect(host, port, devices)?;
    let before = Usage::read(broker)?;
    let began = Instant::now();
    let rounds = (seconds / every_s).round().max(1.0) as u64;
    let mut fleet = fleet;
    for round in 0..rounds {
        // Spread over the period, as devices that know nothing of each other are.
        for (i, sink) in fleet.iter_mut().enumerate() {
            let due = (round as f64 + i as f64 / devices as f64) * every_s;
            let wait = Duration::from_secs_f64(due).saturating_sub(began.elapsed());
            std::thread::sleep(wait);
            sink.publish(&item(round))?;
        }
    }
    let wanted = devices as u64 * rounds;
    let mut delivered = 0;
    while began.elapsed() < Duration::from_secs_f64(seconds + 60.0) {
        // Two more each: online, and that there is no picture.
        delivered = fleet.iter().map(|sink| sink.stats().delivered().saturating_sub(2)).sum();
        if delivered >= wanted {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let elapsed = began.elapsed().as_secs_f64();
    let after = Usage::read(broker)?;
    let dropped: u64 = fleet.iter().map(|sink| sink.stats().dropped()).sum();
    println!(
        "{}",
        serde_json::json!({
            "devices": devices,
            "heatmaps": wanted,
            "delivered": delivered,
            "dropped": dropped,
            "seconds": elapsed,
            "heatmaps_per_s": delivered as f64 / elapsed,
            "broker_cpu_percent": (after.cpu_s - before.cpu_s) / elapsed * 100.0,
            "broker_rss_mib": after.rss_mib,
            "fleet_cpu_percent": (after.own_cpu_s - before.own_cpu_s) / elapsed * 100.0,
        })
    );
    Ok(())
}

fn connect(host: &str, port: u16, devices: usize) -> anyhow::Result<Vec<MqttSink>> {
    let open = |i: usize| {
        let config = MqttConfig {
            host: host.into(),
            port,
            device: Some(format!("simulated-{i:05}")),
            topic: "salientd-load".into(),
            every_s: 0.0,
            ..MqttConfig::default()
        };
        MqttSink::open(&config, &OverlayConfig::default(), Vec::new(), "default")
    };
    let fleet: Vec<MqttSink> = (0..devices).map(open).collect::<Result<_, _>>()?;
    let began = Instant::now();
    while !fleet.iter().all(|sink| sink.stats().is_connected()) {
        if began.elapsed() > Duration::from_secs(60) {
            let there = fleet.iter().filter(|sink| sink.stats().is_connected()).count();
            bail!("{there} of {devices} devices are connected after a minute");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!("{devices} devices connected in {:.1} s", began.elapsed().as_secs_f64());
    Ok(fleet)
}

/// Two zones and one class, as a device in the field has.
fn item(sequence: u64) -> Published {
    let class = ClassScore {
        index: 3,
        label: "English springer".into(),
        logit: 9.312_5,
        probability: 0.937_5,
    };
    let zone = |name: &str, share| ZoneShare { name: name.into(), shares: vec![Some(share)] };
    let heatmap = Heatmap {
        height: 1,
        width: 1,
        values: vec![1.0],
        classes: vec![class],
        covers: Rect::full(1280, 720),
        picture: [1280, 720],
        views: Vec::new(),
        zones: vec![zone("gate", 0.8125), zone("sky", 0.015_625)],
        sequence,
        captured_at: Instant::now(),
        captured_wall: SystemTime::now(),
        spent_ms: 271.5,
        budget_ms: None,
        heat_factor: None,
        model_sha256: "0123456789abcdef".repeat(4).into(),
    };
    Published { picture: Arc::new(Picture::new(1, 1)), heatmap: Arc::new(heatmap) }
}

/// Processor time and memory so far.
struct Usage {
    cpu_s: f64,
    rss_mib: f64,
    own_cpu_s: f64,
}

impl Usage {
    fn read(broker: Option<u32>) -> anyhow::Result<Self> {
        let own = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let own_cpu_s = own.tv_sec as f64 + own.tv_nsec as f64 / 1e9;
        let Some(pid) = broker else {
            return Ok(Self { cpu_s: f64::NAN, rss_mib: f64::NAN, own_cpu_s });
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("no process {pid} here"))?;
        // After the name in brackets: state is the first, user and system time the 12th and
        // 13th, in ticks of 10 ms; resident pages of 4 KiB the 22nd (proc(5)).
        let fields: Vec<&str> =
            stat.rsplit_once(')').context("no name")?.1.split_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        let cpu_s = (number(11) + number(12)) / 100.0;
        Ok(Self { cpu_s, rss_mib: number(21) * 4096.0 / 1_048_576.0, own_cpu_s })
    }
}
