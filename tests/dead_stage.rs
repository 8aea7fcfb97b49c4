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

/// What a sink is to do, and what came to it.
#[derive(Default)]
struct Seen {
    panics: AtomicBool,
    published: AtomicU64,
    finished: AtomicBool,
}

/// A sink that can be looked into.
struct Watched {
    name: &'static str,
    seen: Arc<Seen>,
}

impl Watched {
    fn boxed(name: &'static str) -> (Box<dyn Sink>, Arc<Seen>) {
        let seen = Arc::new(Seen::default());
        (Box::new(Self { name, seen: seen.clone() }), seen)
    }
}

impl Sink for Watched {
    fn name(&self) -> &'static str {
        self.name
    }
    fn publish(&mut self, _: &Published) -> Result<(), SinkError> {
        assert!(!self.seen.panics.load(Ordering::Relaxed), "on purpose");
        self.seen.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), SinkError> {
        self.seen.finished.store(true, Ordering::Relaxed);
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
    let [(first, one), (second, other)] = ["first", "second"].map(Watched::boxed);
    let outlets = Arc::new(Outlets::start(vec![first, second], &health).unwrap());
    let ready = Ready::new(&config, None).unwrap();
    let pipeline = Pipeline::start(&config, ready, outlets.clone(), health).unwrap();
    wait_for("heatmaps", || (one.published.load(Ordering::Relaxed) > 2).then_some(()));
    assert_eq!(pipeline.dead(), None);

    one.panics.store(true, Ordering::Relaxed);
    let dead = wait_for("death", || pipeline.dead().map(str::to_string));
    assert_eq!(dead, "first");
    let published = || other.published.load(Ordering::Relaxed);
    let before = published();
    wait_for("more heatmaps", || (published() > before).then_some(()));
    let deadline = Instant::now() + Duration::from_secs(100);
    assert!(pipeline.stop(deadline).is_ok());
    assert!(outlets.finish(deadline).is_empty());
}

/// The camera's thread ends with its source, and the others after it.
#[test]
fn an_end_of_the_source_is_no_death() {
    let (mut config, health) = (config(), Arc::new(Health::new(Instant::now())));
    config.camera.source = CameraSource::Files;
    config.camera.files.paths = vec!["assets/demo/*.jpg".into()];
    config.camera.files.repeat = false;
    let (sink, seen) = Watched::boxed("watched");
    let outlets = Arc::new(Outlets::start(vec![sink], &health).unwrap());
    let ready = Ready::new(&config, None).unwrap();
    let pipeline = Pipeline::start(&config, ready, outlets, health).unwrap();
    wait_for("end", || pipeline.is_finished().then_some(()));
    // The threads end a moment later.
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        assert_eq!(pipeline.dead(), None);
    }
    assert!(seen.published.load(Ordering::Relaxed) > 0);
}

/// A stage that hangs in a driver still holds on to the outlets.
#[test]
fn sinks_are_finished_whoever_holds_on_to_them() {
    let health = Arc::new(Health::new(Instant::now()));
    let open = || {
        let (sink, seen) = Watched::boxed("watched");
        (Arc::new(Outlets::start(vec![sink], &health).unwrap()), seen)
    };
    let (outlets, seen) = open();
    let _held = outlets.clone();
    assert!(outlets.finish(Instant::now() + Duration::from_secs(100)).is_empty());
    assert!(seen.finished.load(Ordering::Relaxed));

    let (dropped, seen) = open();
    drop(dropped);
    wait_for("end", || seen.finished.load(Ordering::Relaxed).then_some(()));
}
