//! The camera's loop on cameras that do as they are told.

use super::*;
use crate::frame::{FrameLayout, Picture, PixelFormat, YuvMatrix, YuvRange};
use crate::sink::SinkError;
use crossbeam_channel::{Sender, unbounded};
use std::time::SystemTime;

fn shared() -> Shared {
    Shared {
        health: Arc::new(Health::new(Instant::now())),
        stop: AtomicBool::new(false),
        frames: Slot::default(),
        live: Slot::default(),
        spent: Slot::default(),
        outlets: Arc::default(),
        camera: Mutex::new(CameraState { running: false, reason: "starting".into() }),
        description: Mutex::default(),
        finished: AtomicBool::new(false),
    }
}

fn frame(data: Vec<u8>) -> Frame {
    let layout = FrameLayout {
        format: PixelFormat::Grey,
        width: 1,
        height: 1,
        stride_bytes: 1,
        matrix: YuvMatrix::Bt601,
        range: YuvRange::Full,
    };
    let (captured_at, captured_wall) = (Instant::now(), SystemTime::now());
    Frame { layout, data, sequence: 0, captured_at, captured_wall }
}

/// What a camera does at each call: whether a frame comes.
struct Told<'a> {
    calls: Box<dyn Iterator<Item = bool> + Send + 'a>,
    outlasts: bool,
    made: usize,
    spare: Vec<Vec<u8>>,
}

impl<'a> Told<'a> {
    fn new(outlasts: bool, calls: impl Iterator<Item = bool> + Send + 'a) -> Self {
        Self { calls: Box::new(calls), outlasts, made: 0, spare: Vec::new() }
    }
}

impl Camera for Told<'_> {
    fn next_frame(&mut self, timeout: Duration) -> Result<Frame, CameraError> {
        match self.calls.next() {
            Some(true) => Ok(frame(self.spare.pop().unwrap_or_else(|| {
                self.made += 1;
                vec![0]
            }))),
            Some(false) => {
                std::thread::sleep(timeout);
                Err(CameraError::Stalled { camera: "told".into(), waited_ms: 0 })
            }
            None => Err(CameraError::Lost { camera: "told".into(), why: "all said".into() }),
        }
    }

    fn describe(&self) -> String {
        "told".into()
    }

    fn counters(&self) -> CameraCounters {
        CameraCounters::default()
    }

    fn outlasts_stalls(&self) -> bool {
        self.outlasts
    }

    fn recycle(&mut self, frame: Frame) {
        self.spare.push(frame.data);
    }
}

/// How it ended, and what the sinks were told last.
fn streamed(shared: &Shared, source: CameraSource, camera: &mut dyn Camera) -> (String, String) {
    let config = CameraConfig { source, timeout_ms: 100, ..CameraConfig::default() };
    let beat = shared.health.stages.register("camera", STAGE_SILENCE, Instant::now());
    let end = stream(shared, &config, camera, &beat, &mut Backoff::default());
    let state = shared.camera.lock().unwrap().clone();
    (end.map_or("for good".into(), |why| why.to_string()), state.reason)
}

#[test]
fn a_stalled_camera_is_opened_again_unless_it_would_lose_its_place() {
    let calls = [true, false, false, true, true];
    let reopened = shared();
    let mut camera = Told::new(false, calls.into_iter());
    let (end, _) = streamed(&reopened, CameraSource::V4l2, &mut camera);
    assert_eq!(end, "told: no frame for 100 ms");
    assert_eq!(reopened.health.counters.camera_stalls.get(), 1);

    let shared = shared();
    let seen = Mutex::new(Vec::new());
    let look = |call: &bool| {
        seen.lock().unwrap().push(shared.camera.lock().unwrap().running);
        *call
    };
    let mut camera = Told::new(true, calls.iter().map(look));
    let (end, reason) = streamed(&shared, CameraSource::Pipe, &mut camera);
    drop(camera);
    assert_eq!(seen.into_inner().unwrap(), [false, true, false, false, true]);
    assert_eq!(end, "for good");
    assert_eq!(reason, "told: all said; it cannot be begun anew");
}

#[test]
fn the_first_frame_of_a_command_may_take_longer() {
    for (source, calls, expected) in [
        (CameraSource::Pipe, &[false, false, false, true][..], "for good"),
        (CameraSource::Pipe, &[true, false, false], "told: no frame for 100 ms"),
        (CameraSource::V4l2, &[false, false, true], "told: no frame for 100 ms"),
    ] {
        let mut camera = Told::new(false, calls.iter().copied());
        assert_eq!(streamed(&shared(), source, &mut camera).0, expected, "{calls:?}");
    }
}

