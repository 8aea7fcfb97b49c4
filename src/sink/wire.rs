//! The messages of the socket, as bytes and back. docs/protocol.md is their description
//! for people who write clients.
//!
//! A message is a prefix of 16 bytes (magic, version, header length, payload length,
//! each 4 bytes, little-endian), a JSON header padded with spaces to a multiple of 16
//! bytes, and a payload. Only `heatmap` and `mean` have one: their maps, `f32` little-endian in C
//! order.

use super::CameraState;
use crate::config::Side;
use crate::frame::Rect;
use crate::heatmap::Heatmap;
use crate::rules::{Change, Event};
use crate::wall;
use serde::{Deserialize, Serialize};

/// The first four bytes of every message.
pub const MAGIC: [u8; 4] = *b"SALH";
/// Raised when a client written for the version before would misread a message. New
/// header fields and new kinds do not raise it.
pub const VERSION: u32 = 1;
pub const PREFIX_BYTES: usize = 16;
/// Enough for a thousand classes and their labels several times over.
pub const MAX_HEADER_BYTES: usize = 1 << 20;
/// Enough for 160 classes at 320 × 320.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

const HEADER_ALIGN: usize = 16;

/// A message's JSON header, told apart by its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Header {
    /// The first message on every connection that was accepted.
    Hello(Hello),
    Heatmap(HeatmapHeader),
    /// The camera went away or came back.
    Camera(CameraHeader),
    /// A rule was raised or cleared.
    Event(EventHeader),
    /// Long-term mean heatmaps: the file of `[mean]` is one such message.
    Mean(MeanHeader),
    /// The only message on a connection that was not accepted.
    Refused(Refused),
    /// A kind that this version does not know: to be skipped.
    #[serde(other)]
    Unknown,
}

/// Who speaks, and what it knows at this moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub protocol: u32,
    /// Program and version, for logs: `salientd 0.1.0`.
    pub server: String,
    pub model: ModelEntry,
    /// Label of every class that the model knows, in the order of their indices.
    pub classes: Vec<String>,
    pub camera: CameraHeader,
}

/// The model that makes the heatmaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// For people: its file name, or `default`.
    pub name: String,
    /// Of the model file, hexadecimal.
    pub sha256: String,
}

/// As [`CameraState`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraHeader {
    pub running: bool,
    /// Why not, for people; empty while running.
    pub reason: String,
}

impl From<&CameraState> for CameraHeader {
    fn from(state: &CameraState) -> Self {
        Self { running: state.running, reason: state.reason.clone() }
    }
}

/// Why a connection was not accepted. It is closed right after this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub reason: String,
}

/// What a heatmap's payload is and where it comes from. A number that is not finite
/// stands as `null`, as JSON has no other word for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeatmapHeader {
    /// Sequence number of the frame, as the camera counts.
    pub sequence: u64,
    /// When the frame was taken: RFC 3339, UTC, nanoseconds.
    pub captured: String,
    /// The same in nanoseconds since 1970.
    pub captured_unix_ns: i64,
    /// Size of the upright picture, `[width, height]`.
    pub picture: [u32; 2],
    /// The part of the picture that the maps cover exactly.
    pub covers: Rect,
    /// `<f4`: `f32`, little-endian.
    pub dtype: String,
    /// `[height, width, classes]`.
    pub shape: [usize; 3],
    /// In the order of the last axis, best first.
    pub classes: Vec<ClassEntry>,
    pub views: Vec<ViewEntry>,
    /// Absent in the message without zones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<ZoneEntry>,
    /// From decoded frame to merged map.
    pub spent_ms: Option<f64>,
    /// What `spent_ms` was to stay within; absent in the message: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_ms: Option<f64>,
    /// The share of the budget that heat leaves, 0–1; absent: heat does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heat_factor: Option<f64>,
    pub model_sha256: String,
}

/// One class of a heatmap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassEntry {
    pub index: usize,
    pub label: String,
    pub logit: Option<f32>,
    pub probability: Option<f32>,
}

