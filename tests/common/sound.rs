//! What must hold of whatever comes in from outside, however damaged: for the mutants of
//! tests/hostile_*.rs and for the targets of fuzz/.

use salientd::camera::{Camera, CameraError};
use salientd::config::{self, HttpConfig, OverlayConfig};
use salientd::frame::{Frame, FrameLayout, Picture};
use salientd::health::Health;
use salientd::heatmap::encode;
use salientd::preprocess::decode::Decoder;
use salientd::sink::http::{About, HttpSink};
use salientd::sink::inherited::Inherited;
use salientd::sink::npy;
use salientd::sink::wire::{self, ModelEntry};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// A configuration is refused, or means the same when it is shown and read again.
pub fn configuration(text: &str) {
    if let Ok(config) = config::parse(text, "damaged") {
        let shown = config::render::effective(&config);
        let again = config::parse(&shown, "shown").map_err(|e| format!("{e}\n{text}"));
        assert_eq!(again, Ok(config), "{text}");
    }
}

pub fn frame(layout: FrameLayout, data: Vec<u8>) -> Frame {
    let (captured_at, captured_wall) = (Instant::now(), SystemTime::now());
    Frame { layout, data, sequence: 0, captured_at, captured_wall }
}

/// A frame is refused, or is a picture of the size that it claims.
pub fn decoded(decoder: &mut Decoder, frame: &Frame) {
    if let Ok(picture) = decoder.decode(frame) {
        let (width, height) = (frame.layout.width as usize, frame.layout.height as usize);
        assert_eq!((picture.width, picture.height), (width, height));
        assert_eq!(picture.rgb.len(), width * height * 3);
        decoder.recycle(picture);
    }
}

/// A stream is frames, then an end that is told, and no hang.
pub fn streamed(camera: &mut dyn Camera) {
    let mut decoder = Decoder::new();
    loop {
        match camera.next_frame(Duration::from_secs(60)) {
            Ok(frame) => decoded(&mut decoder, &frame),
            Err(CameraError::Stalled { .. }) => panic!("a hang"),
            Err(_) => break,
        }
    }
}

/// A sink of HTTP that knows a model's name and a class's, and nothing else yet.
pub fn served(listen: &str) -> HttpSink {
    let config = HttpConfig { listen: listen.into(), ..HttpConfig::default() };
    let about = About {
        model: ModelEntry { name: "m".into(), sha256: "00".into() },
        classes: vec!["a".into()],
        zones: Vec::new(),
        rules: Vec::new(),
        means: None,
        health: Arc::new(Health::new(Instant::now())),
        config: Arc::new(Mutex::default()),
        started: Instant::now(),
    };
    HttpSink::open(&config, &OverlayConfig::default(), about, &Inherited::default()).unwrap()
}

/// Messages in pieces: each is read or is an error.
pub fn messages(bytes: &[u8], piece_bytes: usize) {
    let mut decoder = wire::Decoder::default();
    for piece in bytes.chunks(piece_bytes) {
        decoder.feed(piece);
        while let Ok(Some(_)) = decoder.next_message() {}
    }
}

/// An array is refused, or comes back bit for bit when it is written and read again.
pub fn array(bytes: &[u8]) {
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    if let Ok(array) = npy::from_bytes::<f32>(bytes) {
        let written = npy::to_bytes(&array.shape, &array.values);
        let again = npy::from_bytes::<f32>(&written).unwrap();
        assert_eq!((again.shape, bits(&again.values)), (array.shape, bits(&array.values)));
    }
}

/// A PNG holds the picture that was written.
pub fn picture(picture: &Picture) {
    let mut bytes = Vec::new();
    encode::png(picture, &mut bytes).unwrap();
    let back = image::load_from_memory(&bytes).unwrap().into_rgb8();
    assert_eq!((back.width() as usize, back.height() as usize), (picture.width, picture.height));
    assert_eq!(back.into_raw(), picture.rgb);
}

/// Loads a model and, where that works, plans and runs it. What it comes to is of no interest.
#[cfg(feature = "model")]
pub fn model(bytes: &[u8]) {
    use salientd::model::{Model, ModelError};
    let config = config::ModelConfig { threads: 1, ..Default::default() };
    let Ok(model) = Model::from_bytes("damaged", bytes, &config) else { return };
    let Ok(plan) = model.plan(model.native_size.unwrap_or([32, 32])) else { return };
    let filled = |x: &mut [f32]| {
        x.fill(0.5);
        Ok::<(), ModelError>(())
    };
    let _ = model.run(&plan, filled);
}