#[test]
fn a_frame_that_nobody_took_is_filled_again() {
    let mut camera = Told::new(false, std::iter::repeat_n(true, 100));
    let shared = shared();
    streamed(&shared, CameraSource::Pipe, &mut camera);
    assert_eq!(shared.health.counters.frames_skipped.get(), 99);
    // One waits in the slot while the next is made.
    assert_eq!(camera.made, 2);
}

/// A sink with viewers, which says what it was told.
struct Shown {
    viewers: Arc<Viewers>,
    told: Sender<String>,
}

impl Sink for Shown {
    fn name(&self) -> &'static str {
        "shown"
    }
    fn publish(&mut self, _: &Published) -> Result<(), SinkError> {
        Ok(())
    }
    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError> {
        self.told.send(state.reason.clone()).unwrap();
        Ok(())
    }
    fn viewers(&self) -> Option<Arc<Viewers>> {
        Some(self.viewers.clone())
    }
    fn live(&mut self, picture: &LivePicture) -> Result<(), SinkError> {
        self.told.send(picture.sequence.to_string()).unwrap();
        Ok(())
    }
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
fn frames_are_decoded_between_heatmaps_only_where_somebody_looks() {
    let mut shared = shared();
    let beat = shared.health.stages.register("camera", STAGE_SILENCE, Instant::now());
    // 1000 pictures a second at most: the second frame below is never too early.
    let viewers = Arc::new(Viewers::new(1000.0, Instant::now()));
    let (told, _heard) = unbounded();
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(Shown { viewers: viewers.clone(), told })];
    shared.outlets = Arc::new(Outlets::start(sinks, &shared.health).unwrap());
    let live = |byte| {
        hand_on(&shared, frame(vec![byte]), false, &beat);
        match shared.live.take(Duration::ZERO) {
            Taken::Item(frame) => Some(frame.data[0]),
            _ => None,
        }
    };
    assert_eq!(live(1), None);
    viewers.join();
    assert_eq!(live(2), Some(2));
    viewers.leave();
    assert_eq!(live(3), None);
}

#[test]
fn a_slow_board_has_twenty_times_its_warm_up() {
    for (warm_ms, seconds) in [(0.0, 20), (1_000.0, 20), (2_500.0, 50)] {
        assert_eq!(patience(warm_ms), Duration::from_secs(seconds), "{warm_ms} ms");
    }
}

#[test]
fn a_reload_knows_how_hot_the_board_was() {
    let mut config = Config::default();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/model.onnx");
    config.model.path = Some(model.into());
    config.model.size = Some([32, 32]);
    config.tta.scales = vec![1.0];
    config.tta.thermal.sensor = Some("no such sensor".into());
    let [mut before, mut after] = [0; 2].map(|_| Ready::new(&config, None).unwrap());
    before.heat = heat(&mut before, &config.tta.thermal);
    assert!(before.heat.is_some() && after.heat.is_none());
    after.go_on_from(&before);
    assert!(after.heat.is_some_and(|heat| heat.goes_by(&config.tta.thermal)));
}

#[test]
fn a_heatmap_published_again_is_that_of_the_new_frame() {
    let view = ViewReport { scale: 1.0, hflip: false, weight: 1.0, spent_ms: 9.0, age_ms: 0.0 };
    let old = Instant::now() - Duration::from_secs(1);
    let last = Heatmap { spent_ms: 9.0, views: vec![view.clone()], ..Heatmap::of_one_cell(old) };
    let new = Frame { sequence: 7, ..frame(vec![0]) };
    let again = published_again(&last, &new, Duration::from_millis(250));
    assert_eq!((again.sequence, again.captured_at), (7, new.captured_at));
    assert_eq!((again.captured_wall, again.spent_ms), (new.captured_wall, 0.0));
    assert_eq!(again.views, [ViewReport { spent_ms: 0.0, age_ms: 250.0, ..view }]);
    assert_eq!(again.values, last.values);
}

#[test]
fn sinks_are_told_of_the_camera_and_viewers_get_its_pictures() {
    let viewers = Arc::new(Viewers::new(1.0, Instant::now()));
    let (told, heard) = unbounded();
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(Shown { viewers: viewers.clone(), told })];
    let outlets = Outlets::start(sinks, &Health::new(Instant::now())).unwrap();
    let next = || heard.recv_timeout(Duration::from_secs(100)).unwrap();
    let picture = Arc::new(Picture::new(1, 1));
    let live = |sequence| {
        let captured_at = Instant::now();
        outlets.live(&LivePicture { picture: picture.clone(), sequence, captured_at });
    };
    live(1);
    outlets.camera(&CameraState { running: false, reason: "gone".into() });
    assert_eq!(next(), "gone");
    viewers.join();
    live(2);
    assert_eq!(next(), "2");
}
