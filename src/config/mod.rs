//! The daemon's settings: one TOML file, every key optional.
//!
//! The structs here are plain nested data with the defaults of a working daemon;
//! [`load()`] reads a file into them and reports everything wrong with it at once.

mod load;
mod marks;
mod polygon;
pub mod render;
mod rules;
pub mod schema;

pub use load::{ConfigErrors, Problem, check_combinations, load, parse};
pub use marks::FileMarks;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub camera: CameraConfig,
    pub geometry: GeometryConfig,
    pub model: ModelConfig,
    pub classes: ClassesConfig,
    pub tta: TtaConfig,
    pub heatmap: HeatmapConfig,
    pub overlay: OverlayConfig,
    pub privacy: PrivacyConfig,
    pub zones: Vec<ZoneConfig>,
    pub rules: Vec<RuleConfig>,
    pub mean: Option<MeanConfig>,
    pub sink: SinksConfig,
    pub log: LogConfig,
}

/// `[camera]`: where frames come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CameraConfig {
    pub source: CameraSource,
    /// A wait for a frame longer than this is a stall: the camera is reopened.
    pub timeout_ms: u64,
    pub v4l2: V4l2Config,
    pub files: FilesConfig,
    pub pipe: PipeConfig,
    pub pattern: PatternConfig,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraSource {
    #[default]
    V4l2,
    Files,
    Pipe,
    Pattern,
}

impl Default for CameraConfig {
    fn default() -> Self {
        Self {
            source: CameraSource::V4l2,
            timeout_ms: 2_000,
            v4l2: V4l2Config::default(),
            files: FilesConfig::default(),
            pipe: PipeConfig::default(),
            pattern: PatternConfig::default(),
        }
    }
}

/// `[camera.v4l2]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct V4l2Config {
    /// A path (`/dev/video0`, `/dev/v4l/by-id/…`), or `name:TEXT`, `serial:TEXT`,
    /// `bus:TEXT`: the first capture device whose card name, USB serial or bus
    /// information contains TEXT.
    pub device: String,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    /// `auto`, or one of `YUYV UYVY NV12 YU12 RGB3 BGR3 GREY MJPG NM12 YM12`.
    pub format: String,
    /// Kernel buffers to ask for.
    pub buffers: u32,
    /// Driver controls by name in snake case, as `v4l2-ctl -l` prints them.
    pub controls: BTreeMap<String, i64>,
}

impl Default for V4l2Config {
    fn default() -> Self {
        Self {
            device: "/dev/video0".into(),
            width: 1280,
            height: 720,
            fps: 15,
            format: "auto".into(),
            buffers: 4,
            controls: BTreeMap::new(),
        }
    }
}

/// `[camera.files]`: image files as a camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// Files, folders or glob patterns; within each, name order.
    pub paths: Vec<String>,
    #[serde(rename = "loop")]
    pub repeat: bool,
    pub fps: f64,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self { paths: Vec::new(), repeat: true, fps: 5.0 }
    }
}

/// `[camera.pipe]`: frames on a command's standard output, or on ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PipeConfig {
    /// Program and arguments; empty reads this process's standard input.
    pub command: Vec<String>,
    pub format: PipeFormat,
    /// For `raw`: the layout of each frame.
    pub width: u32,
    pub height: u32,
    pub pixel_format: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PipeFormat {
    #[default]
    Y4m,
    Mjpeg,
    Raw,
}

impl Default for PipeConfig {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            format: PipeFormat::Y4m,
            width: 640,
            height: 480,
            pixel_format: "YU12".into(),
        }
    }
}

/// `[camera.pattern]`: a moving synthetic scene.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatternConfig {
    pub width: u32,
    pub height: u32,
    pub fps: f64,
}

impl Default for PatternConfig {
    fn default() -> Self {
        Self { width: 640, height: 480, fps: 15.0 }
    }
}

/// `[geometry]`: from the camera's frame to the model's input, in this order:
/// rotate, mirror, crop, fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeometryConfig {
    pub fit: Fit,
    /// `[x, y, width, height]` in pixels of the upright picture; absent: all of it.
    pub crop: Option<[u32; 4]>,
    /// Clockwise: 0, 90, 180 or 270.
    pub rotate: u32,
    /// Left–right, after rotation.
    pub mirror: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// The whole crop, squeezed to the model's aspect ratio.
    Stretch,
    /// The largest centred rectangle of the model's aspect ratio.
    #[default]
    CenterCrop,
    /// The whole crop at its own aspect ratio, padded.
    Letterbox,
}

