//! `salientd demo`: the daemon on what it carries within itself. The pictures become files,
//! the files a camera, and everything after that is the real thing.

use super::args::DemoArgs;
use super::{logging, run};
use crate::config::{CameraSource, Config, FileKind, FileSinkConfig, FileWhen, SocketConfig};
use crate::sink::write_atomically;
use anyhow::Context;
use std::path::Path;

/// Sources and licences: assets/demo/SOURCES.md.
const PICTURES: [(&str, &[u8]); 3] = [
    ("church.jpg", include_bytes!("../../assets/demo/church.jpg")),
    ("golf_ball.jpg", include_bytes!("../../assets/demo/golf_ball.jpg")),
    ("parachute.jpg", include_bytes!("../../assets/demo/parachute.jpg")),
];

/// Slow enough to watch, short enough to wait for.
const FPS: f64 = 2.0;

pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let frames = args.out.join("pictures");
    std::fs::create_dir_all(&frames).with_context(|| frames.display().to_string())?;
    for (name, bytes) in PICTURES {
        let path = frames.join(name);
        write_atomically(&path, bytes).with_context(|| path.display().to_string())?;
    }
    let config = config(&frames, &args.out);
    logging::init(&config.log.level);
    run::serve(config, None)?;
    println!();
    println!("Done. Look at {}/*.png: what the classifier looked at.", args.out.display());
    println!("Scores, views and times stand in {}/*.jsonl.", args.out.display());
    println!("With a camera: `salientd run --config FILE`; start from config/salientd.toml.");
    Ok(())
}

fn config(frames: &Path, out: &Path) -> Config {
    let mut config = Config::default();
    config.camera.source = CameraSource::Files;
    config.camera.files.paths = vec![frames.display().to_string()];
    config.camera.files.repeat = false;
    config.camera.files.fps = FPS;
    config.sink.socket =
        Some(SocketConfig { path: out.join("heatmaps.sock"), ..SocketConfig::default() });
    config.sink.files = Some(FileSinkConfig {
        dir: out.to_path_buf(),
        write: vec![FileKind::OverlayPng, FileKind::Npy, FileKind::Jsonl],
        when: FileWhen::EveryFrame,
        ..FileSinkConfig::default()
    });
    config
}
