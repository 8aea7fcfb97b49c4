//! What does a budget buy? A stream is replayed, and every frame's map is compared with the
//! map of all views of the same frame.

use super::EvalError;
use super::images;
use super::metrics::{mean, pearson, percentile};
use crate::camera::clip::Clip;
use crate::camera::image::load_image;
use crate::config::{Config, RollingConfig};
use crate::explain::{ExplainError, Explainer, Explanation};
use crate::frame::Picture;
use crate::model::Model;
use crate::preprocess::decode::Decoder;
use crate::preprocess::geometry::Geometry;
use crate::tta::{LumaGrid, View};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A map that agrees with that of all views as well as this has recovered from a cut.
pub const RECOVERED: f64 = 0.99;

/// Pictures one after another: of a clip, or of a folder.
pub struct Source {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Clip(Clip, Decoder),
    Folder(VecDeque<PathBuf>),
}

impl Source {
    /// # Errors
    /// Nothing is there, or no image.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        let kind = if path.is_dir() {
            let images = images::list(path, None);
            let failed = |e| match e {
                EvalError::Folder { folder, why } => EvalError::Source { file: folder, why },
                other => other,
            };
            Kind::Folder(images.map_err(failed)?.into())
        } else {
            let failed = |why| EvalError::Source { file: path.to_path_buf(), why };
            Kind::Clip(Clip::open(path).map_err(failed)?, Decoder::new())
        };
        Ok(Self { path: path.to_path_buf(), kind })
    }

    /// How many pictures there are, where that is known.
    pub fn len(&self) -> Option<usize> {
        match &self.kind {
            Kind::Clip(..) => None,
            Kind::Folder(paths) => Some(paths.len()),
        }
    }

    /// Whether it is known that no picture is left.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The next picture; `None` at the end.
    ///
    /// # Errors
    /// What stands there is no picture.
    pub fn next_picture(&mut self) -> Result<Option<Picture>, EvalError> {
        let failed = |why| EvalError::Source { file: self.path.clone(), why };
        match &mut self.kind {
            Kind::Folder(paths) => {
                paths.pop_front().map(load_image).transpose().map_err(Into::into)
            }
            Kind::Clip(clip, decoder) => {
                let frame = clip.next_frame().map_err(failed)?;
                let picture = frame.map(|frame| decoder.decode(&frame)).transpose();
                picture.map_err(|e| failed(e.to_string()))
            }
        }
    }
}

/// A camera's noise: the same for the same seed, other on every frame.
pub struct Noise {
    levels: f32,
    state: u64,
}

impl Noise {
    /// Of this standard deviation.
    pub fn new(levels: f32) -> Self {
        Self { levels, state: 1 }
    }

    /// Adds it to every colour of every pixel.
    pub fn add(&mut self, picture: &mut Picture) {
        if self.levels == 0.0 {
            return;
        }
        for value in &mut picture.rgb {
            let noisy = f32::from(*value) + self.levels * self.normal();
            *value = noisy.round().clamp(0.0, 255.0) as u8;
        }
    }

