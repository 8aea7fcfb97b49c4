//! Zones, rules, commands, clips and long-term means: the program end to end, on pictures of
//! two classes.

mod common;

use common::process::{Client, Daemon, wait_for};
use common::repository;
use salientd::rules::Change;
use salientd::sink::wire::{Decoder, EventHeader, Header, MeanHeader};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pictures in the order in which the camera gives them: how many of which.
const FILM: [(&str, usize); 3] = [("golf_ball.jpg", 20), ("church.jpg", 10), ("golf_ball.jpg", 10)];
const FRAMES: usize = 40;
/// The first frame of the church, and the first after it.
const CHURCH: u64 = 20;
const AFTER: u64 = 30;

/// A folder to work in, with the film in it.
fn stage() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let film = dir.path().join("film");
    fs::create_dir(&film).unwrap();
    let pictures = FILM.iter().flat_map(|&(name, count)| std::iter::repeat_n(name, count));
    for (i, name) in pictures.enumerate() {
        let from = repository("assets/demo").join(name);
        fs::copy(from, film.join(format!("{i:02}.jpg"))).unwrap();
    }
    dir
}

/// The halves of the picture as zones, a rule that the church raises, and every sink that
/// keeps something of it.
fn config(dir: &Path, limits: &str) -> String {
    // Written whole: who sees the file sees all of it.
    let script = "env > \"$0.part\" && mv \"$0.part\" \"$0.$SALIENTD_CHANGE\"";
    format!(
        "[model]\nthreads = 1\n\
         [tta]\nscales = [1.0]\nhflip = false\n\
         [camera]\nsource = \"files\"\n\
         [camera.files]\npaths = [{film:?}]\nloop = false\nfps = 10.0\n\
         [[zones]]\nname = \"left\"\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n\
         [[zones]]\nname = \"right\"\npolygon = [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]\n\
         [[rules]]\nname = \"church-left\"\nzone = \"left\"\nside = \"inside\"\n\
         class = \"church\"\nabove = 0.05\nbelow = 0.01\nfor_s = 0.15\n\
         command = [\"/bin/sh\", \"-c\", {script:?}, {marker:?}]\n\
         [mean]\ntime_constant_s = 60.0\npath = {mean:?}\n\
         [sink.socket]\npath = {socket:?}\n\
         [sink.files]\ndir = {out:?}\nwhen = \"every-frame\"\n\
         write = [\"jsonl\", \"overlay-jpeg\", \"mean-png\"]\n{limits}\
         [sink.files.clip]\npre_s = 300.0\npost_s = 300.0\nmax_s = 900.0\n",
        film = dir.join("film"),
        marker = dir.join("marker"),
        mean = dir.join("mean.salh"),
        socket = dir.join("s"),
        out = dir.join("out"),
    )
}

/// Runs the daemon to the end of the film; what clients were told of rules, and the log.
fn run(dir: &Path, config: &str) -> (Vec<EventHeader>, String) {
    let _ = fs::remove_file(dir.join("notify"));
    let daemon = Daemon::start(dir, config, &[]);
    let socket = dir.join("s");
    wait_for("listener", || UnixStream::connect(&socket).ok());
    let mut client = Client::connect(&socket);
    let mut events = Vec::new();
    while let Some(message) = client.next() {
        match message.header {
            Header::Event(event) => events.push(event),
            Header::Heatmap(heatmap) => {
                let zones: Vec<&str> = heatmap.zones.iter().map(|z| z.name.as_str()).collect();
                assert_eq!(zones, ["left", "right"]);
            }
            _ => {}
        }
    }
    let (status, log) = daemon.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains(&format!("stopped after {FRAMES} heatmaps")), "{log}");
    (events, log)
}

/// The files with this ending, by name.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    files.sort();
    files
}

/// The heatmaps and the events of the JSON lines.
fn lines(dir: &Path) -> (Vec<Value>, Vec<EventHeader>) {
    let [path] = &files(dir, "_heatmaps.jsonl")[..] else { panic!("not one file of lines") };
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (heatmaps, others): (Vec<Value>, Vec<Value>) = lines.partition(|l| l["kind"].is_null());
    let event = |line: Value| match serde_json::from_value(line).unwrap() {
        Header::Event(event) => event,
        other => panic!("{other:?}"),
    };
    (heatmaps, others.into_iter().map(event).collect())
}

fn environment(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.into(), value.into())).collect()
}

fn mean(dir: &Path) -> (MeanHeader, Vec<f32>) {
    let mut decoder = Decoder::default();
    decoder.feed(&fs::read(dir.join("mean.salh")).unwrap());
    let message = decoder.next_message().unwrap().unwrap();
    let Header::Mean(header) = message.header else { panic!("{:?}", message.header) };
    (header, message.values)
}

