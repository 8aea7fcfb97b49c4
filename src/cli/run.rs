//! `salientd run`: the daemon. Signals and service manager in, a pipeline kept running.

use super::args::RunArgs;
use super::logging;
use crate::classes::index_of;
use crate::config::{self, Config};
use crate::health::{Health, Notifier, Verdict, Watchdog};
use crate::model::Model;
use crate::pipeline::{Outlets, Pipeline};
use crate::sink::{
    Sink, SinkError, command::CommandSink, files::FileSink, mean::MeanSink, socket::SocketSink,
    v4l2::V4l2Sink, wire::ModelEntry,
};
use anyhow::Context;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the signal to the exit, sinks flushed.
const STOP_WITHIN: Duration = Duration::from_millis(1_900);
/// Between two status lines for the service manager.
const STATUS_EVERY: Duration = Duration::from_secs(5);

pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    logging::init(&config.log.level);
    serve(config, Some(&args.config))
}

/// Runs the daemon until a signal or the end of its source. SIGHUP reloads `path`.
pub fn serve(config: Config, path: Option<&Path>) -> anyhow::Result<()> {
    let signals = signals()?;
    let mut daemon = Daemon::start(config)?;
    daemon.tell(Notifier::ready);
    daemon.watch(&signals, path);
    daemon.stop()
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
                // Full: what waits already says the same.
                let _ = send.try_send(signal);
            }
        })
        .context("cannot start the signals thread")?;
    Ok(receive)
}

/// Everything that a reload exchanges, and what stays.
struct Daemon {
    config: Config,
    model: Arc<Model>,
    outlets: Arc<Outlets>,
    /// None only while one is exchanged for another.
    pipeline: Option<Pipeline>,
    health: Arc<Health>,
    notifier: Notifier,
    watchdog: Option<Watchdog>,
}

impl Daemon {
    fn start(config: Config) -> anyhow::Result<Self> {
        let health = Arc::new(Health::new(Instant::now()));
        let notifier = Notifier::from_env().context("NOTIFY_SOCKET")?;
        let model = Arc::new(Model::configured(&config.model)?);
        let outlets = Arc::new(Outlets::start(sinks(&config, &model)?, &health)?);
        let pipeline =
            Some(Pipeline::start(&config, model.clone(), outlets.clone(), health.clone())?);
        let watchdog = notifier.watchdog_timeout().map(|t| Watchdog::new(t, Instant::now()));
        Ok(Self { config, model, outlets, pipeline, health, notifier, watchdog })
    }

    /// Until a signal to stop, or the end of a finite source.
    fn watch(&mut self, signals: &Receiver<i32>, path: Option<&Path>) {
        let mut status_due = Instant::now();
        while let Some(pipeline) = &self.pipeline {
            if pipeline.is_finished() {
                return;
            }
            let now = Instant::now();
            if now >= status_due {
                let status = pipeline.status();
                self.tell(|n| n.status(&status));
                status_due = now + STATUS_EVERY;
            }
            self.feed_watchdog(now);
            let due = self.watchdog.as_ref().map_or(status_due, |w| w.due().min(status_due));
            let wait = due.saturating_duration_since(now).min(Duration::from_millis(500));
            match signals.recv_timeout(wait) {
                Ok(SIGHUP) => path.into_iter().for_each(|path| self.reload(path)),
                Ok(_) => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
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

    /// Takes up the configuration file as it is now, or keeps the old one and says why.
    fn reload(&mut self, path: &Path) {
        self.tell(Notifier::reloading);
        let taken = config::load(path).map_err(Into::into).and_then(|c| self.take_up(c));
        let counters = &self.health.counters;
        match taken {
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

    fn take_up(&mut self, config: Config) -> anyhow::Result<()> {
        if config == self.config {
            return Ok(());
        }
        let model = match config.model == self.config.model {
            true => self.model.clone(),
            false => Arc::new(Model::configured(&config.model)?),
        };
        // What can fail fails here, while the old pipeline still runs.
        crate::explain::Explainer::new(model.clone(), &config)?;
        crate::rules::Rules::new(&config.rules, &model.labels)?;
        logging::set_level(&config.log.level);
        let sinks_stay = config.sink == self.config.sink
            && config.overlay == self.config.overlay
            && config.rules == self.config.rules
            && config.mean == self.config.mean
            && Arc::ptr_eq(&model, &self.model);
        let old = std::mem::replace(&mut self.config, config);
        let old_model = std::mem::replace(&mut self.model, model);
        self.exchange(sinks_stay).or_else(|error| {
            (self.config, self.model) = (old, old_model);
            self.exchange(false).context("the old configuration does not work any more either")?;
            Err(error)
        })
    }

    /// Stops the pipeline, and the sinks unless they stay, and starts them anew.
    fn exchange(&mut self, sinks_stay: bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_WITHIN;
        if let Some(mut pipeline) = self.pipeline.take() {
            pipeline.stop(deadline);
        }
        if !sinks_stay {
            if let Some(outlets) = Arc::get_mut(&mut self.outlets) {
                std::mem::take(outlets).finish(deadline);
            }
            self.outlets =
                Arc::new(Outlets::start(sinks(&self.config, &self.model)?, &self.health)?);
        }
        let (model, outlets) = (self.model.clone(), self.outlets.clone());
        self.pipeline = Some(Pipeline::start(&self.config, model, outlets, self.health.clone())?);
        Ok(())
    }

    fn stop(self) -> anyhow::Result<()> {
        self.tell(Notifier::stopping);
        let Self { pipeline, outlets, health, .. } = self;
        let deadline = Instant::now() + STOP_WITHIN;
        // The pipeline lets go of the outlets when it goes.
        let stopped = pipeline.is_none_or(|mut p| p.stop(deadline));
        let flushed = Arc::into_inner(outlets).is_none_or(|o| o.finish(deadline));
        log::info!("stopped after {} heatmaps", health.counters.heatmaps.get());
        anyhow::ensure!(stopped && flushed, "not every stage ended in time");
        Ok(())
    }

    /// To the service manager, where there is one. It may be gone; we go on without.
    fn tell(&self, what: impl FnOnce(&Notifier) -> std::io::Result<()>) {
        if let Err(error) = what(&self.notifier) {
            log::debug!("service manager: {error}");
        }
    }
}

/// Opens every configured sink.
pub fn sinks(config: &Config, model: &Model) -> Result<Vec<Box<dyn Sink>>, SinkError> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(socket) = &config.sink.socket {
        let entry = ModelEntry { name: model.name.clone(), sha256: model.sha256.to_string() };
        sinks.push(Box::new(SocketSink::open(socket, entry, model.labels.clone())?));
    }
    let mean = config.mean.as_ref().map(|mean| MeanSink::open(mean, &model.sha256)).transpose()?;
    let means = mean.as_ref().map(MeanSink::means);
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
        log::warn!("no sink is configured: heatmaps go nowhere; add [sink.socket] or [sink.files]");
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
