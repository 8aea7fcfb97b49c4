//! Heatmaps, events and small pictures to an MQTT broker. docs/fleet.md has the topics.
//!
//! Publishing puts a message into a bounded queue; a thread of its own delivers it and
//! keeps the connection. A broker that is away costs the oldest messages, counted.

mod deliver;
mod payload;
mod queue;
mod tls;

pub use deliver::MqttStats;

use super::wire::{self, EventHeader};
use super::{CameraState, Published, Sink, SinkError};
use crate::config::{MqttConfig, OverlayConfig, PictureFormat};
use crate::frame::Picture;
use crate::health::Metrics;
use crate::heatmap::encode::{self, EncodeError};
use crate::heatmap::overlay::Overlay;
use crate::rescale::rescaled;
use crate::rules::{Change, Event};
use crate::sandbox;
use deliver::Shared;
use fast_image_resize::{FilterType, Resizer};
use payload::{About, Topics};
use queue::Message;
use rumqttc::{LastWill, MqttOptions, QoS, Transport};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A picture of 1920 pixels a side as PNG; what comes in is acknowledgements.
const MAX_OUT_BYTES: usize = 16 << 20;
const MAX_IN_BYTES: usize = 64 << 10;

/// The `mqtt` sink. Says goodbye when it is finished or dropped.
pub struct MqttSink {
    topics: Topics,
    shared: Arc<Shared>,
    retained: Arc<Mutex<Retained>>,
    thread: Option<JoinHandle<()>>,
    every: Duration,
    /// When a heatmap was last sent, and its best class.
    sent: Option<(Instant, usize)>,
    pictures: Option<Pictures>,
}

/// What every new connection is told first: a broker that was restarted may have forgotten.
#[derive(Debug)]
struct Retained {
    discovery: Option<Message>,
    camera: Option<Message>,
    /// The broker may have a picture that this sink has sent. One from before, when more
    /// was to be seen perhaps, it has to forget.
    has_picture: bool,
    /// By rule.
    rules: BTreeMap<String, bool>,
}

impl MqttSink {
    /// Starts the thread that connects. A broker that is away is no error, a sandbox without
    /// network is. `rules` are the names of all, `model` is the classifier's name for people.
    pub fn open(
        config: &MqttConfig,
        overlay: &OverlayConfig,
        rules: Vec<String>,
        model: &str,
    ) -> Result<Self, SinkError> {
        if let Some(why) = sandbox::without_network() {
            return Err(SinkError::Open(format!("sink.mqtt: {why}")));
        }
        let device = config.device.clone().unwrap_or_else(host_name);
        let topics = Topics::new(config, &device);
        let about = About { model: model.into(), pictures: config.picture_every_s.is_some() };
        let discovery = config.discovery_prefix.as_ref();
        let retained = Arc::new(Mutex::new(Retained {
            discovery: discovery.map(|prefix| topics.discovery(prefix, &rules, &about)),
            camera: None,
            has_picture: false,
            rules: rules.into_iter().map(|rule| (rule, false)).collect(),
        }));
        let options = options(config, &topics, &device)?;
        let shared = Arc::new(Shared::new(config.queue));
        let cannot = |e: io::Error| SinkError::Open(format!("sink.mqtt: cannot start: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(cannot)?;
        let (for_thread, first, greeter) = (shared.clone(), retained.clone(), topics.clone());
        let thread = std::thread::Builder::new()
            .name("sink-mqtt".into())
            .spawn(move || {
                runtime
                    .block_on(deliver::deliver(&for_thread, options, || greet(&greeter, &first)));
                // A name that is being looked up waits for nobody.
                runtime.shutdown_background();
            })
            .map_err(cannot)?;
        Ok(Self {
            topics,
            shared,
            retained,
            thread: Some(thread),
            every: Duration::try_from_secs_f64(config.every_s).unwrap_or_default(),
            sent: None,
            pictures: config.picture_every_s.map(|s| Pictures::new(config, s, overlay)),
        })
    }

    /// What goes on at the broker.
    pub fn stats(&self) -> &MqttStats {
        &self.shared.stats
    }

    fn is_due(&self, item: &Published) -> bool {
        let Some(best) = item.heatmap.classes.first() else { return false };
        self.sent.is_none_or(|(at, class)| {
            class != best.index
                || item.heatmap.captured_at.saturating_duration_since(at) >= self.every
        })
    }

    fn close(&mut self) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.shared.push(self.topics.no_picture());
        self.shared.push(self.topics.status(false));
        self.shared.close();
        thread.join().is_ok()
    }
}

impl Sink for MqttSink {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn publish(&mut self, item: &Published) -> Result<(), SinkError> {
        if self.is_due(item) {
            let best = item.heatmap.classes.first().map_or(0, |class| class.index);
            self.sent = Some((item.heatmap.captured_at, best));
            self.shared.push(self.topics.heatmap(&item.heatmap).map_err(wire::WireError::from)?);
        }
        // Not before the broker has forgotten those of before.
        let has_greeted = self.shared.has_greeted();
        if let Some(pictures) = self.pictures.as_mut().filter(|_| has_greeted)
            && let Some(bytes) = pictures.next(item)?
        {
            self.retained.lock().unwrap_or_else(PoisonError::into_inner).has_picture = true;
            self.shared.push(self.topics.picture(bytes));
        }
        Ok(())
    }