/// `[model]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// ONNX file; absent: the embedded default.
    pub path: Option<PathBuf>,
    /// One label a line; absent: the ONNX metadata key `labels`.
    pub labels: Option<PathBuf>,
    /// `[height, width]`; absent: what the model says.
    pub size: Option<[usize; 2]>,
    /// `keras` (x/127.5 − 1), `torch` (ImageNet mean and std), `unit` (x/255),
    /// `lite` ((x − 127)/128) or `raw`; absent: metadata, else `keras`.
    pub scaling: Option<Scaling>,
    /// Per channel on the 0–255 scale: `(x − mean) / std`; overrides `scaling`.
    pub mean: Option<[f32; 3]>,
    pub std: Option<[f32; 3]>,
    pub colour: Option<ColourOrder>,
    /// Name of the tensor that global average pooling reads; absent: found.
    pub features: Option<String>,
    /// Name of the head's weight tensor; absent: found.
    pub head: Option<String>,
    /// Worker threads; 0: one per core.
    pub threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    Keras,
    Torch,
    Unit,
    Lite,
    Raw,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourOrder {
    #[default]
    Rgb,
    Bgr,
}

/// `[classes]`: which classes get a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassesConfig {
    pub select: ClassSelect,
    /// How many, for `top`.
    pub top: usize,
    /// Labels or indices, for `list`.
    pub list: Vec<ClassName>,
    /// A class comes in when its probability reaches `enter` …
    pub enter: f32,
    /// … and goes out when it falls below `leave`, so that labels do not flicker.
    pub leave: f32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassSelect {
    #[default]
    Top,
    List,
    All,
}

/// A class as the user writes it: `"tench"` or `3`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ClassName {
    Index(usize),
    Label(String),
}

impl Default for ClassesConfig {
    fn default() -> Self {
        Self { select: ClassSelect::Top, top: 1, list: Vec::new(), enter: 0.0, leave: 0.0 }
    }
}

/// `[tta]`: the views.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TtaConfig {
    pub scales: Vec<f32>,
    pub hflip: bool,
    pub merge: Merge,
    pub budget: BudgetConfig,
    pub rolling: RollingConfig,
    pub gate: GateConfig,
    pub thermal: ThermalConfig,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// Every distinct listed view has weight 1/n.
    #[default]
    Mean,
    /// As keras-explainable 0.0.2 does it; needs the complete set of views.
    Keras,
}

impl Default for TtaConfig {
    fn default() -> Self {
        Self {
            scales: vec![0.5, 1.0, 1.5, 2.0],
            hflip: true,
            merge: Merge::Mean,
            budget: BudgetConfig::default(),
            rolling: RollingConfig::default(),
            gate: GateConfig::default(),
            thermal: ThermalConfig::default(),
        }
    }
}

impl TtaConfig {
    /// The same views without anything that holds them back: for pictures that are no stream.
    pub fn unlimited(self) -> Self {
        Self { scales: self.scales, hflip: self.hflip, merge: self.merge, ..Self::default() }
    }

    /// The key that lets a frame have fewer than all views, if one does.
    pub fn limited_by(&self) -> Option<&'static str> {
        let gate = &self.gate;
        [
            (self.budget.budget_ms.is_some(), "tta.budget.budget_ms"),
            (self.budget.cpu_percent.is_some(), "tta.budget.cpu_percent"),
            (self.budget.gmacs_per_s.is_some(), "tta.budget.gmacs_per_s"),
            (self.rolling.enabled, "tta.rolling.enabled"),
            (gate.usual_percent < 100.0, "tta.gate.usual_percent"),
            (gate.sure_margin.is_some() && gate.sure_percent < 100.0, "tta.gate.sure_margin"),
            (self.thermal.sensor.is_some(), "tta.thermal.sensor"),
        ]
        .into_iter()
        .find_map(|(limits, key)| limits.then_some(key))
    }
}

