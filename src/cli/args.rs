//! The command line: every command with its arguments, and how they change the
//! configuration. Names and ranges come from the configuration's own schema.

use super::exit;
use crate::config::schema::{self, Kind};
use crate::config::{
    ClassName, ClassSelect, ClassesConfig, Config, ConfigErrors, Filter, Merge, Method,
    SocketConfig, check_combinations, load,
};
use crate::explain::whole_picture;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};
use std::path::{Path, PathBuf};

/// Where the packaged service keeps its configuration.
pub const DEFAULT_CONFIG: &str = "/etc/salientd/salientd.toml";

/// Shows, live, what a camera's classifier is looking at.
#[derive(Debug, Parser)]
#[command(name = "salientd", version, about, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: camera frames in, heatmaps out
    Run(RunArgs),
    /// Run on the built-in model and pictures: no camera, no configuration, no network
    Demo(DemoArgs),
    /// Explain image files: arrays, scores, overlays and a contact sheet
    Explain(ExplainArgs),
    /// Watch a running daemon's heatmaps in the terminal
    Watch(WatchArgs),
    /// Measure each stage on this machine
    Bench(BenchArgs),
    /// Look into models
    Model(ModelArgs),
    /// Measure how good the maps are, on photos
    Eval(EvalArgs),
    /// Report everything wrong with a configuration
    CheckConfig(CheckConfigArgs),
    /// Print the effective configuration, defaults included, as commented TOML
    ShowConfig(ShowConfigArgs),
    /// Look at this machine: cameras, processor, temperature, rights
    Doctor(DoctorArgs),
    /// Print a shell completion script
    Completions(CompletionsArgs),
    /// Print the manual page (roff)
    Man,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for the pictures and results; made if it is not there
    #[arg(long, value_name = "DIR", default_value = "salientd-demo")]
    pub out: PathBuf,
    /// Show each picture once, then end; without a terminal this is always so
    #[arg(long)]
    pub once: bool,
    /// Where the live page is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8088")]
    pub listen: std::net::SocketAddr,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Image files
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// Folder for the results; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Start from this configuration instead of the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub views: ViewOptions,
    /// How the views' maps become one
    #[arg(long, value_parser = choice::<Merge>("tta.merge"))]
    pub merge: Option<Merge>,
    /// Which map
    #[arg(long, value_parser = choice::<Method>("heatmap.method"))]
    pub method: Option<Method>,
    /// What is done to the merged map
    #[arg(long, value_parser = choice::<Filter>("heatmap.filter"))]
    pub filter: Option<Filter>,
    /// topN, all, or labels and indices separated by commas
    #[arg(long, value_parser = parse_classes)]
    pub classes: Option<ClassesArg>,
    /// Labels, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
}

/// Model, input size and threads: shared by `explain`, `bench` and `eval`.
#[derive(Debug, Args)]
pub struct ModelOptions {
    /// ONNX file; without it, the one that --config names, else the built-in model
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Model input: HEIGHTxWIDTH in pixels, or native for each picture's own size
    #[arg(long, value_name = "HxW|native", value_parser = parse_size)]
    pub size: Option<SizeArg>,
    /// Worker threads; 0 is one per core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=256))]
    pub threads: Option<u16>,
}

/// The views: shared by `explain`, `bench` and `eval`.
#[derive(Debug, Args)]
pub struct ViewOptions {
    /// Scales of the views, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_scale)]
    pub scales: Option<Vec<f32>>,
    /// Whether to add each view's mirror image
    #[arg(long, value_name = "BOOL")]
    pub hflip: Option<bool>,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Socket of the daemon
    #[arg(long, value_name = "PATH", default_value_os_t = SocketConfig::default().path)]
    pub socket: PathBuf,
    /// Print each message's header as JSON, one a line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub views: ViewOptions,
    /// Hold frames to a budget, in ms, and count how they keep it
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub budget_ms: Option<u64>,
    /// Measured runs of each stage
    #[arg(long, value_name = "R", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub runs: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ModelArgs {
    #[command(subcommand)]
    pub command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Print a model's input, head, classes, cost and what runs in int8
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// ONNX file
    pub file: PathBuf,
    /// Take the model's settings and the views from this configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON, with the name of every node
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    pub command: EvalCommand,
}

