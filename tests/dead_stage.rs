//! A thread that panics is a bug of ours; the daemon must not go on as if it were there.

mod common;

use common::parity;
use common::process::wait_for;
use salientd::config::{CameraSource, Config};
use salientd::health::Health;
use salientd::pipeline::{Outlets, Pipeline, Ready};
use salientd::sink::{CameraState, Published, Sink, SinkError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Panics when told to; counts what it was given.
struct Fragile {
    name: &'static str,
    panics: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
}

impl Sink for Fragile {
    fn name(&self) -> &'static str {
        self.name
    }
    fn publish(&mut self, _: &Published) -> Result<(), SinkError> {
        assert!(!self.panics.load(Ordering::Relaxed), "on purpose");
        self.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.camera.source = CameraSource::Pattern;
    (config.camera.pattern.width, config.camera.pattern.height) = (64, 48);
    config.model.path = Some(parity("model.onnx"));
    (config.model.size, config.model.threads) = (Some([32, 32]), 1);
    (config.tta.scales, config.tta.hflip) = (vec![1.0], false);
    config
}

#[test]
fn a_dead_thread_is_named_and_the_others_go_on_until_the_end() {
    let (config, health) = (config(), Arc::new(Health::new(Instant::now())));
    let panics = Arc::new(AtomicBool::new(false));
    let [first, second] = [0, 1].map(|_| Arc::new(AtomicU64::new(0)));
    let never = Arc::new(AtomicBool::new(false));
    let sinks: Vec<Box<dyn Sink>> = vec![
        Box::new(Fragile { name: "first", panics: panics.clone(), published: first.clone() }),
        Box::new(Fragile { name: "second", panics: never, published: second.clone() }),
    ];
    let outlets = Arc::new(Outlets::start(sinks, &health).unwrap());
    let ready = Ready::new(&config, None).unwrap();
    let pipeline = Pipeline::start(&config, ready, outlets.clone(), health).unwrap();
    wait_for("heatmaps", || (first.load(Ordering::Relaxed) > 2).then_some(()));
    assert_eq!(pipeline.dead(), None);

    panics.store(true, Ordering::Relaxed);
    let dead = wait_for("death", || pipeline.dead().map(str::to_string));
    assert_eq!(dead, "first");
    let before = second.load(Ordering::Relaxed);
    wait_for("more heatmaps", || (second.load(Ordering::Relaxed) > before).then_some(()));
    let deadline = Instant::now() + Duration::from_secs(100);
    assert!(pipeline.stop(deadline).is_ok());
    assert!(outlets.finish(deadline).is_empty());
}

/// A stage that hangs in a driver still holds on to the outlets.
#[test]
fn sinks_are_finished_whoever_holds_on_to_them() {
    let health = Arc::new(Health::new(Instant::now()));
    let open = || {
        let finished = Arc::new(AtomicBool::new(false));
        let sink = Lasting { finished: finished.clone() };
        (Arc::new(Outlets::start(vec![Box::new(sink)], &health).unwrap()), finished)
    };
    let (outlets, finished) = open();
    let _held = outlets.clone();
    assert!(outlets.finish(Instant::now() + Duration::from_secs(100)).is_empty());
    assert!(finished.load(Ordering::Relaxed));

    let (dropped, finished) = open();
    drop(dropped);
    wait_for("end", || finished.load(Ordering::Relaxed).then_some(()));
}

struct Lasting {
    finished: Arc<AtomicBool>,
}

impl Sink for Lasting {
    fn name(&self) -> &'static str {
        "lasting"
    }
    fn publish(&mut self, _: &Published) -> Result<(), SinkError> {
        Ok(())
    }
    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), SinkError> {
        self.finished.store(true, Ordering::Relaxed);
        Ok(())
    }
}
