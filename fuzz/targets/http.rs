//! Requests, as they come over a connection: each gets an answer or its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use salientd::frame::{Picture, Rect};
use salientd::heatmap::{ClassScore, Heatmap};
use salientd::sink::http::HttpSink;
use salientd::sink::{Published, Sink};
use salientd_fuzz::sound;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

/// A sink that has something to show, and the path of its socket.
static SERVED: LazyLock<(HttpSink, std::path::PathBuf)> = LazyLock::new(|| {
    // libFuzzer's `main` is none of Rust's, which ignores it: a client that left is no end.
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGPIPE, ignored).unwrap();
    let path = tempfile::tempdir().unwrap().keep().join("http.sock");
    let mut sink = sound::served(&format!("unix:{}", path.display()));
    sink.publish(&published()).unwrap();
    (sink, path)
});

fn published() -> Published {
    let heatmap = Heatmap {
        height: 2,
        width: 2,
        values: vec![0.0, 0.5, 1.0, f32::NAN],
        classes: vec![ClassScore { index: 3, label: "a".into(), logit: 1.0, probability: 1.0 }],
        covers: Rect::full(16, 16),
        picture: [16, 16],
        views: Vec::new(),
        zones: Vec::new(),
        sequence: 1,
        captured_at: Instant::now(),
        captured_wall: SystemTime::now(),
        spent_ms: 1.0,
        budget_ms: None,
        heat_factor: None,
        model_sha256: "00".into(),
    };
    Published { picture: Arc::new(Picture::new(16, 16)), heatmap: Arc::new(heatmap) }
}

fuzz_target!(|request: &[u8]| {
    let mut stream = UnixStream::connect(&SERVED.1).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // Refused before it was whole: the answer is there all the same.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut first = Vec::new();
    // A stream has no end of its own: what it begins with is enough.
    match stream.take(7).read_to_end(&mut first) {
        Ok(_) => assert!(b"HTTP/1.".starts_with(&first), "{first:?}"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
});
