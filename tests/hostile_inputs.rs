//! Whatever comes in from outside, damaged: configurations, frames, streams of frames,
//! messages, requests, arrays. Each gives an error or something sound, and no panic. The
//! mutations are the same in every run; MUTANTS=N makes N of each input.

mod common;

use common::mutate::{Dice, mutants_each, mutated};
use common::{repository, sound};
use salientd::camera::open;
use salientd::config::{CameraConfig, CameraSource, PipeFormat};
use salientd::frame::{FrameLayout, Picture, PixelFormat, YuvMatrix, YuvRange};
use salientd::heatmap::encode;
use salientd::preprocess::decode::Decoder;
use salientd::sink::npy;
use salientd::sink::wire::{self, Header};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Every block of configuration that the documentation has, and the sample file.
fn configurations_of_the_docs() -> Vec<String> {
    let pages = ["README.md", "docs/config.md", "docs/zones.md", "docs/http.md", "docs/fleet.md"];
    let pages = pages.map(|page| std::fs::read_to_string(repository(page)).unwrap());
    let blocks = pages.iter().flat_map(|page| page.split("```toml\n").skip(1));
    let mut found: Vec<String> =
        blocks.filter_map(|rest| Some(rest.split_once("```")?.0.into())).collect();
    found.push(std::fs::read_to_string(repository("config/salientd.toml")).unwrap());
    assert!(found.len() > 10);
    found
}

/// What is taken up means the same when it is shown and read again.
#[test]
fn configurations_are_refused_or_shown_as_they_are() {
    for text in configurations_of_the_docs() {
        for seed in 0..mutants_each(150) {
            let bytes = mutated(text.as_bytes(), &mut Dice(seed));
            let Ok(text) = String::from_utf8(bytes) else { continue };
            sound::configuration(&text);
        }
    }
}

#[test]
fn frames_of_wrong_sizes() {
    let mut decoder = Decoder::new();
    let mut dice = Dice(7);
    let side = |dice: &mut Dice| match dice.below(8) {
        0 => dice.roll() as u32,
        1 => 0,
        2 => 8192 + dice.below(3) as u32,
        _ => 1 + dice.below(40) as u32,
    };
    for _ in 0..mutants_each(150) * 100 {
        let format = PixelFormat::ALL[dice.below(PixelFormat::ALL.len())];
        let (width, height) = (side(&mut dice), side(&mut dice));
        let exact = format.row_bytes(width);
        let stride_bytes = match dice.below(4) {
            0 => side(&mut dice),
            1 => exact.saturating_add(dice.below(9) as u32),
            _ => exact,
        };
        let (matrix, range) = (YuvMatrix::Bt709, YuvRange::Limited);
        let layout = FrameLayout { format, width, height, stride_bytes, matrix, range };
        let is_small = [width, height, stride_bytes].iter().all(|&side| side < 1000);
        let bytes = match is_small {
            true if dice.below(2) == 0 => layout.bytes() as usize,
            true => (layout.bytes() as usize + dice.below(5)).saturating_sub(2),
            false => dice.below(1000),
        };
        sound::decoded(&mut decoder, &sound::frame(layout, vec![dice.roll() as u8; bytes]));
    }
}

fn jpeg() -> Vec<u8> {
    let rgb = (0..48 * 32 * 3).map(|i| (i * 7 % 251) as u8).collect();
    let mut bytes = Vec::new();
    encode::jpeg(&Picture { width: 48, height: 32, rgb }, 80, &mut bytes).unwrap();
    bytes
}

#[test]
fn damaged_jpegs() {
    let (whole, mut decoder) = (jpeg(), Decoder::new());
    for seed in 0..mutants_each(150) * 20 {
        let (format, range) = (PixelFormat::Mjpg, YuvRange::Full);
        let (width, height, matrix) = (48, 32, YuvMatrix::Bt601);
        let layout = FrameLayout { format, width, height, stride_bytes: 0, matrix, range };
        let data = mutated(&whole, &mut Dice(seed));
        sound::decoded(&mut decoder, &sound::frame(layout, data));
    }
}