#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// Do the maps lie on the things? Against boxes, and by hiding what they point at
    Localize(LocalizeArgs),
    /// What is each view worth? Parts of the views against all of them, and the best order
    Tta(TtaArgs),
    /// What does a budget buy? A clip or pictures, frame by frame, against all views
    Stream(StreamArgs),
}

/// Photos, model, views and output: shared by all of `eval`.
#[derive(Debug, Args)]
pub struct EvalOptions {
    /// Folder of photos, taken in name order
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Take only the first N photos
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Start from this configuration instead of the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub views: ViewOptions,
    /// How the views' maps become one
    #[arg(long, value_parser = choice::<Merge>("tta.merge"))]
    pub merge: Option<Merge>,
    /// Which map
    #[arg(long, value_parser = choice::<Method>("heatmap.method"))]
    pub method: Option<Method>,
    /// Labels, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Folder for plots and, from `eval tta`, for order.toml; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Print JSON, with every photo's figures, instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LocalizeArgs {
    #[command(flatten)]
    pub options: EvalOptions,
    /// Boxes: a folder with a Pascal VOC .xml for each photo, or one .json file for all
    #[arg(long, value_name = "DIR|FILE")]
    pub annotations: PathBuf,
    /// Whose map: of the class decided for, or of each class that the photo's boxes name
    #[arg(long, value_enum, default_value_t = SubjectArg::Top1)]
    pub class: SubjectArg,
}

#[derive(Debug, Args)]
pub struct TtaArgs {
    #[command(flatten)]
    pub options: EvalOptions,
    /// Boxes, for localisation scores: a folder with a Pascal VOC .xml for each photo, or
    /// one .json file for all
    #[arg(long, value_name = "DIR|FILE")]
    pub annotations: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct StreamArgs {
    /// A y4m file, or a folder of images: a stream in name order
    #[arg(long, value_name = "FILE|DIR")]
    pub source: PathBuf,
    /// Which views a frame gets
    #[arg(long, value_enum)]
    pub policy: PolicyArg,
    /// Frames a second that the stream stands for; without it, frames come as fast as they
    /// are worked off
    #[arg(long, value_name = "N", value_parser = parse_fps)]
    pub fps: Option<f64>,
    /// The budget of --policy budget, in ms; without it, three times the time of one view
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub budget_ms: Option<u64>,
    /// Show every picture for N frames
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub hold: u32,
    /// Add a camera's noise to every frame: standard deviation in levels (of 255)
    #[arg(long, value_name = "LEVELS", default_value_t = 0.0, value_parser = parse_noise)]
    pub noise: f32,
    /// Take only the first N frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Start from this configuration instead of the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub views: ViewOptions,
    /// Folder for the plot; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Overwrite a plot that is there
    #[arg(long, requires = "out")]
    pub force: bool,
    /// Print JSON, with every frame's figures, instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `--policy` of `eval stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PolicyArg {
    /// The view at scale 1 alone
    Identity,
    /// Every view of every frame
    Full,
    /// As many as fit into a time
    Budget,
    /// Spread over the frames, and kept
    Rolling,
}

/// `--class` of `eval localize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SubjectArg {
    #[value(name = "top-1")]
    Top1,
    Annotated,
}

#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Configuration file
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct ShowConfigArgs {
    /// Configuration file; without it, the defaults are shown
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration whose model, views and folders to check; without it, the built-in model
    /// and the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    pub shell: clap_complete::Shell,
}

/// `--size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeArg {
    /// Each picture's own size, for models with a dynamic input.
    Native,
    /// `[height, width]`.
    Fixed([usize; 2]),
}

/// `--classes`: as in `[classes]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassesArg {
    pub select: ClassSelect,
    /// Meant where `select` is `Top`.
    pub top: usize,
    /// Meant where `select` is `List`.
    pub list: Vec<ClassName>,
}

/// The configuration in `file`, or the defaults where none is given.
pub fn load_or_default(file: Option<&Path>) -> Result<Config, ConfigErrors> {
    file.map_or_else(|| Ok(Config::default()), load)
}

