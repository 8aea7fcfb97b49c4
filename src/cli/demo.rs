//! `salientd demo`: the daemon on what it carries within itself. The pictures become files,
//! the files a camera, and everything after that is the real thing.

use super::args::DemoArgs;
use super::{logging, run};
use crate::config::{
    CameraSource, Config, FileKind, FileSinkConfig, FileWhen, HttpConfig, SocketConfig,
};
use crate::sink::write_atomically;
use anyhow::Context;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::Path;

/// Sources and licences: assets/demo/SOURCES.md.
const PICTURES: [(&str, &[u8]); 3] = [
    ("church.jpg", include_bytes!("../../assets/demo/church.jpg")),
    ("golf_ball.jpg", include_bytes!("../../assets/demo/golf_ball.jpg")),
    ("parachute.jpg", include_bytes!("../../assets/demo/parachute.jpg")),
];

/// Once through: short enough to wait for.
const FPS: f64 = 2.0;
/// On and on: slow enough to watch.
const WATCHED_FPS: f64 = 0.5;
/// On and on, no more files than these are kept.
const MAX_FILES: usize = 60;

pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let frames = args.out.join("pictures");
    std::fs::create_dir_all(&frames).with_context(|| frames.display().to_string())?;
    for (name, bytes) in PICTURES {
        let path = frames.join(name);
        write_atomically(&path, bytes).with_context(|| path.display().to_string())?;
    }
    let once = args.once || !std::io::stdout().is_terminal();
    let mut config = config(&frames, &args.out, once);
    logging::init(&config.log.level);
    config.sink.http = Some(http(args));
    if !once {
        println!("Look at the live page (its address follows). Ctrl-C ends.");
    }
    run::serve(config, None)?;
    println!();
    println!("Done. Look at {}/*.png: what the classifier looked at.", args.out.display());
    println!("Scores, views and times stand in {}/*.jsonl.", args.out.display());
    println!("With a camera: `salientd run --config FILE`; start from config/salientd.toml.");
    Ok(())
}

/// Where that is taken, somewhere else: a demo is to be seen.
fn http(args: &DemoArgs) -> HttpConfig {
    let mut address = args.listen;
    if TcpListener::bind(address).is_err() {
        address.set_port(0);
    }
    HttpConfig { listen: address.to_string(), ..HttpConfig::default() }
}

fn config(frames: &Path, out: &Path, once: bool) -> Config {
    let mut config = Config::default();
    config.camera.source = CameraSource::Files;
    config.camera.files.paths = vec![frames.display().to_string()];
    config.camera.files.repeat = !once;
    config.camera.files.fps = if once { FPS } else { WATCHED_FPS };
    config.classes.top = 3;
    config.sink.socket =
        Some(SocketConfig { path: out.join("heatmaps.sock"), ..SocketConfig::default() });
    config.sink.files = Some(FileSinkConfig {
        dir: out.to_path_buf(),
        write: vec![FileKind::OverlayPng, FileKind::Npy, FileKind::Jsonl],
        when: FileWhen::EveryFrame,
        max_files: MAX_FILES,
        ..FileSinkConfig::default()
    });
    config
}