    /// Nearly normal: the sum of four uniform numbers, from one step of a 64-bit generator.
    fn normal(&mut self) -> f32 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mixed = (self.state ^ (self.state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let sum: u64 = [0, 16, 32, 48].iter().map(|shift| mixed >> shift & 0xffff).sum();
        3f32.sqrt() * (sum as f32 / 65_536.0 - 2.0)
    }
}

/// One frame under a policy.
#[derive(Clone, Debug, Serialize)]
pub struct FrameReport {
    /// Views run for it, by multiply-accumulates, in identity views.
    pub cost_views: f64,
    pub spent_ms: f64,
    /// Correlation with the map of all views of this frame, for the class that these
    /// decide for.
    pub pearson: f64,
    pub views: usize,
    /// Every view counts fully.
    pub is_complete: bool,
    /// Another scene than the frame before.
    pub is_cut: bool,
    /// A view counts that was made before the last cut.
    pub from_before_cut: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub frames: usize,
    pub mean_cost_views: f64,
    pub mean_spent_ms: f64,
    pub pearson_mean: f64,
    pub pearson_p10: f64,
    pub pearson_min: f64,
    /// Over the frames from the first complete set of views on, after each cut anew; absent
    /// where there never was one.
    pub pearson_steady: Option<f64>,
    pub pearson_steady_min: Option<f64>,
    /// Frames before the first complete set.
    pub complete_after: Option<usize>,
    pub cuts: usize,
    /// Frames from a cut to the first map that agrees to [`RECOVERED`]; one that does not
    /// before the next cut counts with all its frames. Absent without cuts.
    pub recovery_frames: Option<f64>,
    /// Frames with a view from before the last cut.
    pub stale_frames: usize,
    /// Frames of more than 1.1 times the budget, in percent; absent without one.
    pub late_percent: Option<f64>,
    /// Frames in which the cheapest view not run would have fitted, in percent.
    pub idle_percent: Option<f64>,
    pub each: Vec<FrameReport>,
}

/// Replays pictures under one policy.
pub struct Replay {
    policy: Explainer,
    full: Explainer,
    geometry: Geometry,
    rolling: RollingConfig,
    /// Multiply-accumulates of each view in identity views.
    costs: Vec<(View, f64)>,
    /// Between two frames of the stream.
    frame: Option<Duration>,
    began: Option<Duration>,
    shown: u32,
    last_luma: Option<LumaGrid>,
    cut_at: Duration,
    outcomes: [usize; 3],
    each: Vec<FrameReport>,
}

impl Replay {
    /// `policy` against all views of the same scales. `fps`: frames a second that the
    /// stream stands for; `None`: as fast as the policy works them off.
    ///
    /// # Errors
    /// The model does not work so.
    pub fn new(model: Arc<Model>, policy: &Config, fps: Option<f64>) -> Result<Self, EvalError> {
        let mut all = policy.clone();
        all.tta = all.tta.unlimited();
        let full = Explainer::new(model.clone(), &all)?;
        let mut policy_explainer = Explainer::new(model, policy)?;
        policy_explainer.warm_up()?;
        policy_explainer.stop_clock();
        let macs = |view: &(View, u64)| view.1 as f64;
        let views = full.views();
        let identity = views.iter().find(|(view, _)| *view == View::IDENTITY).map(macs);
        let costs = views.iter().map(|v| (v.0, macs(v) / identity.unwrap_or(1.0).max(1.0)));
        Ok(Self {
            costs: costs.collect(),
            policy: policy_explainer,
            full,
            geometry: Geometry::new(&policy.geometry).map_err(ExplainError::from)?,
            rolling: policy.tta.rolling.clone(),
            frame: fps.map(|fps| Duration::from_secs_f64(1.0 / fps)),
            began: None,
            shown: 0,
            last_luma: None,
            cut_at: Duration::ZERO,
            outcomes: [0; 3],
            each: Vec::new(),
        })
    }

    /// Times the views that a budget does not know yet, as the daemon does between its
    /// first frames.
    ///
    /// # Errors
    /// Of the model.
    pub fn calibrate(&mut self, picture: &Picture) -> Result<(), EvalError> {
        let base = self.policy.fit(picture)?;
        self.policy.start_clock(Duration::ZERO);
        while self.policy.calibrate(&base)? {}
        self.policy.stop_clock();
        Ok(())
    }

    /// Shows a frame to the policy and to all views.
    ///
    /// # Errors
    /// Of the model.
    pub fn show(&mut self, picture: &Picture) -> Result<(), EvalError> {
        let size = self.policy.size();
        let (_, base) = self.geometry.fit(picture, size).map_err(ExplainError::from)?;
        // The time that the comparison took is not the stream's.
        let all = self.full.explain(base)?;
        if let Some(decided) = all.classes.first() {
            self.policy.set_only_class(decided.index);
        }
        let now = self.policy.start_clock(Duration::ZERO);
        let began = *self.began.get_or_insert(now);
        let due = self.frame.map_or(Duration::ZERO, |frame| began + frame * self.shown);
        let now = self.policy.start_clock(due);
        self.shown += 1;
        let got = self.policy.explain(base)?;
        self.policy.stop_clock();
        let luma = LumaGrid::new(&base.rgb, base.width, base.height);
        let is_cut = self.last_luma.as_ref().is_some_and(|last| {
            let change = last.change_to(&luma, self.rolling.change_levels);
            change.changed_share > self.rolling.cut_percent / 100.0
        });
        self.last_luma = Some(luma);
        if is_cut {
            self.cut_at = now;
        }
        self.each.push(self.frame_report(&got, &all, is_cut, now));
        if let Some(outcome) = got.outcome {
            let counts = [true, outcome.is_late(), outcome.is_idle()];
            self.outcomes.iter_mut().zip(counts).for_each(|(n, is)| *n += usize::from(is));
        }
        Ok(())
    }

    fn frame_report(
        &self,
        got: &Explanation,
        all: &Explanation,
        is_cut: bool,
        now: Duration,
    ) -> FrameReport {
        let fresh = got.views.iter().filter(|view| view.age_ms == 0.0);
        let cost = |view: View| self.costs.iter().find(|c| c.0 == view).map_or(0.0, |c| c.1);
        let since_cut_ms = (now - self.cut_at).as_secs_f64() * 1e3;
        FrameReport {
            cost_views: fresh.map(|v| cost(View { scale: v.scale, hflip: v.hflip })).sum(),
            spent_ms: got.spent_ms,
            pearson: pearson(&got.values, &all.values),
            views: got.views.len(),
            is_complete: got.is_complete,
            is_cut,
            from_before_cut: got.views.iter().any(|view| view.age_ms > since_cut_ms + 0.01),
        }
    }