impl ExplainArgs {
    /// The configuration with the options laid over it.
    ///
    /// # Errors
    /// As [`load`], and for options that do not go together.
    pub fn effective_config(&self) -> Result<Config, ConfigErrors> {
        let mut config = load_or_default(self.config.as_deref())?;
        // Single pictures are no stream: each gets all its views.
        config.tta = config.tta.unlimited();
        self.model.apply(&mut config);
        self.views.apply(&mut config);
        if let Some(labels) = &self.labels {
            config.model.labels = Some(labels.clone());
        }
        config.tta.merge = self.merge.unwrap_or(config.tta.merge);
        config.heatmap.method = self.method.unwrap_or(config.heatmap.method);
        config.heatmap.filter = self.filter.unwrap_or(config.heatmap.filter);
        if let Some(ClassesArg { select, top, list }) = self.classes.clone() {
            config.classes = ClassesConfig { select, top, list, ..config.classes };
        }
        check_combinations(&config, "options")?;
        Ok(config)
    }
}

impl EvalOptions {
    /// The configuration with the options laid over it. Photos are explained whole unless
    /// a configuration says otherwise, and maps are left as they are, signed.
    ///
    /// # Errors
    /// As [`load`], and for options that do not go together.
    pub fn effective_config(&self) -> Result<Config, ConfigErrors> {
        let mut config = load_or_default(self.config.as_deref())?;
        if self.config.is_none() {
            config.geometry = whole_picture();
        }
        config.tta = config.tta.unlimited();
        self.model.apply(&mut config);
        self.views.apply(&mut config);
        if let Some(labels) = &self.labels {
            config.model.labels = Some(labels.clone());
        }
        config.tta.merge = self.merge.unwrap_or(config.tta.merge);
        config.heatmap.method = self.method.unwrap_or(config.heatmap.method);
        config.heatmap.filter = Filter::None;
        check_combinations(&config, "options")?;
        Ok(config)
    }

    /// How many photos to take at most.
    pub fn limit(&self) -> Option<usize> {
        self.limit.map(|n| n as usize)
    }
}

impl StreamArgs {
    /// The configuration with the options laid over it, for all views of every frame; what
    /// a policy makes of that is not these options' business.
    ///
    /// # Errors
    /// As [`load`], and for options that do not go together.
    pub fn effective_config(&self) -> Result<Config, ConfigErrors> {
        let mut config = load_or_default(self.config.as_deref())?;
        if self.config.is_none() {
            config.geometry = whole_picture();
        }
        self.model.apply(&mut config);
        self.views.apply(&mut config);
        config.heatmap.filter = Filter::None;
        config.classes = ClassesConfig { top: 1, ..ClassesConfig::default() };
        config.tta.merge = Merge::Mean;
        check_combinations(&config, "options")?;
        Ok(config)
    }
}

impl ModelOptions {
    /// Lays these options over a configuration; `--size native` leaves the size unset.
    pub fn apply(&self, config: &mut Config) {
        if let Some(model) = &self.model {
            config.model.path = Some(model.clone());
        }
        match self.size {
            Some(SizeArg::Fixed(size)) => config.model.size = Some(size),
            Some(SizeArg::Native) => config.model.size = None,
            None => {}
        }
        if let Some(threads) = self.threads {
            config.model.threads = threads.into();
        }
    }
}

impl ViewOptions {
    /// Lays these options over a configuration.
    pub fn apply(&self, config: &mut Config) {
        if let Some(scales) = &self.scales {
            config.tta.scales.clone_from(scales);
        }
        config.tta.hflip = self.hflip.unwrap_or(config.tta.hflip);
    }
}

/// Takes the values that the schema lists for a key, as the type that serde makes of them.
fn choice<T>(key: &str) -> impl TypedValueParser<Value = T> + use<T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    let values = match schema::find_key(key).map(|k| &k.kind) {
        Some(Kind::Choice(values)) => *values,
        _ => &[],
    };
    PossibleValuesParser::new(values)
        .try_map(|value| T::deserialize(StrDeserializer::<ValueError>::new(&value)))
}

fn parse_scale(text: &str) -> Result<f32, String> {
    match text.trim().parse::<f32>() {
        Ok(scale) if (0.25..=4.0).contains(&scale) => Ok(scale),
        _ => Err("allowed a number from 0.25 to 4".into()),
    }
}