/// One view that was merged into a heatmap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewEntry {
    pub scale: f32,
    pub hflip: bool,
    pub weight: f32,
    pub spent_ms: Option<f64>,
    pub age_ms: Option<f64>,
}

/// Which share of each class's positive mass lies in a zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZoneEntry {
    pub name: String,
    /// In the order of the heatmap's classes; `null` for a map without positive mass.
    pub shares: Vec<Option<f32>>,
}

/// As [`Event`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventHeader {
    pub change: Change,
    pub rule: String,
    pub zone: String,
    pub side: Side,
    /// Absent where the class had no map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<EventClass>,
    /// Of the class's positive mass on that side; `null` where there was none.
    pub share: Option<f32>,
    /// Of the frame, as in a heatmap.
    pub sequence: u64,
    pub captured: String,
    pub captured_unix_ns: i64,
    pub model_sha256: String,
}

/// The class of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventClass {
    pub index: usize,
    pub label: String,
}

impl From<&Event> for EventHeader {
    fn from(event: &Event) -> Self {
        Self {
            change: event.change,
            rule: event.rule.to_string(),
            zone: event.zone.to_string(),
            side: event.side,
            class: event.class.clone().map(|(index, label)| EventClass { index, label }),
            share: event.share.filter(|x| x.is_finite()),
            sequence: event.sequence,
            captured: wall::rfc3339(event.captured_wall),
            captured_unix_ns: wall::unix_ns(event.captured_wall) as i64,
            model_sha256: event.model_sha256.to_string(),
        }
    }
}

/// The mean maps of the payload: what they are of, and how much was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanHeader {
    pub dtype: String,
    /// `[height, width, classes]`.
    pub shape: [usize; 3],
    /// In the order of the last axis.
    pub classes: Vec<MeanEntry>,
    pub picture: [u32; 2],
    pub covers: Rect,
    pub time_constant_s: f64,
    pub model_sha256: String,
}

/// One class of the mean maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanEntry {
    pub index: usize,
    pub label: String,
    /// 0–1: how much of the time constant has been seen.
    pub weight: f64,
    pub seen_s: f64,
}

impl From<&Heatmap> for HeatmapHeader {
    fn from(heatmap: &Heatmap) -> Self {
        Self {
            sequence: heatmap.sequence,
            captured: wall::rfc3339(heatmap.captured_wall),
            captured_unix_ns: wall::unix_ns(heatmap.captured_wall) as i64,
            picture: heatmap.picture,
            covers: heatmap.covers,
            dtype: "<f4".into(),
            shape: [heatmap.height, heatmap.width, heatmap.classes.len()],
            classes: heatmap
                .classes
                .iter()
                .map(|class| ClassEntry {
                    index: class.index,
                    label: class.label.clone(),
                    logit: Some(class.logit).filter(|x| x.is_finite()),
                    probability: Some(class.probability).filter(|x| x.is_finite()),
                })
                .collect(),
            views: heatmap
                .views
                .iter()
                .map(|view| ViewEntry {
                    scale: view.scale,
                    hflip: view.hflip,
                    weight: view.weight,
                    spent_ms: Some(view.spent_ms).filter(|x| x.is_finite()),
                    age_ms: Some(view.age_ms).filter(|x| x.is_finite()),
                })
                .collect(),
            zones: heatmap
                .zones
                .iter()
                .map(|zone| ZoneEntry { name: zone.name.to_string(), shares: zone.shares.clone() })
                .collect(),
            spent_ms: Some(heatmap.spent_ms).filter(|x| x.is_finite()),
            budget_ms: heatmap.budget_ms.filter(|x| x.is_finite()),
            heat_factor: heatmap.heat_factor.filter(|x| x.is_finite()),
            model_sha256: heatmap.model_sha256.to_string(),
        }
    }
}

/// A whole message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub header: Header,
    /// The maps of a heatmap, `[height, width, classes]`; empty for every other kind.
    pub values: Vec<f32>,
}

