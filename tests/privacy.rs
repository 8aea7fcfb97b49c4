//! `[privacy]` end to end: every sink that gives out pictures, with a camera whose picture
//! would show through.

mod common;

use common::broker::{Broker, free_port};
use common::parity;
use common::process::{Daemon, wait_for};
use salientd::config::Pictures;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A black and white chequer, 4 pixels a square: its detail is gone in any blur.
fn chequer(path: &Path) {
    let picture = image::RgbImage::from_fn(240, 160, |x, y| {
        image::Rgb([if (x / 4 + y / 4) % 2 == 0 { 0 } else { 255 }; 3])
    });
    picture.save(path).unwrap();
}

/// Nothing is drawn: overlays are the background alone. The camera plays the picture again
/// and again, so that there is always a next one.
fn config(dir: &Path, pictures: &str, http: u16, mqtt: u16) -> String {
    let (photo, out) = (dir.join("photo.png"), dir.join("out"));
    chequer(&photo);
    format!(
        "[camera]\nsource = \"files\"\n\
         [camera.files]\npaths = [{photo:?}]\nfps = 10.0\n\
         [model]\npath = {model:?}\nsize = [32, 32]\nthreads = 1\n\
         [tta]\nscales = [1.0]\nhflip = false\n\
         [overlay]\nalpha = 0.0\nlabel = false\n\
         [privacy]\npictures = \"{pictures}\"\n\
         [sink.http]\nlisten = \"127.0.0.1:{http}\"\n\
         [sink.mqtt]\nhost = \"127.0.0.1\"\nport = {mqtt}\ndevice = \"d\"\npicture_every_s = 0.1\n\
         [sink.files]\ndir = {out:?}\nwhen = \"every-frame\"\nmax_files = 400\n\
         write = [\"overlay-png\", \"overlay-jpeg\"]\n\
         [sink.files.clip]\npre_s = 0.3\npost_s = 0.3\n\
         [[zones]]\nname = \"z\"\npolygon = [[0, 0], [1, 0], [1, 1], [0, 1]]\n\
         [[rules]]\nname = \"r\"\nzone = \"z\"\nside = \"inside\"\nabove = 0.0\nbelow = 0.0\nfor_s = 0.0\n",
        model = parity("model.onnx"),
    )
}

fn connect(port: u16, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn get(port: u16, path: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = connect(port, path).read_to_end(&mut answer);
    answer
}

/// The JPEG images in some bytes, one after the other.
fn jpegs(bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = bytes;
    let find = |bytes: &[u8], mark: &[u8]| bytes.windows(mark.len()).position(|w| w == mark);
    while let Some(begin) = find(rest, b"\xff\xd8\xff") {
        let Some(end) = find(&rest[begin..], b"\xff\xd9") else { break };
        found.push(&rest[begin..begin + end + 2]);
        rest = &rest[begin + end + 2..];
    }
    found
}

/// The first JPEG of a stream that has no end.
fn first_picture(port: u16, path: &str) -> Vec<u8> {
    let (mut stream, mut seen, mut piece) = (connect(port, path), Vec::new(), [0; 4096]);
    loop {
        if let Some(jpeg) = jpegs(&seen).first() {
            return jpeg.to_vec();
        }
        let n = stream.read(&mut piece).unwrap();
        assert!(n > 0, "{path} ended: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
    }
}

/// From the darkest to the lightest value of any channel.
fn contrast(what: &str, picture: &[u8]) -> u8 {
    let picture = image::load_from_memory(picture).unwrap_or_else(|e| panic!("{what}: {e}"));
    let values = picture.to_rgb8().into_raw();
    values.iter().max().unwrap() - values.iter().min().unwrap()
}

fn with_ending(dir: &Path, ending: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_string_lossy().ends_with(ending))
}

/// One picture from everywhere.
fn pictures(dir: &Path, http: u16, mqtt: u16) -> Vec<(&'static str, Vec<u8>)> {
    let out = dir.join("out");
    let file = |ending: &str| {
        let path = wait_for(ending, || with_ending(&out, ending));
        fs::read(path).unwrap()
    };
    // An empty one says that there is none of before.
    let heard = wait_for("picture from the broker", || {
        let heard = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &mqtt.to_string(), "-t", "salientd/d/picture"])
            .args(["-C", "1", "-N", "-W", "90"])
            .output()
            .unwrap();
        Some(heard.stdout).filter(|picture| !picture.is_empty())
    });
    let clip = file("_clip.avi");
    let frames = jpegs(&clip);
    assert!(frames.len() > 1, "{} frames in the clip", frames.len());
    let mut all: Vec<(&'static str, Vec<u8>)> = vec![
        ("overlay-png", file("_overlay.png")),
        ("overlay-jpeg", file("_overlay.jpg")),
        ("mqtt", heard),
        ("stream", first_picture(http, "/stream.mjpg")),
        ("raw stream", first_picture(http, "/stream.mjpg?raw=1")),
    ];
    for (name, path) in [("snapshot", "/snapshot.jpg"), ("raw snapshot", "/snapshot.jpg?raw=1")] {
        let answer = get(http, path);
        let jpeg = jpegs(&answer).first().map(|jpeg| jpeg.to_vec());
        all.push((name, jpeg.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&answer)))));
    }
    all.extend(frames.into_iter().map(|frame| ("clip", frame.to_vec())));
    all
}