fn parse_fps(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fps) if (0.01..=1000.0).contains(&fps) => Ok(fps),
        _ => Err("allowed a number from 0.01 to 1000".into()),
    }
}

fn parse_noise(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(levels) if (0.0..=50.0).contains(&levels) => Ok(levels),
        _ => Err("allowed a number from 0 to 50".into()),
    }
}

fn parse_size(text: &str) -> Result<SizeArg, String> {
    if text == "native" {
        return Ok(SizeArg::Native);
    }
    let side = |s: &str| s.parse().ok().filter(|n| (16..=4096).contains(n));
    text.split_once('x')
        .and_then(|(height, width)| Some(SizeArg::Fixed([side(height)?, side(width)?])))
        .ok_or_else(|| "allowed native, or HEIGHTxWIDTH with sides of 16 to 4096".into())
}

fn parse_classes(text: &str) -> Result<ClassesArg, String> {
    let problem =
        || "allowed topN (N of 1 to 1000), all, or labels and indices with commas between";
    if text == "all" {
        return Ok(ClassesArg { select: ClassSelect::All, top: 1, list: Vec::new() });
    }
    if let Some(count) = text.strip_prefix("top").and_then(|n| n.parse().ok()) {
        if !(1..=1000).contains(&count) {
            return Err(problem().into());
        }
        return Ok(ClassesArg { select: ClassSelect::Top, top: count, list: Vec::new() });
    }
    let list: Vec<_> = text.split(',').map(str::trim).map(class_name).collect();
    if list.contains(&ClassName::Label(String::new())) {
        return Err(problem().into());
    }
    Ok(ClassesArg { select: ClassSelect::List, top: 1, list })
}

fn class_name(text: &str) -> ClassName {
    text.parse().map_or_else(|_| ClassName::Label(text.into()), ClassName::Index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_laid_over_the_configuration() {
        let line = "salientd explain --model m.onnx --labels l.txt --scales 0.5,1,1.5,2 \
                    --hflip false --merge keras --method gradcam++ --filter none --classes 3,tench \
                    --size 299x320 --threads 2 --out d a.png b.png";
        let Command::Explain(args) = Cli::parse_from(line.split_whitespace()).command else {
            panic!("not explain");
        };
        let config = args.effective_config().unwrap();
        assert_eq!(config.model.path, Some("m.onnx".into()));
        assert_eq!(config.model.labels, Some("l.txt".into()));
        assert_eq!(config.model.size, Some([299, 320]));
        assert_eq!(config.model.threads, 2);
        assert_eq!(config.tta.scales, [0.5, 1.0, 1.5, 2.0]);
        assert!(!config.tta.hflip);
        assert_eq!(config.tta.merge, Merge::Keras);
        assert_eq!(config.heatmap.method, Method::GradCamPlusPlus);
        assert_eq!(config.heatmap.filter, Filter::None);
        assert_eq!(config.classes.select, ClassSelect::List);
        assert_eq!(config.classes.list, [ClassName::Index(3), ClassName::Label("tench".into())]);
        assert_eq!(args.images, [Path::new("a.png"), Path::new("b.png")]);
    }

    #[test]
    fn values_of_options() {
        let top3 = ClassesArg { select: ClassSelect::Top, top: 3, list: vec![] };
        assert_eq!(parse_classes("top3"), Ok(top3));
        let all = ClassesArg { select: ClassSelect::All, top: 1, list: vec![] };
        assert_eq!(parse_classes("all"), Ok(all));
        let label = ClassesArg {
            select: ClassSelect::List,
            top: 1,
            list: vec![ClassName::Label("topi".into())],
        };
        assert_eq!(parse_classes("topi"), Ok(label), "a label may begin with top");
        for bad in ["", "3,,4", "top0", "top1001"] {
            assert!(parse_classes(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_size("native"), Ok(SizeArg::Native));
        assert_eq!(parse_size("16x4096"), Ok(SizeArg::Fixed([16, 4096])));
        for bad in ["", "299", "15x299", "299x4097", "299X299", "x", "-1x16"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_scale("0.25"), Ok(0.25));
        for bad in ["0.24", "4.01", "nan", "", "one"] {
            assert!(parse_scale(bad).is_err(), "{bad:?}");
        }
    }
}
