//! The gate in the running pipeline: a picture that does not change is inferred once.

mod common;

use common::parity;
use salientd::config::parse;
use salientd::health::Health;
use salientd::heatmap::Heatmap;
use salientd::model::Model;
use salientd::pipeline::{Outlets, Pipeline, Ready};
use salientd::sink::{CameraState, Published, Sink, SinkError};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Sends on what is published.
struct Pass(Sender<Arc<Heatmap>>);

impl Sink for Pass {
    fn name(&self) -> &'static str {
        "pass"
    }
    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        // The test has seen enough.
        let _ = self.0.send(item.heatmap.clone());
        Ok(())
    }
    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The first heatmaps of the daemon on one picture shown over and over.
fn heatmaps(tta: &str, count: usize) -> Vec<Arc<Heatmap>> {
    let camera = format!(
        "[camera]\nsource = \"files\"\n[camera.files]\npaths = [{:?}]\nfps = 100",
        parity("0.png").display().to_string()
    );
    let model = "[model]\nsize = [64, 64]\nthreads = 1";
    let config = parse(&format!("{camera}\n{model}\n{tta}"), "test").unwrap();
    let model = Arc::new(Model::load(&parity("model.onnx"), &config.model).unwrap());
    let health = Arc::new(Health::new(Instant::now()));
    let (send, receive): (_, Receiver<Arc<Heatmap>>) = channel();
    let outlets = Arc::new(Outlets::start(vec![Box::new(Pass(send))], &health).unwrap());
    let ready = Ready::new(&config, Some(model)).unwrap();
    let pipeline = Pipeline::start(&config, ready, outlets.clone(), health).unwrap();
    let next = |_| receive.recv_timeout(Duration::from_secs(60)).expect("a heatmap in a minute");
    let heatmaps = (0..count).map(next).collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    assert!(pipeline.stop(deadline).is_ok());
    assert_eq!(Arc::into_inner(outlets).unwrap().finish(deadline), Vec::<String>::new());
    heatmaps
}

fn ages(heatmap: &Heatmap) -> Vec<f64> {
    heatmap.views.iter().map(|view| view.age_ms).collect()
}

#[test]
fn an_unchanged_frame_gets_the_last_heatmap_with_its_age() {
    let seen = heatmaps("[tta.gate]\nunchanged_levels = 2\nmax_age_s = 3600", 5);
    // The one that was inferred may have made way for the second before it was sent.
    let first = &seen[0];
    assert_eq!(first.views.len(), 8);
    for pair in seen.windows(2) {
        let [before, after] = [&pair[0], &pair[1]];
        assert!(after.sequence > before.sequence && after.captured_at > before.captured_at);
        assert_eq!((after.spent_ms, &after.values), (0.0, &first.values));
        assert!(after.views.iter().all(|view| view.spent_ms == 0.0));
        assert!(ages(after).iter().zip(ages(before)).all(|(after, before)| *after > before));
    }
}

#[test]
fn without_the_gate_every_frame_is_inferred() {
    for heatmap in heatmaps("", 3) {
        assert!(heatmap.spent_ms > 0.0);
        assert_eq!(ages(&heatmap), [0.0; 8]);
    }
}