    /// What came of it.
    pub fn report(self) -> Report {
        let each = self.each;
        let figures = |of: fn(&FrameReport) -> f64| each.iter().map(of).collect::<Vec<_>>();
        let mut sorted = figures(|f| f.pearson);
        sorted.sort_by(f64::total_cmp);
        let steady = steady(&each);
        let recoveries = recoveries(&each);
        let [frames, late, idle] = self.outcomes.map(|n| n as f64);
        let percent = |n: f64| (frames > 0.0).then(|| 100.0 * n / frames);
        Report {
            frames: each.len(),
            mean_cost_views: mean(&figures(|f| f.cost_views)),
            mean_spent_ms: mean(&figures(|f| f.spent_ms)),
            pearson_mean: mean(&sorted),
            pearson_p10: percentile(&sorted, 10.0),
            pearson_min: percentile(&sorted, 0.0),
            pearson_steady: (!steady.is_empty()).then(|| mean(&steady)),
            pearson_steady_min: steady.iter().copied().reduce(f64::min),
            complete_after: each.iter().position(|f| f.is_complete),
            cuts: each.iter().filter(|f| f.is_cut).count(),
            recovery_frames: (!recoveries.is_empty()).then(|| mean(&recoveries)),
            stale_frames: each.iter().filter(|f| f.from_before_cut).count(),
            late_percent: percent(late),
            idle_percent: percent(idle),
            each,
        }
    }
}

/// Agreement from the first complete set of views on, after each cut anew.
fn steady(each: &[FrameReport]) -> Vec<f64> {
    let mut is_steady = false;
    let mut steady = Vec::new();
    for frame in each {
        is_steady = frame.is_complete || (is_steady && !frame.is_cut);
        if is_steady {
            steady.push(frame.pearson);
        }
    }
    steady
}

/// Frames from each cut to the first one that agrees.
fn recoveries(each: &[FrameReport]) -> Vec<f64> {
    let cuts: Vec<usize> = (0..each.len()).filter(|&i| each[i].is_cut).collect();
    let ends = cuts.iter().skip(1).copied().chain([each.len()]);
    let frames = |(&cut, end): (&usize, usize)| {
        let scene = &each[cut..end];
        scene.iter().position(|f| f.pearson >= RECOVERED).unwrap_or(scene.len()) as f64
    };
    cuts.iter().zip(ends).map(frames).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str) -> Vec<FrameReport> {
        let frame = |c: char| FrameReport {
            cost_views: 1.0,
            spent_ms: 1.0,
            pearson: if "gG".contains(c) { 0.995 } else { 0.9 },
            views: 1,
            is_complete: c == 'G',
            is_cut: c == '|',
            from_before_cut: false,
        };
        text.chars().map(frame).collect()
    }

    #[test]
    fn recovery_is_counted_from_each_cut() {
        for (text, expected) in [
            ("bbgg", vec![]),
            ("bb|bbggb|b", vec![3.0, 2.0]),
            ("|", vec![1.0]),
            ("g|b|gg", vec![2.0, 1.0]),
        ] {
            assert_eq!(recoveries(&frames(text)), expected, "{text}");
        }
    }

    #[test]
    fn steady_is_from_a_complete_set_to_the_next_cut() {
        for (text, expected) in [("bbgg", 0), ("bGb", 2), ("bGb|bgGb", 4), ("GG|b", 2)] {
            assert_eq!(steady(&frames(text)).len(), expected, "{text}");
        }
    }

    #[test]
    fn noise_has_its_deviation() {
        let grey = Picture { rgb: vec![128; 3 * 64 * 64], width: 64, height: 64 };
        let mut noise = Noise::new(2.0);
        let (mut one, mut other) = (grey.clone(), grey.clone());
        noise.add(&mut one);
        noise.add(&mut other);
        assert_ne!(one, other);
        let off: Vec<f64> = one.rgb.iter().map(|&v| f64::from(v) - 128.0).collect();
        let spread = (off.iter().map(|x| x * x).sum::<f64>() / off.len() as f64).sqrt();
        assert!(mean(&off).abs() < 0.1 && (1.9..2.15).contains(&spread), "{spread}");
        let mut same = grey.clone();
        Noise::new(0.0).add(&mut same);
        assert_eq!(same, grey);
    }

    #[test]
    fn a_source_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("a.txt");
        std::fs::write(&text, "no clip").unwrap();
        let missing = dir.path().join("missing");
        let first = |path: &Path| Source::open(path)?.next_picture();
        for (path, why) in [
            (dir.path(), "no .png, .jpg or .jpeg in the folder"),
            (&missing, "No such file or directory (os error 2)"),
            (
                &text,
                "not a y4m stream: it does not start with YUV4MPEG2 (ffmpeg needs -f yuv4mpegpipe)",
            ),
        ] {
            let said = first(path).unwrap_err().to_string();
            let wants = "--source wants a y4m file or a folder of images";
            assert_eq!(said, format!("{}: {why}; {wants}", path.display()));
        }
    }
}