/// Why a message cannot be sent, or what came is none.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the message begins with {0:02x?}, not with {MAGIC:02x?}: this is not salientd")]
    Magic([u8; 4]),
    #[error(
        "the message has protocol version {0}, this program speaks {VERSION}: update the older"
    )]
    Version(u32),
    #[error("a header of {0} bytes, the limit is {MAX_HEADER_BYTES}")]
    HeaderBytes(usize),
    #[error("a payload of {0} bytes, the limit is {MAX_PAYLOAD_BYTES}: publish fewer classes")]
    PayloadBytes(usize),
    #[error("malformed header: {0}")]
    Header(#[from] serde_json::Error),
    #[error("a payload of {found} bytes, its header says {expected}")]
    Payload { found: usize, expected: usize },
    #[error("maps of type {0}, this program reads <f4")]
    Dtype(String),
}

/// The bytes of a message. `values` are the payload; see [`Message::values`].
pub fn encode(header: &Header, values: &[f32]) -> Result<Vec<u8>, WireError> {
    let payload_bytes = size_of_val(values);
    if payload_bytes > MAX_PAYLOAD_BYTES {
        return Err(WireError::PayloadBytes(payload_bytes));
    }
    let mut out = Vec::with_capacity(PREFIX_BYTES + 2048 + payload_bytes);
    out.resize(PREFIX_BYTES, 0);
    serde_json::to_writer(&mut out, header)?;
    out.resize(out.len().next_multiple_of(HEADER_ALIGN), b' ');
    let header_bytes = out.len() - PREFIX_BYTES;
    if header_bytes > MAX_HEADER_BYTES {
        return Err(WireError::HeaderBytes(header_bytes));
    }
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&VERSION.to_le_bytes());
    out[8..12].copy_from_slice(&(header_bytes as u32).to_le_bytes());
    out[12..16].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    Ok(out)
}

/// Turns the bytes of a connection, in whatever pieces they come, into messages. Keeps
/// no more than one message and one piece.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Takes the next bytes of the connection.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there. Call until `None` after each [`feed`].
    /// After an error the connection cannot be understood any more: close it.
    ///
    /// [`feed`]: Self::feed
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let Some(lengths) = Lengths::read(&self.pending)? else { return Ok(None) };
        let header_end = PREFIX_BYTES + lengths.header;
        let end = header_end + lengths.payload;
        if self.pending.len() < end {
            return Ok(None);
        }
        let header = serde_json::from_slice(&self.pending[PREFIX_BYTES..header_end])?;
        let values = read_payload(&header, &self.pending[header_end..end])?;
        self.pending.drain(..end);
        Ok(Some(Message { header, values }))
    }
}

/// What the prefix says follows, in bytes.
struct Lengths {
    header: usize,
    payload: usize,
}

impl Lengths {
    /// `None` while the prefix is not complete. A wrong magic is told at once.
    fn read(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let word = |i: usize| Some(*bytes.get(i * 4..)?.first_chunk::<4>()?);
        let number = |i: usize| word(i).map(u32::from_le_bytes);
        if word(0).is_some_and(|magic| magic != MAGIC) {
            return Err(WireError::Magic(word(0).unwrap_or_default()));
        }
        if let Some(version) = number(1).filter(|&version| version != VERSION) {
            return Err(WireError::Version(version));
        }
        let (Some(header), Some(payload)) = (number(2), number(3)) else { return Ok(None) };
        let (header, payload) = (header as usize, payload as usize);
        if header > MAX_HEADER_BYTES {
            return Err(WireError::HeaderBytes(header));
        }
        if payload > MAX_PAYLOAD_BYTES {
            return Err(WireError::PayloadBytes(payload));
        }
        Ok(Some(Self { header, payload }))
    }
}

