//! The files and pattern sources, and `open`, as the daemon uses them.

use salientd::camera::{Camera, CameraError, open};
use salientd::config::{CameraConfig, CameraSource, FilesConfig, PatternConfig};
use salientd::frame::PixelFormat;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn config(paths: &[&str], repeat: bool) -> CameraConfig {
    let paths = paths.iter().map(|path| path.to_string()).collect();
    let files = FilesConfig { paths, repeat, fps: 1000.0 };
    CameraConfig { source: CameraSource::Files, files, ..CameraConfig::default() }
}

/// A picture of one pixel whose red value tells it from others.
fn picture(dir: &Path, name: &str, red: u8) {
    image::RgbImage::from_raw(1, 1, vec![red, 0, 0]).unwrap().save(dir.join(name)).unwrap();
}

fn reds(camera: &mut dyn Camera, most: usize) -> (Vec<u8>, Option<CameraError>) {
    let mut reds = Vec::new();
    while reds.len() < most {
        match camera.next_frame(PATIENCE) {
            Ok(frame) => {
                assert_eq!(frame.layout.format, PixelFormat::Rgb3);
                assert_eq!(frame.sequence, reds.len() as u64);
                reds.push(frame.data[0]);
            }
            Err(end) => return (reds, Some(end)),
        }
    }
    (reds, None)
}

fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, red) in [("b.png", 2), ("a.png", 1), ("c.png", 3)] {
        picture(dir.path(), name, red);
    }
    fs::write(dir.path().join("bb.jpg"), "not a picture").unwrap();
    fs::write(dir.path().join("notes.txt"), "no picture either").unwrap();
    dir
}

#[test]
fn files_folders_and_patterns_come_in_name_order_and_bad_ones_are_counted() {
    let dir = scene();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (folder, c, glob) = (at(""), at("c.png"), at("[ab].png"));
    for (paths, expected, bad) in [
        (vec![folder.as_str()], vec![1, 2, 3], 1),
        (vec![c.as_str(), glob.as_str()], vec![3, 1, 2], 0),
        (vec![c.as_str(), "/no/such/file.png", c.as_str()], vec![3, 3], 0),
    ] {
        let mut camera = open(&config(&paths, false)).unwrap();
        let (got, end) = reds(camera.as_mut(), 10);
        assert_eq!(got, expected, "{paths:?}");
        assert!(matches!(end, Some(CameraError::End(_))), "{end:?}");
        assert_eq!(camera.counters().bad, bad, "{paths:?}");
    }
    let mut looped = open(&config(&[&folder], true)).unwrap();
    assert_eq!(reds(looped.as_mut(), 7).0, [1, 2, 3, 1, 2, 3, 1]);
    assert_eq!(looped.describe(), "4 image files, looped @ 1000");
}

#[test]
fn a_set_without_pictures_is_unusable_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let glob = format!("{folder}/*.png");
    let check = |paths: &[&str], expected: &str| {
        let Err(error) = open(&config(paths, true)) else { panic!("{expected}") };
        assert!(matches!(error, CameraError::Unusable { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("camera.files.paths: {expected}"));
    };
    check(&[], "empty: name image files, folders or patterns such as \"photos/*.jpg\"");
    check(
        &[folder, &glob, "none.png"],
        &format!(
            "no image file: {folder}: no .png, .jpg or .jpeg in the folder; \
             {glob}: the pattern matches no file; none.png: no such file or folder"
        ),
    );
    fs::write(dir.path().join("a.png"), "text").unwrap();
    let mut camera = open(&config(&[folder], true)).unwrap();
    let error = camera.next_frame(PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "camera.files.paths: none of the 1 files is an image");
}

#[test]
fn frames_are_paced_and_a_frame_not_due_is_not_skipped() {
    let pattern = PatternConfig { width: 32, height: 24, fps: 4.0 };
    let config = CameraConfig { source: CameraSource::Pattern, pattern, ..CameraConfig::default() };
    let mut camera = open(&config).unwrap();
    let start = Instant::now();
    assert_eq!(camera.next_frame(PATIENCE).unwrap().sequence, 0);
    let early = camera.next_frame(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(early, CameraError::Stalled { .. }), "{early}");
    assert_eq!(camera.next_frame(PATIENCE).unwrap().sequence, 1);
    assert!(start.elapsed() >= Duration::from_millis(250));
    assert_eq!(camera.describe(), "test pattern 32x24 @ 4");
}

#[test]
fn a_rate_that_would_count_as_a_stall_is_refused() {
    let check = |fps: f64, expected: &str| {
        let pattern = PatternConfig { fps, ..PatternConfig::default() };
        let config =
            CameraConfig { source: CameraSource::Pattern, pattern, ..CameraConfig::default() };
        let Err(error) = open(&config) else { panic!("{expected}") };
        assert_eq!(error.to_string(), format!("camera.pattern.fps: {expected}"));
    };
    check(0.0, "0 frames per second, allowed: above 0, at most 1000");
    check(f64::NAN, "NaN frames per second, allowed: above 0, at most 1000");
    check(
        0.1,
        "0.1 means a frame every 10000 ms, more than camera.timeout_ms = 2000: \
         raise that or the rate",
    );
}

/// Every block of the camera page is a configuration that parses.
#[test]
fn the_blocks_of_the_page_parse() {
    let page = include_str!("../docs/cameras.md");
    let blocks: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    for block in blocks {
        if let Err(error) = toml::from_str::<salientd::config::Config>(block) {
            panic!("{error}\n{block}");
        }
    }
}
