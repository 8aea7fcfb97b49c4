//! `salientd run`: the daemon. Signals and service manager in, a pipeline kept running.

use super::args::RunArgs;
use super::logging;
use crate::classes::index_of;
use crate::config::{self, Config, FileMarks, SocketConfig};
use crate::health::{Health, Notifier, Verdict, Watchdog};
use crate::model::Model;
use crate::pipeline::{Outlets, Pipeline, Ready, StartError};
use crate::sink::http::{About, HttpSink};
use crate::sink::inherited::{HandedDown, Inherited};
use crate::sink::{
    Sink, SinkError, command::CommandSink, files::FileSink, mean::MeanSink, socket::SocketSink,
    v4l2::V4l2Sink, wire::ModelEntry,
};
use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError, after, bounded, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// From the signal to the exit, sinks flushed.
const STOP_WITHIN: Duration = Duration::from_millis(1_900);
/// Of these, camera and inference.
const STAGES_WITHIN: Duration = Duration::from_millis(1_200);
/// After the source's end nobody waits for us, and no heatmap is to be lost; less than the
/// WatchdogSec= of the unit, which goes on.
const FLUSH_WITHIN: Duration = Duration::from_secs(20);
/// Between two status lines for the service manager.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// A model that is not ready by then never will be.
const LOAD_WITHIN: Duration = Duration::from_secs(600);
/// How much more time for the start to ask the service manager for, every now and then.
const EXTENSION: Duration = Duration::from_secs(30);
const EXTEND_EVERY: Duration = Duration::from_secs(5);

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    logging::init(&config.log.level);
    serve(config, Some(&args.config))
}

/// Runs the daemon until a signal or the end of its source. SIGHUP reloads `path`.
pub fn serve(config: Config, path: Option<&Path>) -> anyhow::Result<()> {
    let inherited = Inherited::take()?;
    let signals = signals()?;
    let Some(mut daemon) = Daemon::start(config, inherited, &signals)? else {
        log::info!("stopped before the model was ready");
        return Ok(());
    };
    daemon.tell(Notifier::ready);
    // Whatever ended it: what the sinks have accepted is to come out.
    let watched = daemon.watch(&signals, path);
    watched.and(daemon.stop())
}

/// Signals as messages. At most a few wait; a storm of SIGHUP is one reload at a time.
fn signals() -> anyhow::Result<Receiver<i32>> {
    let (send, receive) = bounded(4);
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])
        .context("cannot listen for signals")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                match signal {
                    // Full: what waits already asks for a reload, or for the end.
                    SIGHUP => drop(send.try_send(signal)),
                    // Whoever asks for the end is heard, however many reloads wait.
                    _ => drop(send.send(signal)),
                }
            }
        })
        .context("cannot start the signals thread")?;
    Ok(receive)
}

/// A configuration, and what the files that it names looked like when it was read.
#[derive(PartialEq)]
struct Settings {
    config: Config,
    model_files: FileMarks,
    sink_files: FileMarks,
}

impl Settings {
    fn of(config: Config) -> Self {
        let model_files = FileMarks::of_model(&config);
        Self { model_files, sink_files: FileMarks::of_sinks(&config), config }
    }

    /// Whether both have the same model.
    fn same_model(&self, other: &Self) -> bool {
        self.config.model == other.config.model && self.model_files == other.model_files
    }

    /// Whether sinks opened for one serve the other as well, with the same model.
    fn same_sinks(&self, other: &Self) -> bool {
        let (a, b) = (&self.config, &other.config);
        a.sink == b.sink
            && self.sink_files == other.sink_files
            && a.overlay == b.overlay
            // They keep pictures: the newest, and a clip's.
            && a.privacy == b.privacy
            && a.zones == b.zones
            && a.rules == b.rules
            && a.mean == b.mean
    }
}

/// What a reload exchanges.
struct Taken {
    settings: Settings,
    model: Arc<Model>,
}

/// A reload that waits for its model.
struct Reload {
    settings: Settings,
    outcome: Receiver<Result<Ready, StartError>>,
    began: Instant,
}

/// The running daemon.
struct Daemon {
    taken: Taken,
    outlets: Arc<Outlets>,
    /// None only while one is exchanged for another.
    pipeline: Option<Pipeline>,
    /// A reload is to begin as soon as none is under way.
    reload_asked: bool,
    reload: Option<Reload>,
    health: Arc<Health>,
    outside: Outside,
    notifier: Notifier,
    watchdog: Option<Watchdog>,
}

/// What sinks are opened with besides their configuration; the same through all reloads.
struct Outside {
    inherited: Inherited,
    health: Arc<Health>,
    /// The effective configuration for people who ask a sink for it.
    shown: Arc<Mutex<String>>,
    started: Instant,
}