fn read_payload(header: &Header, payload: &[u8]) -> Result<Vec<f32>, WireError> {
    let expected = match header {
        // A later version may send any payload with a kind of its own.
        Header::Unknown => return Ok(Vec::new()),
        Header::Heatmap(HeatmapHeader { dtype, shape, .. })
        | Header::Mean(MeanHeader { dtype, shape, .. }) => {
            if dtype != "<f4" {
                return Err(WireError::Dtype(dtype.clone()));
            }
            shape.iter().fold(size_of::<f32>(), |size, &n| size.saturating_mul(n))
        }
        _ => 0,
    };
    if payload.len() != expected {
        return Err(WireError::Payload { found: payload.len(), expected });
    }
    let (values, _) = payload.as_chunks::<4>();
    Ok(values.iter().map(|&value| f32::from_le_bytes(value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heatmap_header(shape: [usize; 3]) -> HeatmapHeader {
        HeatmapHeader {
            sequence: u64::MAX,
            captured: "2026-11-23T12:16:17.000000042Z".into(),
            captured_unix_ns: 1_795_436_177_000_000_042,
            picture: [1280, 720],
            covers: Rect { x: 280, y: 0, width: 720, height: 720 },
            dtype: "<f4".into(),
            shape,
            classes: vec![ClassEntry {
                index: 3,
                label: "“tench” \u{1f41f}\n".into(),
                logit: Some(0.1),
                probability: None,
            }],
            views: vec![ViewEntry {
                scale: 1.5,
                hflip: true,
                weight: 0.125,
                spent_ms: Some(0.1),
                age_ms: Some(0.0),
            }],
            zones: vec![ZoneEntry { name: "gate".into(), shares: vec![Some(0.25), None] }],
            spent_ms: Some(412.5),
            budget_ms: Some(500.0),
            heat_factor: Some(0.75),
            model_sha256: "00ff".into(),
        }
    }

    fn event_header() -> EventHeader {
        EventHeader {
            change: Change::Raised,
            rule: "looks-away".into(),
            zone: "gate".into(),
            side: Side::Outside,
            class: Some(EventClass { index: 3, label: "tench".into() }),
            share: Some(0.7),
            sequence: 42,
            captured: "2026-11-23T12:16:17.000000042Z".into(),
            captured_unix_ns: 1_795_436_177_000_000_042,
            model_sha256: "00ff".into(),
        }
    }

    fn mean_header() -> MeanHeader {
        MeanHeader {
            dtype: "<f4".into(),
            shape: [1, 2, 1],
            classes: vec![MeanEntry { index: 3, label: "tench".into(), weight: 0.5, seen_s: 7.0 }],
            picture: [1280, 720],
            covers: Rect::full(1280, 720),
            time_constant_s: 86_400.0,
            model_sha256: "00ff".into(),
        }
    }

    fn messages() -> Vec<Message> {
        let odd = [0.1, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, f32::MAX];
        vec![
            Message { header: Header::Hello(Hello::default()), values: vec![] },
            Message { header: Header::Heatmap(heatmap_header([2, 3, 1])), values: odd.to_vec() },
            Message { header: Header::Camera(CameraHeader::default()), values: vec![] },
            Message { header: Header::Refused(Refused { reason: "full".into() }), values: vec![] },
            Message { header: Header::Event(event_header()), values: vec![] },
            Message { header: Header::Mean(mean_header()), values: vec![0.5, -0.0] },
            Message { header: Header::Heatmap(heatmap_header([0, 3, 1])), values: vec![] },
        ]
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn messages_come_back_bit_for_bit_in_pieces_of_any_size() {
        let stream: Vec<u8> =
            messages().iter().flat_map(|m| encode(&m.header, &m.values).unwrap()).collect();
        for piece_bytes in [1, 2, 3, 15, 16, 17, 100, 1000, stream.len()] {
            let mut decoder = Decoder::default();
            let mut came = Vec::new();
            for piece in stream.chunks(piece_bytes) {
                decoder.feed(piece);
                while let Some(message) = decoder.next_message().unwrap() {
                    came.push(message);
                }
            }
            assert!(decoder.pending.is_empty());
            assert_eq!(came.len(), messages().len());
            for (came, sent) in came.iter().zip(messages()) {
                assert_eq!(came.header, sent.header);
                assert_eq!(bits(&came.values), bits(&sent.values), "pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn payloads_are_aligned() {
        for message in messages() {
            let bytes = encode(&message.header, &message.values).unwrap();
            let header_bytes = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            assert_eq!(header_bytes as usize % HEADER_ALIGN, 0);
        }
    }

    /// A message made by hand: whatever header and payload, lengths as given.
    fn raw(version: u32, header: &str, payload: &[u8]) -> Vec<u8> {
        let lengths = [version, header.len() as u32, payload.len() as u32];
        let prefix = lengths.iter().flat_map(|n| n.to_le_bytes());
        MAGIC.into_iter().chain(prefix).chain(header.bytes()).chain(payload.to_vec()).collect()
    }

    #[test]
    fn kinds_and_fields_of_later_versions_are_skipped() {
        let mut decoder = Decoder::default();
        decoder.feed(&raw(1, r#"{"kind":"zones","mass":0.5}"#, b"whatever"));
        decoder.feed(&raw(1, r#"{"kind":"camera","running":true,"reason":"","fps":15}"#, b""));
        let kinds: Vec<Header> = std::iter::from_fn(|| decoder.next_message().unwrap())
            .map(|message| message.header)
            .collect();
        let running = CameraHeader { running: true, reason: String::new() };
        assert_eq!(kinds, [Header::Unknown, Header::Camera(running)]);
    }

    #[test]
    fn what_is_no_message_is_told_with_its_reason() {
        let heatmap = serde_json::to_string(&Header::Heatmap(heatmap_header([2, 3, 1]))).unwrap();
        let huge = heatmap.replace("[2,3,1]", "[4294967296,4294967296,4294967296]");
        let doubles = heatmap.replace("<f4", "<f8");
        let lengths = |header: u32, payload: u32| {
            let words = [1, header, payload].into_iter().flat_map(u32::to_le_bytes);
            MAGIC.into_iter().chain(words).collect::<Vec<u8>>()
        };
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (
                b"HTTP".to_vec(),
                "the message begins with [48, 54, 54, 50], not with [53, 41, 4c, 48]: this is not salientd",
            ),
            (
                raw(2, "", b""),
                "the message has protocol version 2, this program speaks 1: update the older",
            ),
            (lengths(u32::MAX, 0), "a header of 4294967295 bytes, the limit is 1048576"),
            (
                lengths(2, u32::MAX),
                "a payload of 4294967295 bytes, the limit is 67108864: publish fewer classes",
            ),
            (raw(1, "{}", b""), "malformed header: missing field `kind` at line 1 column 2"),
            (raw(1, "{\"kind\":\"camera\"}", b""), "malformed header: missing field `running`"),
            (raw(1, "", b""), "malformed header: EOF while parsing a value at line 1 column 0"),
            (raw(1, &heatmap, &[0; 20]), "a payload of 20 bytes, its header says 24"),
            (
                raw(1, &huge, &[0; 20]),
                "a payload of 20 bytes, its header says 18446744073709551615",
            ),
            (raw(1, &doubles, &[0; 24]), "maps of type <f8, this program reads <f4"),
            (
                raw(1, r#"{"kind":"camera","running":true,"reason":""}"#, b"x"),
                "a payload of 1 bytes, its header says 0",
            ),
        ];
        for (bytes, message) in cases {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            assert_eq!(decoder.next_message().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn what_is_too_large_is_not_sent() {
        let header = Header::Refused(Refused { reason: "x".repeat(MAX_HEADER_BYTES) });
        assert!(matches!(encode(&header, &[]), Err(WireError::HeaderBytes(_))));
        let header = Header::Heatmap(heatmap_header([1, 1, 1]));
        let values = vec![0.0; MAX_PAYLOAD_BYTES / 4 + 1];
        assert!(matches!(encode(&header, &values), Err(WireError::PayloadBytes(_))));
    }

    #[test]
    fn no_flipped_byte_makes_the_decoder_panic() {
        let good = encode(&Header::Heatmap(heatmap_header([2, 3, 1])), &[1.0; 6]).unwrap();
        for at in 0..good.len() {
            for value in [0, b'"', b'9', b'{', 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let mut decoder = Decoder::default();
                decoder.feed(&bytes);
                let _ = decoder.next_message();
            }
        }
    }
}