/// `[tta.budget]`: what a frame may cost. All absent: every view of every frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// Wall time from decoded frame to merged map.
    pub budget_ms: Option<u64>,
    /// Share of the processor; 100 is one core.
    pub cpu_percent: Option<f64>,
    /// Billions of multiply-accumulates per second of wall time.
    pub gmacs_per_s: Option<f64>,
    /// Views as `tta::View` prints them (`0.5f`), best value per cost first.
    pub order: Vec<String>,
}

/// `[tta.rolling]`: on a still scene, views kept from earlier frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollingConfig {
    pub enabled: bool,
    /// What further views may cost per frame on average, in identity views.
    pub share: f64,
    /// A kept view older than this counts for nothing.
    pub max_age_s: f64,
    /// Luma levels (of 255) of change that end a region of a kept view.
    pub change_levels: f32,
    /// When more than this share of the picture changed, it is another scene.
    pub cut_percent: f32,
}

impl Default for RollingConfig {
    fn default() -> Self {
        Self { enabled: false, share: 0.5, max_age_s: 30.0, change_levels: 6.0, cut_percent: 40.0 }
    }
}

/// `[tta.gate]`: less for frames that have not changed and for sure decisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateConfig {
    /// A frame nowhere further than this from the last one inferred is not inferred again.
    pub unchanged_levels: Option<f32>,
    /// No heatmap is published again for longer than this.
    pub max_age_s: f64,
    /// Share of the budget of a decision that is neither sure nor unsure.
    pub usual_percent: f64,
    /// Best less second probability from which on a decision is sure.
    pub sure_margin: Option<f32>,
    /// After so many sure frames in a row with the same best class …
    pub sure_frames: u32,
    /// … a frame gets this share of the budget.
    pub sure_percent: f64,
    /// Entropy, of a uniform guess's, from which on a decision gets all of the budget.
    pub unsure_entropy: Option<f32>,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            unchanged_levels: None,
            max_age_s: 1.0,
            usual_percent: 100.0,
            sure_margin: None,
            sure_frames: 5,
            sure_percent: 50.0,
            unsure_entropy: None,
        }
    }
}

/// `[tta.thermal]`: a hot board does less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThermalConfig {
    /// Type of a thermal zone, name of a hwmon chip, or `hottest`; absent: off.
    pub sensor: Option<String>,
    /// From here on the budget shrinks …
    pub hot_celsius: f64,
    /// … and from here down it grows back.
    pub cool_celsius: f64,
    /// What a step takes, of the whole budget.
    pub step_percent: f64,
    /// The least that is left.
    pub floor_percent: f64,
    /// Time between two steps.
    pub hold_s: f64,
}

impl Default for ThermalConfig {
    fn default() -> Self {
        Self {
            sensor: None,
            hot_celsius: 75.0,
            cool_celsius: 68.0,
            step_percent: 12.5,
            floor_percent: 25.0,
            hold_s: 5.0,
        }
    }
}

/// `[heatmap]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeatmapConfig {
    pub method: Method,
    pub filter: Filter,
}

/// Which map, for GAP + linear heads; see `heatmap::method`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    #[default]
    #[serde(rename = "cam")]
    Cam,
    #[serde(rename = "gradcam")]
    GradCam,
    #[serde(rename = "gradcam++")]
    GradCamPlusPlus,
    #[serde(rename = "layercam")]
    LayerCam,
    #[serde(rename = "xgradcam")]
    XGradCam,
    #[serde(rename = "eigencam")]
    EigenCam,
    #[serde(rename = "ablationcam")]
    AblationCam,
    #[serde(rename = "scorecam")]
    ScoreCam,
}

/// What is done to each merged class map; see `heatmap::filter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    None,
    Normalize,
    Positive,
    #[default]
    PositiveNormalize,
    AbsoluteNormalize,
    Negative,
    NegativeNormalize,
}

/// `[overlay]`: how pictures for people are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverlayConfig {
    pub colormap: Colormap,
    /// Opacity of the hottest point, 0–1; cooler points are more transparent.
    pub alpha: f32,
    pub upsample: Upsample,
    /// A box around each region above this threshold; absent: none.
    pub box_threshold: Option<f32>,
    /// What `box_threshold` is a share of.
    pub threshold: ThresholdKind,
    /// With the boxes, the outline of each region.
    pub contours: bool,
    pub label: bool,
}