/// What ffprobe, of the package ffmpeg, says of a film after decoding all of it.
fn probe(path: &Path) -> Value {
    let show = "stream=codec_name,width,height,nb_read_frames,duration:format=format_name";
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-of", "json", "-show_entries", show])
        .arg(path)
        .output()
        .expect("ffprobe");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{}: {said}", path.display());
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn a_rule_that_fires_is_told_everywhere_and_recorded() {
    let stage = stage();
    let dir = stage.path();
    fs::create_dir(dir.join("out")).unwrap();
    let old = dir.join("out/20200101T000000.000000Z_0000000001_overlay.jpg");
    let foreign = dir.join("out/holiday.jpg");
    for path in [&old, &foreign] {
        fs::write(path, "x").unwrap();
    }
    let (told, log) = run(dir, &config(dir, "max_age_days = 1.0\n"));
    assert!(!old.exists() && foreign.exists(), "what is old and ours goes:\n{log}");

    // Socket and lines say the same: raised within the church, after a while; cleared after.
    let (heatmaps, events) = lines(dir);
    assert_eq!(heatmaps.len(), FRAMES);
    assert_eq!(events, told, "{log}");
    let [raised, cleared] = &told[..] else { panic!("{told:?}\n{log}") };
    assert!(CHURCH < raised.sequence && raised.sequence < AFTER, "{raised:?}");
    let label = |event: &EventHeader| event.class.as_ref().map(|class| class.label.clone());
    assert_eq!((raised.change, label(raised)), (Change::Raised, Some("church".into())));
    assert_eq!((cleared.change, cleared.sequence), (Change::Cleared, AFTER));
    let share =
        |heatmap: &Value, zone: usize| heatmap["zones"][zone]["shares"][0].as_f64().unwrap() as f32;
    for heatmap in &heatmaps {
        assert!((share(heatmap, 0) + share(heatmap, 1) - 1.0).abs() < 1e-5, "{heatmap}");
    }
    assert_eq!(raised.share, Some(share(&heatmaps[raised.sequence as usize], 0)));
    let logged = log.lines().filter(|line| line.contains("rule church-left")).count();
    assert_eq!(logged, 2, "{log}");

    // The command, for each.
    for (change, event) in [("raised", raised), ("cleared", cleared)] {
        let seen = environment(&dir.join(format!("marker.{change}")));
        for (name, expected) in [
            ("CHANGE", change.to_string()),
            ("RULE", "church-left".into()),
            ("ZONE", "left".into()),
            ("SIDE", "inside".into()),
            ("CLASS", label(event).unwrap_or_default()),
            ("SEQUENCE", event.sequence.to_string()),
            ("CAPTURED", event.captured.clone()),
            ("MODEL_SHA256", event.model_sha256.clone()),
        ] {
            assert_eq!(seen.get(&format!("SALIENTD_{name}")), Some(&expected), "{name}: {seen:?}");
        }
        assert!(!seen.contains_key("NOTIFY_SOCKET") && !seen.contains_key("HOME"), "{seen:?}");
    }

    // The clip: every frame from the first to the last, as long as they took.
    let [clip] = &files(dir, "_clip.avi")[..] else { panic!("not one clip\n{log}") };
    let probed = probe(clip);
    let stream = &probed["streams"][0];
    assert_eq!(
        (&probed["format"]["format_name"], &stream["codec_name"]),
        (&"avi".into(), &"mjpeg".into())
    );
    assert_eq!(stream["nb_read_frames"], FRAMES.to_string());
    let size = [&stream["width"], &stream["height"]].map(|n| n.as_u64().unwrap());
    assert_eq!(serde_json::json!(size), heatmaps[0]["picture"]);
    let ns = |i: usize| heatmaps[i]["captured_unix_ns"].as_i64().unwrap();
    let span_s = (ns(FRAMES - 1) - ns(0)) as f64 / 1e9;
    let expected_s = span_s * FRAMES as f64 / (FRAMES - 1) as f64;
    let duration_s: f64 = stream["duration"].as_str().unwrap().parse().unwrap();
    assert!((duration_s / expected_s - 1.0).abs() < 0.01, "{duration_s} s, not {expected_s} s");

    let mean_png = files(dir, "_mean.png");
    let picture = image::open(mean_png.last().expect("a mean")).unwrap();
    assert!(picture.width() > 1 && picture.height() > 1);
}

#[test]
fn means_go_on_after_a_restart_and_files_stay_within_their_limits() {
    let stage = stage();
    let dir = stage.path();
    let (_, log) = run(dir, &config(dir, ""));
    assert!(!log.contains("taken up"), "{log}");
    let (first, values) = mean(dir);
    let labels: Vec<&str> = first.classes.iter().map(|class| class.label.as_str()).collect();
    assert!(labels.contains(&"golf ball") && labels.contains(&"church"), "{labels:?}");
    assert_eq!(values.len(), first.shape.iter().product::<usize>());
    assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
    let before = fs::read_dir(dir.join("out")).unwrap().count();
    assert!(before > 2 * FRAMES, "{before} files");

    let (_, log) = run(dir, &config(dir, "max_files = 25\n"));
    let taken_up = format!("{} classes taken up", labels.len());
    assert!(log.contains(&taken_up), "{log}");
    let (second, _) = mean(dir);
    assert_eq!(second.model_sha256, first.model_sha256);
    for (was, is) in first.classes.iter().zip(&second.classes) {
        assert_eq!((was.index, &was.label), (is.index, &is.label));
        assert!(is.seen_s > was.seen_s && is.weight > was.weight, "{was:?} {is:?}");
    }

    let left = fs::read_dir(dir.join("out")).unwrap().count();
    assert!(left <= 25, "{left} files");
    // The newest are those that are left, the clip that ended last among them.
    let [clip] = &files(dir, "_clip.avi")[..] else { panic!("not one clip\n{log}") };
    assert_eq!(probe(clip)["streams"][0]["nb_read_frames"], FRAMES.to_string());
}
