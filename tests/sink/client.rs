//! The example client and the protocol's page, against the real sink.

use crate::material::{heatmap, published};
use crate::socket::{config, open, wait_until};
use salientd::sink::wire::Header;
use salientd::sink::{CameraState, Sink, npy};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The interpreter that has numpy where several are installed.
fn python() -> Command {
    Command::new(std::env::var("SALIENTD_PYTHON").unwrap_or_else(|_| "python3".into()))
}

fn client(arguments: &[&str]) -> Child {
    python()
        .arg(repository("examples/client.py"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs python3 (Debian package python3-minimal)")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_example_client_understands_every_message() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut sink = open(&config(&path));
    let child = client(&["--count", "2", path.to_str().unwrap()]);
    wait_until("the client", || sink.stats().clients() == 1);
    sink.camera(&CameraState { running: false, reason: "unplugged".into() }).unwrap();
    sink.camera(&CameraState { running: true, reason: String::new() }).unwrap();
    wait_until("camera messages", || sink.stats().sent() >= 2);
    sink.publish(&published(heatmap(0))).unwrap();
    let mut odd = heatmap(1);
    odd.classes[0].probability = f32::NAN;
    sink.publish(&published(odd)).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{}", text(&stderr));
    let lines: Vec<&str> =
        text(&stdout).lines().filter(|line| !line.contains("unplugged")).collect();
    assert_eq!(
        lines,
        [
            "salientd 0.1.0, model default",
            "camera running",
            // The map's spot is at 0.4, 0.55 of the square that it covers.
            "2026-11-23T12:16:17.000042000Z #0 English springer p=0.93 hottest at 568,394 8 views 412 ms",
            "2026-11-23T12:16:18.000042000Z #1 English springer p=? hottest at 568,394 8 views 412 ms",
        ]
    );
}

#[test]
fn the_example_client_saves_maps_bit_for_bit() {
    let numpy = python().args(["-c", "import numpy"]).output().expect("python3 runs");
    assert!(
        numpy.status.success(),
        "this test needs numpy: apt-get install python3-numpy, and SALIENTD_PYTHON=/usr/bin/python3 \
         if another python3 comes first"
    );
    let dir = tempfile::tempdir().unwrap();
    let (path, saved) = (dir.path().join("s"), dir.path().join("map.npy"));
    let mut sink = open(&config(&path));
    let arguments = ["--count", "1", "--save", saved.to_str().unwrap(), path.to_str().unwrap()];
    let child = client(&arguments);
    wait_until("the client", || sink.stats().clients() == 1);
    let sent = heatmap(0);
    sink.publish(&published(sent.clone())).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let array = npy::from_bytes::<f32>(&std::fs::read(saved).unwrap()).unwrap();
    assert_eq!((array.shape, array.values), (vec![149, 149, 1], sent.values));
}

#[test]
fn the_example_client_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let path = path.to_str().unwrap();
    let Output { status, stderr, .. } = client(&[path]).wait_with_output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(text(&stderr), format!("{path}: [Errno 2] No such file or directory\n"));
}

/// Every JSON example of the page is a header as this version reads and writes it.
#[test]
fn the_page_shows_headers_as_they_are() {
    let page = std::fs::read_to_string(repository("docs/protocol.md")).unwrap();
    let examples: Vec<&str> =
        page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let mut kinds = Vec::new();
    for example in examples {
        let written: serde_json::Value = serde_json::from_str(example).unwrap();
        let header: Header = serde_json::from_str(example).unwrap();
        // No field is missing on the page, and none is there that we do not know.
        assert_eq!(serde_json::to_value(&header).unwrap(), written, "{example}");
        kinds.push(written["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["hello", "heatmap", "camera", "event", "mean", "refused"]);
}