/// How a map becomes as fine as its picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upsample {
    #[default]
    Bilinear,
    /// Along the picture's edges; see `heatmap::guided`.
    Guided,
}

/// How a threshold is found; see `heatmap::region::Threshold`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThresholdKind {
    /// Of the maximum.
    #[default]
    Share,
    /// Of the cells, which lie below it.
    Percentile,
    /// By itself, whatever `box_threshold` says.
    Otsu,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colormap {
    #[default]
    Turbo,
    Viridis,
    Inferno,
    Jet,
    Grey,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            colormap: Colormap::Turbo,
            alpha: 0.6,
            upsample: Upsample::Bilinear,
            box_threshold: None,
            threshold: ThresholdKind::Share,
            contours: false,
            label: true,
        }
    }
}

/// `[privacy]`: what leaves the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyConfig {
    pub pictures: Pictures,
}

/// What sinks get to see of the camera's pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pictures {
    #[default]
    Whole,
    /// No detail: see `preprocess::veil`.
    Blurred,
    /// Grey pictures.
    None,
}

/// `[[zones]]`: a named part of the picture. The defaults of what is required are a sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ZoneConfig {
    pub name: String,
    /// Corners `[x, y]` in fractions of the upright picture; sides do not cross.
    pub polygon: Vec<[f64; 2]>,
}

impl Default for ZoneConfig {
    fn default() -> Self {
        Self { name: "gate".into(), polygon: vec![[0.25, 0.25], [0.75, 0.25], [0.5, 0.75]] }
    }
}

/// `[[rules]]`: an event when a class's mass lies inside or outside a zone for too long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    pub name: String,
    pub zone: String,
    pub side: Side,
    /// Absent: the best class of each heatmap.
    pub class: Option<ClassName>,
    /// Raised once the share has been at least this …
    pub above: f64,
    /// … for so long …
    pub for_s: f64,
    /// … and cleared when it falls below this.
    pub below: f64,
    /// Program and arguments; empty: none.
    pub command: Vec<String>,
    pub command_timeout_s: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Inside,
    #[default]
    Outside,
}

impl Side {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::Outside => "outside",
        }
    }
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            name: "looks-away".into(),
            zone: "gate".into(),
            side: Side::Outside,
            class: None,
            above: 0.6,
            for_s: 10.0,
            below: 0.5,
            command: Vec::new(),
            command_timeout_s: 10.0,
        }
    }
}

/// `[mean]`: the long-term mean heatmap of each class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeanConfig {
    pub time_constant_s: f64,
    pub path: PathBuf,
    pub save_every_s: f64,
}

impl Default for MeanConfig {
    fn default() -> Self {
        Self {
            time_constant_s: 86_400.0,
            path: "/var/lib/salientd/mean.salh".into(),
            save_every_s: 600.0,
        }
    }
}

/// `[sink.*]`: where heatmaps go. A sink whose table is absent is off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinksConfig {
    pub socket: Option<SocketConfig>,
    pub files: Option<FileSinkConfig>,
    pub mqtt: Option<MqttConfig>,
    pub v4l2: Option<V4l2SinkConfig>,
    pub http: Option<HttpConfig>,
}

/// `[sink.socket]`: Unix stream socket; protocol in docs/protocol.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SocketConfig {
    pub path: PathBuf,
    /// File mode of the socket, octal as text.
    pub mode: String,
    pub max_clients: usize,
    /// Messages kept for a client that does not read; the oldest is dropped and counted.
    pub queue: usize,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self {
            path: "/run/salientd/heatmaps.sock".into(),
            mode: "0660".into(),
            max_clients: 32,
            queue: 4,
        }
    }
}

/// `[sink.http]`: the live page and its streams; docs/http.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// An address and port, `unix:PATH`, or `systemd`; see [`HttpListen`].
    pub listen: String,
    /// File mode of a Unix socket, octal as text.
    pub mode: String,
    /// Holds the secret that every request must carry; absent: none is asked for.
    pub token_file: Option<PathBuf>,
    /// Further connections are turned away; streams may hold three quarters of them.
    pub max_connections: usize,
    /// Pictures a second in a stream, where the camera gives as many.
    pub max_fps: f64,
    pub jpeg_quality: u8,
    /// Without a heatmap for longer than this, `/healthz` says so.
    pub stale_s: f64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8088".into(),
            mode: "0660".into(),
            token_file: None,
            max_connections: 64,
            max_fps: 15.0,
            jpeg_quality: 80,
            stale_s: 10.0,
        }
    }
}

