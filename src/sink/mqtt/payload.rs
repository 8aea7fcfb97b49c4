//! What is said to the broker: topics, JSON, and Home Assistant's discovery.

use super::queue::Message;
use crate::config::MqttConfig;
use crate::heatmap::Heatmap;
use crate::sink::CameraState;
use crate::sink::wire::{ClassEntry, EventHeader, HeatmapHeader, ZoneEntry};
use serde::Serialize;
use serde_json::{Value, json};

/// A heatmap without its map: what fits into a fleet's broker many times over.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    sequence: u64,
    captured: String,
    /// Best first.
    classes: Vec<ClassEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    zones: Vec<ZoneEntry>,
    /// How many were merged.
    views: usize,
    spent_ms: Option<f64>,
    model_sha256: String,
}

impl From<&Heatmap> for Summary {
    fn from(heatmap: &Heatmap) -> Self {
        let header = HeatmapHeader::from(heatmap);
        Self {
            sequence: header.sequence,
            captured: header.captured,
            classes: header.classes,
            zones: header.zones,
            views: header.views.len(),
            spent_ms: header.spent_ms,
            model_sha256: header.model_sha256,
        }
    }
}

/// The topics of one device, and the messages that go to them.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    /// `TOPIC/DEVICE`.
    base: String,
    device: String,
    qos: u8,
}

impl Topics {
    pub fn new(config: &MqttConfig, device: &str) -> Self {
        let base = format!("{}/{device}", config.topic);
        Self { base, device: device.into(), qos: config.qos }
    }

    fn message(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) -> Message {
        let payload: Vec<u8> = payload.into();
        let topic = format!("{}/{topic}", self.base).into();
        Message { topic, payload: payload.into(), qos: 1, retain }
    }

    pub fn status_topic(&self) -> String {
        format!("{}/status", self.base)
    }

    /// `online` or `offline`; the broker says the latter by itself when the daemon cannot.
    pub fn status(&self, online: bool) -> Message {
        self.message("status", if online { "online" } else { "offline" }, true)
    }

    pub fn heatmap(&self, heatmap: &Heatmap) -> Result<Message, serde_json::Error> {
        let payload = serde_json::to_vec(&Summary::from(heatmap))?;
        Ok(Message { qos: self.qos, ..self.message("heatmap", payload, false) })
    }

    /// Not again if it gets lost: there is a newer one by then.
    pub fn picture(&self, bytes: &[u8]) -> Message {
        Message { qos: 0, ..self.message("picture", bytes, true) }
    }

    /// The broker forgets the last picture.
    pub fn no_picture(&self) -> Message {
        self.message("picture", [], true)
    }

    pub fn camera(&self, state: &CameraState) -> Message {
        let state = json!({ "running": state.running, "reason": state.reason });
        self.message("camera", state.to_string(), true)
    }

    pub fn event(&self, event: &EventHeader) -> Result<Message, serde_json::Error> {
        Ok(self.message("event", serde_json::to_vec(event)?, false))
    }

    /// Whether a rule is raised, for those who come later.
    pub fn rule(&self, rule: &str, is_raised: bool) -> Message {
        self.message(&format!("rule/{rule}"), if is_raised { "ON" } else { "OFF" }, true)
    }

    /// One retained message makes a device of this camera in Home Assistant.
    /// Source: Home Assistant, "MQTT", device discovery payload (2024.11 and later).
    pub fn discovery(&self, prefix: &str, rules: &[String], about: &About) -> Message {
        let Self { base, device, .. } = self;
        let id = |what: &str| format!("salientd_{device}_{what}");
        let class = |what: &str, name: &str, template: &str, more: Value| {
            let mut component = json!({
                "platform": "sensor",
                "unique_id": id(what),
                "name": name,
                "state_topic": format!("{base}/heatmap"),
                "value_template": template,
            });
            extend(&mut component, more);
            component
        };
        let mut components = json!({
            "class": class(
                "class", "Class", "{{ value_json.classes[0].label }}",
                json!({ "icon": "mdi:eye-outline" })
            ),
            "probability": class(
                "probability", "Probability",
                "{{ (value_json.classes[0].probability * 100) | round(1) }}",
                json!({ "unit_of_measurement": "%", "state_class": "measurement" })
            ),
            "camera_running": {
                "platform": "binary_sensor",
                "unique_id": id("camera_running"),
                "name": "Camera",
                "device_class": "running",
                "entity_category": "diagnostic",
                "state_topic": format!("{base}/camera"),
                "value_template": "{{ 'ON' if value_json.running else 'OFF' }}",
            },
        });
        if about.pictures {
            let picture = json!({
                "picture": {
                    "platform": "camera",
                    "unique_id": id("picture"),
                    "name": "Heatmap",
                    "topic": format!("{base}/picture"),
                }
            });
            extend(&mut components, picture);
        }
        for rule in rules {
            let sensor = json!({
                format!("rule_{rule}"): {
                    "platform": "binary_sensor",
                    "unique_id": id(&format!("rule_{rule}")),
                    "name": rule,
                    "device_class": "problem",
                    "state_topic": format!("{base}/rule/{rule}"),
                }
            });
            extend(&mut components, sensor);
        }
        let payload = json!({
            "device": {
                "identifiers": [format!("salientd_{device}")],
                "name": device,
                "manufacturer": "salientd",
                "model": about.model,
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": { "name": "salientd", "sw_version": env!("CARGO_PKG_VERSION") },
            "availability_topic": self.status_topic(),
            "components": components,
        });
        let topic = format!("{prefix}/device/salientd_{device}/config").into();
        let payload = payload.to_string().into_bytes().into();
        Message { topic, payload, qos: 1, retain: true }
    }
}

/// What discovery tells besides topics.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// The classifier's name.
    pub model: String,
    pub pictures: bool,
}

/// Adds the entries of one object to another.
fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}
