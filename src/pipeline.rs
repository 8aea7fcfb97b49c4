//! The daemon's threads: camera → worker → sinks, each a stage behind a slot that holds
//! only the newest. The only room that spawns stages, and the one that stops them.
//!
//! Every stage goes round its loop at least twice a second whether or not there is
//! something to do, and says so to its heartbeat; no stage waits for a later one.

mod heat;
mod ready;

pub use ready::Ready;

use crate::camera::{self, Backoff, Camera, CameraCounters, CameraError};
use crate::classes::ClassError;
use crate::config::{CameraConfig, CameraSource, Config, ThermalConfig};
use crate::explain::ExplainError;
use crate::frame::Frame;
use crate::health::{Counters, Health, Heartbeat, SinkCounters};
use crate::heatmap::zone::Zones;
use crate::heatmap::{Heatmap, ViewReport};
use crate::model::{Model, ModelError};
use crate::preprocess::decode::Decoder;
use crate::preprocess::geometry::{Geometry, GeometryError};
use crate::preprocess::lent::Lent;
use crate::preprocess::veil::Veil;
use crate::rules::Event;
use crate::sink::{CameraState, LivePicture, Published, Sink, Viewers};
use crate::slot::{Slot, Taken};
use heat::Heat;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a stage waits before it looks around.
const LOOK_AROUND: Duration = Duration::from_millis(250);
/// A stage that has not gone round in this time hangs.
const STAGE_SILENCE: Duration = Duration::from_secs(20);
/// Events that wait for a sink; then the oldest is dropped and counted.
const MAX_EVENTS: usize = 64;