impl Daemon {
    /// None: told to stop before the model was ready.
    fn start(
        config: Config,
        inherited: Inherited,
        signals: &Receiver<i32>,
    ) -> anyhow::Result<Option<Self>> {
        let started = Instant::now();
        let health = Arc::new(Health::new(started));
        let outside = Outside { inherited, health: health.clone(), shown: Arc::default(), started };
        let notifier = Notifier::from_env().context("NOTIFY_SOCKET")?;
        let settings = Settings::of(config);
        let config = &settings.config;
        let Some((ready, reload_asked)) = first_ready(config, &notifier, signals)? else {
            tell(&notifier, Notifier::stopping);
            return Ok(None);
        };
        let model = ready.model().clone();
        outside.show(config);
        let outlets = Arc::new(Outlets::start(sinks(config, &model, &outside)?, &health)?);
        let pipeline = Pipeline::start(config, ready, outlets.clone(), health.clone())?;
        let watchdog = notifier.watchdog_timeout().map(|t| Watchdog::new(t, Instant::now()));
        Ok(Some(Self {
            taken: Taken { settings, model },
            outlets,
            pipeline: Some(pipeline),
            reload_asked,
            reload: None,
            health,
            outside,
            notifier,
            watchdog,
        }))
    }

    /// Until a signal to stop, or the end of a finite source.
    fn watch(&mut self, signals: &Receiver<i32>, path: Option<&Path>) -> anyhow::Result<()> {
        let mut status_due = Instant::now();
        loop {
            let pipeline = self.pipeline.as_ref().context("nothing is left to go on with")?;
            if pipeline.is_finished() {
                return Ok(());
            }
            if let Some(stage) = pipeline.dead() {
                anyhow::bail!("the {stage} thread has died: a bug; its panic stands above");
            }
            let now = Instant::now();
            if now >= status_due {
                let status = pipeline.status();
                self.tell(|n| n.status(&status));
                status_due = now + STATUS_EVERY;
            }
            self.feed_watchdog(now);
            if let Some(path) = path {
                // What is asked for during a reload may be about later changes: once more.
                if self.reload_asked && self.reload.is_none() {
                    self.reload_asked = false;
                    self.begin_reload(path);
                }
                self.go_on_with_reload(path);
            }
            let due = self.watchdog.as_ref().map_or(status_due, |w| w.due().min(status_due));
            let longest = if self.reload.is_some() { 50 } else { 500 };
            let wait = due.saturating_duration_since(now).min(Duration::from_millis(longest));
            match signals.recv_timeout(wait) {
                Ok(SIGHUP) => self.reload_asked = true,
                Ok(_) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn feed_watchdog(&mut self, now: Instant) {
        let Some(watchdog) = &mut self.watchdog else { return };
        match watchdog.check(&self.health.stages, now) {
            Verdict::Wait => {}
            Verdict::Ping => self.tell(Notifier::watchdog),
            Verdict::Hang { first, stages } => {
                if first {
                    for stage in stages {
                        log::error!("{stage}");
                    }
                }
            }
        }
    }

    /// Reads the configuration file as it is now. The old pipeline goes on while the new
    /// model is made ready.
    fn begin_reload(&mut self, path: &Path) {
        self.tell(Notifier::reloading);
        match self.prepare(path) {
            Ok(Some(reload)) => self.reload = Some(reload),
            Ok(None) => self.end_reload(path, Ok(())),
            Err(error) => self.end_reload(path, Err(error)),
        }
    }

    /// None: nothing has changed, neither settings nor the files that they name.
    fn prepare(&self, path: &Path) -> anyhow::Result<Option<Reload>> {
        let settings = Settings::of(config::load(path)?);
        if settings == self.taken.settings {
            return Ok(None);
        }
        let same = settings.same_model(&self.taken.settings);
        let model = same.then(|| self.taken.model.clone());
        let outcome = Ready::in_background(&settings.config, model)?;
        Ok(Some(Reload { settings, outcome, began: Instant::now() }))
    }

    /// Takes up the reload's model if it is ready, or keeps what runs and says why.
    fn go_on_with_reload(&mut self, path: &Path) {
        let Some(reload) = &self.reload else { return };
        let outcome = match reload.outcome.try_recv() {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(TryRecvError::Empty) if reload.began.elapsed() < LOAD_WITHIN => return,
            Err(TryRecvError::Empty) => Err(too_slow()),
            Err(TryRecvError::Disconnected) => Err(died()),
        };
        let Some(Reload { settings, .. }) = self.reload.take() else { return };
        let done = outcome.and_then(|ready| self.take_up(settings, ready));
        self.end_reload(path, done);
    }

    fn end_reload(&mut self, path: &Path, done: anyhow::Result<()>) {
        let counters = &self.health.counters;
        match done {
            Ok(()) => {
                counters.reloads.add(1);
                log::info!("took up {}", path.display());
            }
            Err(error) => {
                counters.reloads_refused.add(1);
                for line in super::told(&error).lines() {
                    log::warn!("{line}");
                }
                log::warn!("the old configuration stays");
            }
        }
        self.tell(Notifier::ready);
    }

    /// Exchanges what runs for what is ready; puts the old back where the new sinks cannot
    /// be opened.
    fn take_up(&mut self, settings: Settings, mut ready: Ready) -> anyhow::Result<()> {
        logging::set_level(&settings.config.log.level);
        let sinks_stay = settings.same_sinks(&self.taken.settings)
            && Arc::ptr_eq(ready.model(), &self.taken.model);
        let stopped = self.pipeline.take().map(|p| p.stop(Instant::now() + STOP_WITHIN));
        let before = match stopped.transpose() {
            Ok(before) => before,
            Err(stage) => {
                log::warn!("{stage} did not end in time");
                None
            }
        };
        if let Some(before) = &before {
            ready.go_on_from(before);
        }
        let taken = Taken { settings, model: ready.model().clone() };
        let old = std::mem::replace(&mut self.taken, taken);
        let Err(error) = self.run(ready, sinks_stay) else { return Ok(()) };
        self.taken = old;
        let Some(before) = before else {
            return Err(error.context("the old pipeline is gone, and the new one does not start"));
        };
        logging::set_level(&self.taken.settings.config.log.level);
        self.run(before, false).context("the old configuration does not work any more either")?;
        Err(error)
    }

    /// Runs what `self.taken` says, with new sinks unless they stay.
    fn run(&mut self, ready: Ready, sinks_stay: bool) -> anyhow::Result<()> {
        let Taken { settings: Settings { config, .. }, model } = &self.taken;
        self.outside.show(config);
        if !sinks_stay {
            tell_late(&self.outlets.finish(Instant::now() + STOP_WITHIN));
            let sinks = sinks(config, model, &self.outside)?;
            self.outlets = Arc::new(Outlets::start(sinks, &self.health)?);
        }
        let (outlets, health) = (self.outlets.clone(), self.health.clone());
        self.pipeline = Some(Pipeline::start(config, ready, outlets, health)?);
        Ok(())
    }

    fn stop(self) -> anyhow::Result<()> {
        let finished = self.pipeline.as_ref().is_some_and(Pipeline::is_finished);
        let within = if finished { FLUSH_WITHIN } else { STOP_WITHIN };
        self.tell(Notifier::stopping);
        // From here on nobody answers the service manager.
        self.tell(Notifier::watchdog);
        self.tell(|n| n.extend(within + EXTENSION));
        let Self { pipeline, outlets, health, .. } = self;
        let deadline = Instant::now() + within;
        // A stage that hangs leaves the sinks their part of the time.
        let stopped = pipeline
            .map_or(Ok(()), |pipeline| pipeline.stop(Instant::now() + STAGES_WITHIN).map(drop));
        tell_late(&outlets.finish(deadline));
        log::info!("stopped after {} heatmaps", health.counters.heatmaps.get());
        stopped.map_err(|stage| anyhow::anyhow!("{stage} did not end within {within:?}"))
    }

    fn tell(&self, what: impl FnOnce(&Notifier) -> std::io::Result<()>) {
        tell(&self.notifier, what);
    }
}

/// Waits for the first model, for as long as the service manager has to be asked to, and says
/// whether a reload was asked for meanwhile. None: told to stop.
fn first_ready(
    config: &Config,
    notifier: &Notifier,
    signals: &Receiver<i32>,
) -> anyhow::Result<Option<(Ready, bool)>> {
    let outcome = Ready::in_background(config, None)?;
    let mut reload_asked = false;
    let deadline = Instant::now() + LOAD_WITHIN;
    tell(notifier, |n| n.status("making the model ready"));
    while Instant::now() < deadline {
        tell(notifier, |n| n.extend(EXTENSION));
        let again = after(EXTEND_EVERY);
        loop {
            select! {
                recv(outcome) -> outcome => {
                    return Ok(Some((outcome.map_err(|_| died())??, reload_asked)));
                }
                recv(signals) -> signal => match signal {
                    // The model may take minutes, and the file may be another by now.
                    Ok(SIGHUP) => reload_asked = true,
                    _ => return Ok(None),
                },
                recv(again) -> _ => break,
            }
        }
    }
    Err(too_slow())
}

fn too_slow() -> anyhow::Error {
    anyhow::anyhow!(
        "the model is not ready after {LOAD_WITHIN:?}: make model.size smaller, or list fewer \
         tta.scales"
    )
}

fn died() -> anyhow::Error {
    anyhow::anyhow!("the thread that makes the model ready has died: a bug; its panic stands above")
}

/// A sink that is late loses what it was at, and what it has finished is whole: worth a
/// warning, but nothing that failed.
fn tell_late(sinks: &[String]) {
    for sink in sinks {
        log::warn!("{sink}: did not end in time; what it was at is left out");
    }
}

/// To the service manager, where there is one. It may be gone; we go on without.
fn tell(notifier: &Notifier, what: impl FnOnce(&Notifier) -> std::io::Result<()>) {
    if let Err(error) = what(notifier) {
        log::debug!("service manager: {error}");
    }
}

impl Outside {
    fn show(&self, config: &Config) {
        About::set_config(&self.shown, config);
    }
}

/// The heatmap socket: the one that the service manager hands down as `heatmaps`, else a
/// new one.
fn heatmap_socket(
    config: &SocketConfig,
    entry: ModelEntry,
    model: &Model,
    inherited: &Inherited,
) -> Result<SocketSink, SinkError> {
    let labels = model.labels.clone();
    let handed = inherited.listener("heatmaps").map_err(|error| {
        SinkError::Open(format!("sink.socket: the socket handed down: {error}"))
    })?;
    match handed {
        Some(HandedDown::Unix(listener)) => {
            SocketSink::from_listener(listener, config, entry, labels)
        }
        Some(HandedDown::Tcp(_)) => Err(SinkError::Open(
            "sink.socket: the socket handed down as heatmaps is none of AF_UNIX; set ListenStream= \
             in salientd.socket to a path"
                .into(),
        )),
        None => SocketSink::open(config, entry, labels),
    }
}

/// Opens every configured sink.
fn sinks(
    config: &Config,
    model: &Model,
    outside: &Outside,
) -> Result<Vec<Box<dyn Sink>>, SinkError> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let entry = ModelEntry { name: model.name.clone(), sha256: model.sha256.to_string() };
    let mean = config.mean.as_ref().map(|mean| MeanSink::open(mean, &model.sha256)).transpose()?;
    let means = mean.as_ref().map(MeanSink::means);
    if let Some(http) = &config.sink.http {
        let about = About {
            model: entry.clone(),
            classes: model.labels.clone(),
            zones: config.zones.clone(),
            rules: config.rules.iter().map(|rule| rule.name.clone()).collect(),
            means: means.clone(),
            health: outside.health.clone(),
            config: outside.shown.clone(),
            started: outside.started,
        };
        sinks.push(Box::new(HttpSink::open(http, &config.overlay, about, &outside.inherited)?));
    }
    if let Some(socket) = &config.sink.socket {
        sinks.push(Box::new(heatmap_socket(socket, entry, model, &outside.inherited)?));
    }
    if let Some(files) = &config.sink.files {
        if let Some(class) = files.clip.as_ref().and_then(|clip| clip.class.as_ref()) {
            index_of("sink.files.clip.class", class, &model.labels)
                .map_err(|e| SinkError::Open(e.to_string()))?;
        }
        sinks.push(Box::new(FileSink::open(files, &config.overlay, means)?));
    }
    if let Some(mqtt) = &config.sink.mqtt {
        sinks.push(open_mqtt(mqtt, config, model)?);
    }
    if let Some(v4l2) = &config.sink.v4l2 {
        sinks.push(Box::new(V4l2Sink::open(v4l2, &config.overlay)?));
    }
    if sinks.is_empty() {
        log::warn!(
            "no sink is configured: heatmaps go nowhere; add [sink.http], [sink.socket] or [sink.files]"
        );
    }
    sinks.extend(mean.map(|mean| Box::new(mean) as Box<dyn Sink>));
    if let Some(commands) = CommandSink::open(&config.rules)? {
        sinks.push(Box::new(commands));
    }
    Ok(sinks)
}

#[cfg(feature = "mqtt")]
fn open_mqtt(
    mqtt: &crate::config::MqttConfig,
    config: &Config,
    model: &Model,
) -> Result<Box<dyn Sink>, SinkError> {
    use crate::sink::mqtt::MqttSink;
    let names = config.rules.iter().map(|rule| rule.name.clone()).collect();
    let sink = MqttSink::open(mqtt, &config.overlay, names, &model.name)?;
    Ok(Box::new(sink))
}

#[cfg(not(feature = "mqtt"))]
fn open_mqtt(
    _: &crate::config::MqttConfig,
    _: &Config,
    _: &Model,
) -> Result<Box<dyn Sink>, SinkError> {
    Err(SinkError::Open(
        "sink.mqtt: this salientd was built without MQTT; build it with --features mqtt, or \
         remove [sink.mqtt]"
            .into(),
    ))
}