/// Where the `http` sink listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpListen {
    Tcp(std::net::SocketAddr),
    Unix(PathBuf),
    /// The socket that the service manager hands down under the name `http`.
    Systemd,
}

/// Longest path of a Unix socket, without its NUL (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;

impl HttpListen {
    /// `None`: nothing to listen on.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("unix:") {
            Some(path) => {
                let fits = (1..=MAX_SOCKET_PATH_BYTES).contains(&path.len());
                (fits && !path.contains('\0')).then(|| Self::Unix(path.into()))
            }
            None if text == "systemd" => Some(Self::Systemd),
            None => text.parse().ok().map(Self::Tcp),
        }
    }
}

/// `[sink.files]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSinkConfig {
    pub dir: PathBuf,
    pub write: Vec<FileKind>,
    pub when: FileWhen,
    /// Seconds between two sets of files, for `when = "interval"`.
    pub every_s: f64,
    pub max_files: usize,
    pub max_mib: u64,
    /// Absent: files are kept as long as the other limits allow.
    pub max_age_days: Option<f64>,
    pub clip: Option<ClipConfig>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    OverlayPng,
    OverlayJpeg,
    HeatmapPng,
    Npy,
    MeanPng,
    MeanNpy,
    Jsonl,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileWhen {
    EveryFrame,
    #[default]
    Interval,
    ClassChange,
}

impl Default for FileSinkConfig {
    fn default() -> Self {
        Self {
            dir: "/var/lib/salientd".into(),
            write: vec![FileKind::OverlayJpeg, FileKind::Jsonl],
            when: FileWhen::Interval,
            every_s: 10.0,
            max_files: 10_000,
            max_mib: 512,
            max_age_days: None,
            clip: None,
        }
    }
}

/// `[sink.files.clip]`: overlays around an event as a film.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipConfig {
    pub on: Vec<ClipTrigger>,
    /// Absent: any.
    pub class: Option<ClassName>,
    pub score: f32,
    pub pre_s: f64,
    pub post_s: f64,
    /// An event during a clip lets it go on, up to this.
    pub max_s: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipTrigger {
    /// A rule is raised.
    Rule,
    /// A class gets a map that had none.
    Class,
    /// A class's probability reaches the score.
    Score,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            on: vec![ClipTrigger::Rule],
            class: None,
            score: 0.5,
            pre_s: 5.0,
            post_s: 5.0,
            max_s: 60.0,
        }
    }
}

/// `[sink.mqtt]`: to a broker; topics in docs/fleet.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    pub host: String,
    pub port: u16,
    /// Absent: the host name.
    pub device: Option<String>,
    /// First part of every topic.
    pub topic: String,
    /// Between two heatmaps; another best class is told at once. 0: every one.
    pub every_s: f64,
    pub qos: u8,
    /// Between two pictures; absent: none.
    pub picture_every_s: Option<f64>,
    pub picture_format: PictureFormat,
    pub picture_width_px: u32,
    /// First part of the topics that Home Assistant looks at; absent: no discovery.
    pub discovery_prefix: Option<String>,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub tls: bool,
    /// Absent: the system's.
    pub ca_file: Option<PathBuf>,
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    pub keep_alive_s: u16,
    /// Messages that wait for the broker; the oldest is dropped and counted.
    pub queue: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PictureFormat {
    #[default]
    Png,
    Jpeg,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            host: "localhost".into(),
            port: 1883,
            device: None,
            topic: "salientd".into(),
            every_s: 10.0,
            qos: 1,
            picture_every_s: None,
            picture_format: PictureFormat::Png,
            picture_width_px: 320,
            discovery_prefix: None,
            username: None,
            password_file: None,
            tls: false,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            keep_alive_s: 60,
            queue: 256,
        }
    }
}

/// `[sink.v4l2]`: a virtual camera.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct V4l2SinkConfig {
    /// The output node.
    pub device: PathBuf,
}

impl Default for V4l2SinkConfig {
    fn default() -> Self {
        Self { device: "/dev/video10".into() }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}