/// The contrast that the picture has, and that of what may be seen: a squared chequer is grey,
/// and the errors of JPEG are small on plain grey.
#[test]
fn no_sink_shows_more_than_it_may() {
    let table =
        [(Pictures::Whole, "whole"), (Pictures::Blurred, "blurred"), (Pictures::None, "none")];
    for (pictures_of, name) in table {
        let dir = tempfile::tempdir().unwrap();
        let (http, mqtt) = (free_port(), free_port());
        let _broker = Broker::start_on(dir.path(), "allow_anonymous true", mqtt);
        let daemon = Daemon::start(dir.path(), &config(dir.path(), name, http, mqtt), &[]);
        daemon.wait_told("READY=1");
        for (sink, picture) in pictures(dir.path(), http, mqtt) {
            let contrast = contrast(sink, &picture);
            match pictures_of {
                Pictures::Whole => assert!(contrast > 200, "{name}: {sink}: {contrast}"),
                Pictures::Blurred => assert!(contrast < 60, "{name}: {sink}: {contrast}"),
                Pictures::None => assert!(contrast <= 2, "{name}: {sink}: {contrast}"),
            }
        }
        daemon.stopped();
    }
}

/// Sinks keep pictures. A reload that draws the veil leaves none of before.
#[test]
fn a_reload_forgets_what_may_not_be_seen_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let (http, mqtt) = (free_port(), free_port());
    let _broker = Broker::start_on(dir.path(), "allow_anonymous true", mqtt);
    let daemon = Daemon::start(dir.path(), &config(dir.path(), "whole", http, mqtt), &[]);
    daemon.wait_told("READY=1");
    let snapshot = || {
        let answer = get(http, "/snapshot.jpg?raw=1");
        jpegs(&answer).first().map(|jpeg| contrast("snapshot", jpeg))
    };
    assert!(wait_for("snapshot", snapshot) > 200);
    daemon.rewrite_config(&config(dir.path(), "none", http, mqtt));
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_log("took up");
    assert!(wait_for("snapshot", snapshot) <= 2);

    // Nor does the broker keep one where none are sent any more.
    let no_more = config(dir.path(), "none", http, mqtt).replace("picture_every_s = 0.1\n", "");
    daemon.rewrite_config(&no_more);
    daemon.signal(rustix::process::Signal::HUP);
    wait_for("broker without a picture", || {
        let heard = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &mqtt.to_string(), "-t", "salientd/d/picture"])
            .args(["-C", "1", "-W", "2"])
            .output()
            .unwrap();
        heard.stdout.is_empty().then_some(())
    });
    daemon.stopped();
}