/// Why the pipeline did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    #[error(transparent)]
    Rule(#[from] ClassError),
    #[error("cannot start the {stage} thread: {source}")]
    Thread { stage: &'static str, source: std::io::Error },
}

/// What a sink has not been told yet.
#[derive(Debug, Default)]
struct Mail {
    item: Option<Published>,
    camera: Option<CameraState>,
    /// Every one, as far as [`MAX_EVENTS`]: of these the newest does not say it all.
    events: VecDeque<Event>,
    live: Option<LivePicture>,
}

/// A sink on its thread.
struct Outlet {
    slot: Arc<Slot<Mail>>,
    counters: Arc<SinkCounters>,
    viewers: Option<Arc<Viewers>>,
    thread: JoinHandle<()>,
}

/// The sinks, each on its thread. They outlive a pipeline, so that a reload which leaves
/// them alone does not cut off their clients.
#[derive(Default)]
pub struct Outlets(Vec<Outlet>);

/// However they are let go of, no sink goes on showing what is long gone.
impl Drop for Outlets {
    fn drop(&mut self) {
        self.close();
    }
}

impl Outlets {
    /// Starts a thread for each sink. Sinks are open already.
    pub fn start(sinks: Vec<Box<dyn Sink>>, health: &Health) -> Result<Self, StartError> {
        let mut outlets = Self::default();
        for sink in sinks {
            outlets.0.push(outlet(sink, health)?);
        }
        Ok(outlets)
    }

    fn publish(&self, item: &Published) {
        for outlet in &self.0 {
            outlet.slot.put(|old| {
                let old = old.unwrap_or_default();
                outlet.counters.dropped.add(old.item.is_some() as u64);
                Mail { item: Some(item.clone()), ..old }
            });
        }
    }

    /// As [`Outlets::publish`], but waits until every sink has taken what it had, for as
    /// long as `patient` says so.
    fn publish_in_turn(&self, item: &Published, mut patient: impl FnMut() -> bool) {
        for outlet in &self.0 {
            let mut mail = Mail { item: Some(item.clone()), ..Mail::default() };
            while let Err(back) = outlet.slot.put_when_empty(mail, LOOK_AROUND) {
                if !patient() {
                    outlet.counters.dropped.add(1);
                    break;
                }
                mail = back;
            }
        }
    }

    fn tell(&self, events: Vec<Event>) {
        for event in events {
            log::info!("{event}");
            self.event(&event);
        }
    }

    fn event(&self, event: &Event) {
        for outlet in &self.0 {
            outlet.slot.put(|old| {
                let mut mail = old.unwrap_or_default();
                if mail.events.len() >= MAX_EVENTS {
                    mail.events.pop_front();
                    outlet.counters.dropped.add(1);
                }
                mail.events.push_back(event.clone());
                mail
            });
        }
    }

    fn camera(&self, state: &CameraState) {
        for outlet in &self.0 {
            outlet.slot.put(|old| Mail { camera: Some(state.clone()), ..old.unwrap_or_default() });
        }
    }

    /// Whether somebody looks at pictures between heatmaps, and one is due.
    fn want_live(&self, now: Instant) -> bool {
        // Each has to be asked: it keeps its own time.
        self.0.iter().filter_map(|o| o.viewers.as_ref()).filter(|v| v.are_due(now)).count() > 0
    }

    fn live(&self, picture: &LivePicture) {
        for outlet in self.0.iter().filter(|o| o.viewers.as_ref().is_some_and(|v| v.count() > 0)) {
            let live = Some(picture.clone());
            outlet.slot.put(|old| Mail { live, ..old.unwrap_or_default() });
        }
    }

    /// Tells every sink to send out what it has accepted, and to end.
    fn close(&self) {
        self.0.iter().for_each(|outlet| outlet.slot.close());
    }

    /// Lets every sink send out what it has accepted. Names those that did not end by
    /// `deadline`: what they were at is lost, what they have finished is not. A stage that is
    /// late may still hold on to the outlets; it reaches no sink through them any more.
    pub fn finish(&self, deadline: Instant) -> Vec<String> {
        self.close();
        let threads = self.0.iter().map(|outlet| &outlet.thread);
        threads.filter(|thread| !ends(thread, deadline)).map(name_of).collect()
    }
}

/// What the stages share.
struct Shared {
    health: Arc<Health>,
    stop: AtomicBool,
    frames: Slot<Arc<Frame>>,
    /// For those who look between heatmaps.
    live: Slot<Arc<Frame>>,
    /// On its way back to the camera.
    spent: Slot<Frame>,
    outlets: Arc<Outlets>,
    camera: Mutex<CameraState>,
    description: Mutex<String>,
    /// The source came to its end, and the last frame has been published.
    finished: AtomicBool,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells sinks and log, once per change.
    fn camera_state(&self, state: CameraState) {
        let mut now = self.camera.lock().unwrap_or_else(|e| e.into_inner());
        // A stage that ends late has nothing to tell the sinks of its successor.
        if *now == state || self.stopping() {
            return;
        }
        match state.running {
            true => log::info!("camera: {}", self.describe()),
            false => log::warn!("camera away: {}", state.reason),
        }
        self.outlets.camera(&state);
        *now = state;
    }

    fn describe(&self) -> String {
        self.description.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The camera may fill it again, once nobody else looks at it.
    fn give_back(&self, frame: Arc<Frame>) {
        if let Some(frame) = Arc::into_inner(frame) {
            self.spent.put(|_| frame);
        }
    }
}

/// A running pipeline.
pub struct Pipeline {
    shared: Arc<Shared>,
    model: Arc<Model>,
    infer: JoinHandle<Ready>,
    stages: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// Starts camera and worker.
    pub fn start(
        config: &Config,
        mut ready: Ready,
        outlets: Arc<Outlets>,
        health: Arc<Health>,
    ) -> Result<Pipeline, StartError> {
        let model = ready.model.clone();
        model.cancel(false);
        let shared = Arc::new(Shared {
            health,
            stop: AtomicBool::new(false),
            frames: Slot::default(),
            live: Slot::default(),
            spent: Slot::default(),
            outlets,
            camera: Mutex::new(CameraState { running: false, reason: "starting".into() }),
            description: Mutex::default(),
            finished: AtomicBool::new(false),
        });
        let heat = heat(&mut ready, &config.tta.thermal);
        let patience = patience(ready.warm_ms);
        let worker = Worker {
            shared: shared.clone(),
            ready,
            geometry: Geometry::new(&config.geometry)?,
            decoder: Decoder::new(),
            veil: Veil::new(config.privacy.pictures),
            lent: Lent::default(),
            inferred: None,
            heat,
            zones: Zones::new(&config.zones),
            interruptions: 0,
            waits: waits(&config.camera),
        };
        let beat = shared.health.stages.register("infer", patience, Instant::now());
        let camera = config.camera.clone();
        let camera_beat = shared.health.stages.register(
            "camera",
            STAGE_SILENCE + Duration::from_millis(config.camera.timeout_ms),
            Instant::now(),
        );
        let live_beat = shared.health.stages.register("live", STAGE_SILENCE, Instant::now());
        let live_geometry = Geometry::new(&config.geometry)?;
        let live_veil = Veil::new(config.privacy.pictures);
        let (for_camera, for_live) = (shared.clone(), shared.clone());
        let infer = spawn("infer", move || worker.run(beat))?;
        let stages = vec![
            spawn("live", move || show_live(&for_live, live_geometry, live_veil, live_beat))?,
            spawn("camera", move || watch_camera(&for_camera, &camera, camera_beat))?,
        ];
        Ok(Pipeline { shared, model, infer, stages })
    }

    /// The source came to its end and everything is published.
    pub fn is_finished(&self) -> bool {
        self.shared.finished.load(Ordering::Relaxed)
    }

    /// A stage or sink whose thread has ended although nobody stopped it: it has panicked, and
    /// the rest would go on without it, to no purpose.
    pub fn dead(&self) -> Option<&str> {
        let outlets = self.shared.outlets.0.iter().map(|outlet| &outlet.thread);
        // In this order: it says that it has finished, then it ends.
        let infer = (self.infer.is_finished() && !self.is_finished()).then_some("infer");
        // The camera's thread ends by itself with its source, and the others after it.
        let ended = |thread: &JoinHandle<()>| thread.is_finished();
        let stage = self.stages.iter().find(|s| ended(s) && !self.shared.frames.is_closed());
        let threads = stage.into_iter().chain(outlets.filter(|t| ended(t)));
        infer.or_else(|| threads.filter_map(|thread| thread.thread().name()).next())
    }

    /// One line on the camera, for `systemctl status`.
    pub fn status(&self) -> String {
        let camera = self.shared.camera.lock().unwrap_or_else(|e| e.into_inner()).clone();
        let maps = self.shared.health.counters.heatmaps.get();
        match camera.running {
            true => format!("{}; {maps} heatmaps", self.shared.describe()),
            false => format!("camera away: {}; {maps} heatmaps", camera.reason),
        }
    }

    /// Stops camera and inference; a pass in progress is abandoned. The pipeline lets go of
    /// its sinks and gives its model back. The error names a stage that did not end by
    /// `deadline`.
    pub fn stop(self, deadline: Instant) -> Result<Ready, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.frames.close();
        self.shared.live.close();
        self.model.cancel(true);
        let ended: Vec<_> = self.stages.into_iter().map(|stage| join(stage, deadline)).collect();
        let ready = join(self.infer, deadline)?;
        ended.into_iter().collect::<Result<(), String>>().map(|()| ready)
    }
}

/// Joins a thread; its name where it does not end by `deadline`, or has panicked.
fn join<T>(thread: JoinHandle<T>, deadline: Instant) -> Result<T, String> {
    let name = name_of(&thread);
    if ends(&thread, deadline) { thread.join().map_err(|_| name) } else { Err(name) }
}

/// Waits for the end of a thread; false: it goes on after `deadline`.
fn ends<T>(thread: &JoinHandle<T>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

fn name_of<T>(thread: &JoinHandle<T>) -> String {
    thread.thread().name().unwrap_or("?").into()
}

fn spawn<T: Send + 'static>(
    stage: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    std::thread::Builder::new()
        .name(stage.into())
        .spawn(run)
        .map_err(|source| StartError::Thread { stage, source })
}

fn outlet(mut sink: Box<dyn Sink>, health: &Health) -> Result<Outlet, StartError> {
    let name = sink.name();
    let viewers = sink.viewers();
    let slot: Arc<Slot<Mail>> = Arc::default();
    let counters = health.counters.sink(name);
    health.counters.watch(name, sink.metrics());
    let beat = health.stages.register(name, STAGE_SILENCE, Instant::now());
    let (mail, own) = (slot.clone(), counters.clone());
    let thread = spawn(name, move || {
        // A full disk is worth one line, not one a frame.
        let mut failing = String::new();
        let mut report = |result: Result<(), crate::sink::SinkError>| match result {
            Ok(()) if failing.is_empty() => {}
            Ok(()) => {
                log::info!("{name}: works again");
                failing.clear();
            }
            Err(error) => {
                own.failed.add(1);
                let error = error.to_string();
                if failing != error {
                    log::warn!("{name}: {error}");
                    failing = error;
                }
            }
        };
        loop {
            beat.beat(Instant::now());
            match mail.take(LOOK_AROUND) {
                Taken::Item(Mail { item, camera, live, events }) => {
                    if let Some(state) = camera {
                        report(sink.camera(&state));
                    }
                    if let Some(item) = item {
                        let result = sink.publish(&item);
                        own.published.add(result.is_ok() as u64);
                        report(result);
                    }
                    for event in events {
                        report(sink.event(&event));
                    }
                    if let Some(picture) = live {
                        report(sink.live(&picture));
                    }
                }
                Taken::Nothing => sink.idle(),
                Taken::Closed => break,
            }
        }
        report(sink.finish());
        beat.retire();
    })?;
    Ok(Outlet { slot, counters, viewers, thread })
}

/// The camera's loop: opens it, hands on its frames, opens it again when it is lost.
fn watch_camera(shared: &Shared, config: &CameraConfig, beat: Heartbeat) {
    let mut backoff = Backoff::default();
    let counters = &shared.health.counters;
    // Told once, however often the camera comes back.
    let mut differences = Vec::new();
    while !shared.stopping() {
        beat.beat(Instant::now());
        let why = match camera::open(config) {
            Ok(mut camera) => {
                if camera.differences() != differences {
                    differences = camera.differences().to_vec();
                    differences.iter().for_each(|difference| log::warn!("{difference}"));
                }
                *shared.description.lock().unwrap_or_else(|e| e.into_inner()) = camera.describe();
                match stream(shared, config, camera.as_mut(), &beat, &mut backoff) {
                    Some(why) => why,
                    None => break,
                }
            }
            Err(why) => why,
        };
        if shared.stopping() {
            break;
        }
        shared.camera_state(CameraState { running: false, reason: why.to_string() });
        let wait = match why {
            CameraError::Unusable { .. } => Backoff::LAST,
            _ => backoff.wait(),
        };
        let until = Instant::now() + wait;
        while Instant::now() < until && !shared.stopping() {
            beat.beat(Instant::now());
            std::thread::sleep(LOOK_AROUND.min(until.saturating_duration_since(Instant::now())));
        }
        counters.camera_reopens.add(1);
    }
    shared.frames.close();
    beat.retire();
}

/// Hands on frames until the camera is lost (why), or for good (None).
fn stream(
    shared: &Shared,
    config: &CameraConfig,
    camera: &mut dyn Camera,
    beat: &Heartbeat,
    backoff: &mut Backoff,
) -> Option<CameraError> {
    let timeout = Duration::from_millis(config.timeout_ms);
    let waits = waits(config);
    let mut seen = CameraCounters::default();
    let mut last = Instant::now();
    let mut patience = first_timeout(config);
    while !shared.stopping() {
        beat.beat(Instant::now());
        if let Taken::Item(frame) = shared.spent.take(Duration::ZERO) {
            camera.recycle(frame);
        }
        let next = camera.next_frame(LOOK_AROUND.min(timeout));
        take_up(&shared.health.counters, camera.counters(), &mut seen);
        match next {
            Ok(frame) => {
                backoff.reset();
                shared.camera_state(CameraState { running: true, reason: String::new() });
                hand_on(shared, frame, waits, beat);
                (last, patience) = (Instant::now(), timeout);
            }
            Err(CameraError::Stalled { .. }) if last.elapsed() < patience => {}
            Err(CameraError::Stalled { camera: name, .. }) => {
                shared.health.counters.camera_stalls.add(1);
                // The camera knows of its last wait alone.
                let waited_ms = patience.as_millis();
                let stalled = CameraError::Stalled { camera: name, waited_ms };
                if !camera.outlasts_stalls() {
                    return Some(stalled);
                }
                shared.camera_state(CameraState { running: false, reason: stalled.to_string() });
                last = Instant::now();
            }
            Err(CameraError::End(source)) => {
                log::info!("{source}: end of input");
                return None;
            }
            Err(lost @ CameraError::Lost { .. }) => {
                shared.camera_state(CameraState { running: false, reason: lost.to_string() });
                return None;
            }
            Err(gone) => return Some(gone),
        }
    }
    None
}

/// How long the first frame may take. A command that dials a network camera waits for its
/// answer and then for its next whole picture.
fn first_timeout(config: &CameraConfig) -> Duration {
    let timeout = Duration::from_millis(config.timeout_ms);
    match config.source {
        CameraSource::Pipe => timeout.max(Duration::from_secs(10)),
        _ => timeout,
    }
}

/// How long inference may take over a frame before it hangs, by what one took to warm up: one may
/// cost many times that on a busy board.
fn patience(warm_ms: f64) -> Duration {
    STAGE_SILENCE.max(Duration::from_secs_f64(warm_ms / 1e3 * 20.0))
}

/// Whether each stage waits for the next one: pictures from files do not come again, so
/// none is skipped and none goes without its files.
fn waits(config: &CameraConfig) -> bool {
    config.source == CameraSource::Files
}

fn hand_on(shared: &Shared, frame: Frame, waits: bool, beat: &Heartbeat) {
    let frame = Arc::new(frame);
    if shared.outlets.want_live(Instant::now()) {
        shared.live.put(|_| frame.clone());
    }
    if !waits {
        let mut skipped = None;
        shared.frames.put(|old| {
            skipped = old;
            frame
        });
        shared.health.counters.frames_skipped.add(skipped.is_some() as u64);
        return skipped.into_iter().for_each(|frame| shared.give_back(frame));
    }
    let mut frame = frame;
    while let Err(back) = shared.frames.put_when_empty(frame, LOOK_AROUND) {
        beat.beat(Instant::now());
        if shared.stopping() {
            return;
        }
        frame = back;
    }
}

/// Adds to the daemon's counts what the camera has counted since `seen`. A camera's counts
/// start at zero when it is opened, the daemon's do not.
fn take_up(counters: &Counters, now: CameraCounters, seen: &mut CameraCounters) {
    counters.frames.add(now.frames - seen.frames);
    counters.frames_skipped.add(now.skipped - seen.skipped);
    counters.frames_lost.add(now.lost - seen.lost);
    counters.frames_bad.add(now.bad - seen.bad);
    *seen = now;
}

/// The live stage: a frame that somebody wants to see in, what may be seen of it out.
fn show_live(shared: &Shared, mut geometry: Geometry, mut veil: Veil, beat: Heartbeat) {
    let mut decoder = Decoder::new();
    let mut lent = Lent::default();
    loop {
        beat.beat(Instant::now());
        let frame = match shared.live.take(LOOK_AROUND) {
            Taken::Item(frame) => frame,
            Taken::Nothing => continue,
            Taken::Closed => break,
        };
        // The worker sees the same frames and counts the bad ones.
        let Ok(picture) = decoder.decode(&frame) else { continue };
        let picture = Arc::new(geometry.upright(picture));
        let (sequence, captured_at) = (frame.sequence, frame.captured_at);
        let shown = veil.shown(&picture);
        shared.outlets.live(&LivePicture { picture: shown, sequence, captured_at });
        shared.give_back(frame);
        lent.lend(picture);
        while let Some(free) = lent.take_free() {
            decoder.recycle(free);
        }
    }
    beat.retire();
}

/// The worker: a frame in, a heatmap out.
struct Worker {
    shared: Arc<Shared>,
    ready: Ready,
    geometry: Geometry,
    decoder: Decoder,
    /// Nothing but what it shows goes to a sink.
    veil: Veil,
    lent: Lent,
    /// Inferred last: what a frame gets that has not changed.
    inferred: Option<Arc<Heatmap>>,
    heat: Option<Heat>,
    zones: Zones,
    /// How often the camera had stalled or been opened again when the last frame came.
    interruptions: u64,
    /// See [`waits`].
    waits: bool,
}

/// Why a frame became no heatmap.
#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("frame dropped: {0}")]
    Decode(#[from] crate::preprocess::decode::DecodeError),
    #[error("frame dropped: {0}")]
    Geometry(#[from] GeometryError),
    #[error("{0}")]
    Explain(#[from] ExplainError),
}

impl Worker {
    /// Gives the model back at the end.
    fn run(mut self, beat: Heartbeat) -> Ready {
        let mut told = String::new();
        loop {
            beat.beat(Instant::now());
            match self.shared.frames.take(LOOK_AROUND) {
                Taken::Item(frame) => match self.use_up(frame, &beat) {
                    Ok(()) => told.clear(),
                    Err(FrameError::Explain(ExplainError::Model(ModelError::Cancelled))) => {}
                    Err(error) => {
                        let counters = &self.shared.health.counters;
                        match error {
                            FrameError::Explain(_) => counters.inferences_failed.add(1),
                            _ => counters.frames_bad.add(1),
                        }
                        let error = error.to_string();
                        if told != error {
                            log::warn!("{error}");
                            told = error;
                        }
                    }
                },
                Taken::Nothing => {}
                Taken::Closed => break,
            }
            if self.shared.stopping() {
                break;
            }
        }
        self.shared.outlets.tell(self.ready.rules.end());
        self.shared.finished.store(true, Ordering::Relaxed);
        beat.retire();
        self.ready.explainer.clear();
        self.ready.heat = self.heat;
        self.ready
    }

    fn use_up(&mut self, frame: Arc<Frame>, beat: &Heartbeat) -> Result<(), FrameError> {
        let done = self.process(&frame, beat);
        self.shared.give_back(frame);
        done
    }

    fn process(&mut self, frame: &Frame, beat: &Heartbeat) -> Result<(), FrameError> {
        let picture = self.decoder.decode(frame)?;
        let picture = Arc::new(self.geometry.upright(picture));
        let (placement, base) = self.geometry.fit(&picture, self.ready.explainer.size())?;
        let moved = |last: &Arc<Heatmap>| {
            (last.picture, last.covers) != (placement.picture, placement.covers)
        };
        if self.inferred.as_ref().is_some_and(moved) {
            self.ready.explainer.clear();
        }
        let counters = &self.shared.health.counters;
        let heatmap = match self.ready.explainer.unchanged(base).zip(self.inferred.as_ref()) {
            Some((age, last)) => {
                counters.heatmaps_republished.add(1);
                Arc::new(published_again(last, frame, age))
            }
            None => {
                let heat = self.heat.as_mut().map(|heat| heat.update(Instant::now()));
                self.ready.explainer.set_heat(heat.unwrap_or(1.0));
                let explained = self.ready.explainer.explain(base)?;
                let is_late = explained.outcome.is_some_and(|outcome| outcome.is_late());
                counters.heatmaps_late.add(is_late.into());
                let mut heatmap = explained.into_heatmap(&placement, frame.moment());
                heatmap.zones = self.zones.shares(&heatmap);
                heatmap.heat_factor = heat;
                let heatmap = Arc::new(heatmap);
                self.inferred = Some(heatmap.clone());
                heatmap
            }
        };
        count(counters, &heatmap);
        let interruptions = counters.camera_reopens.get() + counters.camera_stalls.get();
        if std::mem::replace(&mut self.interruptions, interruptions) != interruptions {
            self.ready.rules.interrupted();
        }
        let events = self.ready.rules.judge(&heatmap);
        let item = Published { picture: self.veil.shown(&picture), heatmap };
        if self.waits {
            self.shared.outlets.publish_in_turn(&item, || {
                beat.beat(Instant::now());
                !self.shared.stopping()
            });
        } else {
            self.shared.outlets.publish(&item);
        }
        self.shared.outlets.tell(events);
        drop(item);
        // The heatmap is out: now there is time to find out what further views cost.
        beat.beat(Instant::now());
        self.ready.explainer.calibrate(base)?;
        self.lent.lend(picture);
        while let Some(free) = self.lent.take_free() {
            self.decoder.recycle(free);
        }
        Ok(())
    }
}

/// The board's heat as it was known before, unless that is watched otherwise now.
fn heat(ready: &mut Ready, config: &ThermalConfig) -> Option<Heat> {
    let known = ready.heat.take().filter(|heat| heat.goes_by(config));
    known.or_else(|| Heat::new(config, Path::new("/sys"), Instant::now()))
}

/// Tells the metrics of a heatmap about to be published.
fn count(counters: &Counters, heatmap: &Heatmap) {
    let is_kept = |view: &&ViewReport| view.age_ms > 0.0;
    let kept = heatmap.views.iter().filter(is_kept).count();
    counters.heatmaps.add(1);
    counters.views_kept.add(kept as u64);
    counters.views_run.add((heatmap.views.len() - kept) as u64);
}

/// The heatmap of a frame that looks like the one inferred `age` ago.
fn published_again(last: &Heatmap, frame: &Frame, age: Duration) -> Heatmap {
    let mut heatmap = Heatmap {
        sequence: frame.sequence,
        captured_at: frame.captured_at,
        captured_wall: frame.captured_wall,
        spent_ms: 0.0,
        ..last.clone()
    };
    for view in &mut heatmap.views {
        view.spent_ms = 0.0;
        view.age_ms += age.as_secs_f64() * 1e3;
    }
    heatmap
}

#[cfg(test)]
mod tests;