    fn camera(&mut self, state: &CameraState) -> Result<(), SinkError> {
        let message = self.topics.camera(state);
        let mut retained = self.retained.lock().unwrap_or_else(PoisonError::into_inner);
        retained.camera = Some(message.clone());
        self.shared.push(message);
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let is_raised = event.change == Change::Raised;
        let mut retained = self.retained.lock().unwrap_or_else(PoisonError::into_inner);
        retained.rules.insert(event.rule.to_string(), is_raised);
        self.shared.push(self.topics.rule(&event.rule, is_raised));
        let header = EventHeader::from(event);
        self.shared.push(self.topics.event(&header).map_err(wire::WireError::from)?);
        Ok(())
    }

    fn metrics(&self) -> Option<Arc<dyn Metrics>> {
        Some(self.shared.stats.clone())
    }

    /// Waits at most a second for the broker to take what it was sent.
    fn finish(&mut self) -> Result<(), SinkError> {
        match self.close() {
            true => Ok(()),
            false => Err(SinkError::Busy("the thread that spoke to the broker panicked".into())),
        }
    }
}

impl Drop for MqttSink {
    fn drop(&mut self) {
        self.close();
    }
}

fn greet(topics: &Topics, retained: &Mutex<Retained>) -> Vec<Message> {
    let retained = retained.lock().unwrap_or_else(PoisonError::into_inner);
    let rules = retained.rules.iter().map(|(rule, is_raised)| topics.rule(rule, *is_raised));
    let first = retained.discovery.iter().chain(&retained.camera).cloned();
    let no_picture = (!retained.has_picture).then(|| topics.no_picture());
    [topics.status(true)].into_iter().chain(no_picture).chain(first).chain(rules).collect()
}

fn options(config: &MqttConfig, topics: &Topics, device: &str) -> Result<MqttOptions, SinkError> {
    let client = format!("{}-{device}", config.topic);
    let mut options = MqttOptions::new(client, (config.host.as_str(), config.port));
    options.set_keep_alive(config.keep_alive_s);
    options.set_max_packet_size(MAX_IN_BYTES, MAX_OUT_BYTES);
    options.set_inflight(queue::WINDOW as u16);
    options.set_last_will(LastWill::new(topics.status_topic(), "offline", QoS::AtLeastOnce, true));
    if let Some(username) = &config.username {
        let password = config.password_file.as_deref().map(read_password).transpose()?;
        options.set_credentials(username, password.unwrap_or_default());
    }
    if config.tls {
        options.set_transport(Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(
            tls::client_config(config)?,
        )));
    }
    Ok(options)
}

/// The first line of a file.
fn read_password(path: &Path) -> Result<String, SinkError> {
    let bad =
        |why: &str| SinkError::Open(format!("sink.mqtt.password_file: {}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|e| bad(&e.to_string()))?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() { Err(bad("its first line is empty")) } else { Ok(password.into()) }
}

/// The host's name, of what may stand in a topic.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.chars().map(|c| if sound(c) { c } else { '-' }).take(64).collect()
}

/// Draws small pictures now and then.
struct Pictures {
    every: Duration,
    format: PictureFormat,
    width_px: usize,
    overlay: Overlay,
    resizer: Resizer,
    last: Option<Instant>,
    bytes: Vec<u8>,
}

impl Pictures {
    fn new(config: &MqttConfig, every_s: f64, overlay: &OverlayConfig) -> Self {
        Self {
            every: Duration::try_from_secs_f64(every_s).unwrap_or(Duration::MAX),
            format: config.picture_format,
            width_px: config.picture_width_px as usize,
            overlay: Overlay::new(overlay),
            resizer: Resizer::new(),
            last: None,
            bytes: Vec::new(),
        }
    }

    /// The encoded picture, if one is due.
    fn next(&mut self, item: &Published) -> Result<Option<&[u8]>, SinkError> {
        let at = item.heatmap.captured_at;
        if self.last.is_some_and(|last| at.saturating_duration_since(last) < self.every) {
            return Ok(None);
        }
        self.last = Some(at);
        let encoded = self.draw(item);
        encoded.map_err(|source| SinkError::Io {
            what: "encode",
            path: "the picture".into(),
            source: io::Error::other(source),
        })?;
        Ok(Some(&self.bytes))
    }

    fn draw(&mut self, item: &Published) -> Result<(), EncodeError> {
        let drawn = self.overlay.render(&item.picture, &item.heatmap);
        let small = shrink(&mut self.resizer, drawn, self.width_px);
        let picture = small.as_ref().unwrap_or(drawn);
        match self.format {
            PictureFormat::Png => encode::png(picture, &mut self.bytes),
            PictureFormat::Jpeg => encode::jpeg(picture, encode::JPEG_QUALITY, &mut self.bytes),
        }
    }
}

/// The picture at this width; `None` where it is no wider, or cannot be resized.
fn shrink(resizer: &mut Resizer, picture: &Picture, width: usize) -> Option<Picture> {
    if picture.width <= width {
        return None;
    }
    let height = (picture.height * width).div_ceil(picture.width);
    rescaled(resizer, picture, [width, height], FilterType::Lanczos3).ok()
}