/// The pipe camera over a damaged stream: frames, then an end that is told; never a hang.
#[test]
fn damaged_streams() {
    let y4m = [b"YUV4MPEG2 W16 H8 F5:1 C420jpeg\n".to_vec(), frames(b"FRAME\n", 192)].concat();
    let table = [(PipeFormat::Y4m, y4m), (PipeFormat::Mjpeg, jpeg().repeat(3))];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stream");
    for (format, stream) in table {
        for seed in 0..mutants_each(150) / 10 {
            std::fs::write(&file, mutated(&stream, &mut Dice(seed))).unwrap();
            let mut camera = CameraConfig { source: CameraSource::Pipe, ..Default::default() };
            camera.pipe.command = vec!["cat".into(), file.display().to_string()];
            camera.pipe.format = format;
            let mut camera = open(&camera).unwrap();
            eprintln!("{format:?}, seed {seed}");
            sound::streamed(&mut *camera);
        }
    }
}

fn frames(mark: &[u8], bytes: usize) -> Vec<u8> {
    [mark, &vec![99; bytes]].concat().repeat(3)
}

/// What a client is sent, damaged on the way, in pieces of any size.
#[test]
fn damaged_messages() {
    let camera = wire::CameraHeader { running: false, reason: "a cable".into() };
    let whole = wire::encode(&Header::Camera(camera), &[]).unwrap().repeat(3);
    for seed in 0..mutants_each(150) * 20 {
        let mut dice = Dice(seed);
        sound::messages(&mutated(&whole, &mut dice), 1 + dice.below(40));
    }
}

#[test]
fn arrays_come_back_and_damaged_ones_are_refused() {
    for seed in 0..mutants_each(150) * 10 {
        let mut dice = Dice(seed);
        let shape = [dice.below(5), dice.below(5), dice.below(5)];
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| f32::from_bits(dice.roll() as u32)).collect();
        let bytes = npy::to_bytes(&shape, &values);
        let back = npy::from_bytes::<f32>(&bytes).unwrap();
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!((&back.shape[..], bits(&back.values)), (&shape[..], bits(&values)));
        sound::array(&mutated(&bytes, &mut dice));
    }
}

#[test]
fn pictures_come_back_from_png() {
    for seed in 0..mutants_each(150) {
        let mut dice = Dice(seed);
        let (width, height) = (1 + dice.below(40), 1 + dice.below(40));
        let rgb = (0..width * height * 3).map(|_| dice.roll() as u8).collect();
        sound::picture(&Picture { width, height, rgb });
    }
}

const REQUESTS: [&str; 4] = [
    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /heatmap.png?colormap=jet&class=3 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "HEAD /stream.mjpg?raw=1 HTTP/1.0\r\nHost: [::1]:80\r\nAuthorization: Basic dTpw\r\n\r\n",
    "GET /events HTTP/1.1\r\nHost: x.local\r\nAuthorization: Bearer abc\r\nConnection: close\r\n\r\n",
];

/// Each gets an answer or its end within the time that heads have; and others are served.
#[test]
fn damaged_requests() {
    let sink = sound::served("127.0.0.1:0");
    let address = sink.address().trim_start_matches("http://").trim_end_matches('/').to_string();
    for request in REQUESTS {
        for seed in 0..mutants_each(150) / 3 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let _ = stream.write_all(&mutated(request.as_bytes(), &mut Dice(seed)));
            // No more comes: what is not whole yet will not be.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut first = [0; 12];
            if let Ok(n) = stream.read(&mut first)
                && n > 0
            {
                assert!(first.starts_with(b"HTTP/1."), "{request:?}, seed {seed}: {first:?}");
            }
        }
    }
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
}
