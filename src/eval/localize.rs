//! Do maps lie on the things? docs/localization.md defines every figure.

use super::EvalError;
use super::annotations::{Object, Photo};
use super::baseline::{centre, centre_box, gaussian, moved};
use super::boxes::{Bounds, Grid, boxes_at_levels};
use super::faithfulness::{Curves, Faithfulness, STEPS, area};
use super::metrics::{Summary, mean, peak};
use crate::camera::image::load_image;
use crate::config::{ClassName, ClassSelect, ClassesConfig, Config, Upsample};
use crate::explain::{Explainer, Explanation, content};
use crate::frame::{Picture, Placement};
use crate::heatmap::guided::GuidedFilter;
use crate::heatmap::region::{Threshold, regions};
use crate::model::Model;
use crate::preprocess::geometry::Geometry;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// Thresholds that are tried on a map stretched to 0–1: i/256, as an 8-bit map has.
pub const THRESHOLDS: usize = 256;
/// From which IoU on a box is right: MaxBoxAccV2's three.
pub const RIGHT_AT: [f64; 3] = [0.3, 0.5, 0.7];
/// The box of a map is drawn around what reaches this share of its maximum.
/// Source: B. Zhou et al., "Learning Deep Features for Discriminative Localization", 2016.
pub const BOX_SHARE: f32 = 0.2;

/// Which class's map is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The one that the merged views decide for.
    Top1,
    /// Each that the photo's boxes name, whatever the model decides.
    Annotated,
}

/// A figure for the map and for the two guesses that never saw the photo.
#[derive(Clone, Debug, Serialize)]
pub struct Beside<T> {
    pub map: T,
    pub centre: T,
    pub gaussian: T,
}

/// What all trials say together. A trial is one photo and one class.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub photos: usize,
    pub trials: usize,
    /// Trials whose class names a box of the photo; the others may hit any box.
    pub named: usize,
    /// Share of trials whose maximum lies in a box.
    pub pointing: Beside<f64>,
    /// IoU of the map's box at [`BOX_SHARE`] with the best of the photo's.
    pub box_iou: Beside<Summary>,
    pub max_box_acc: Beside<MaxBoxAcc>,
    pub deletion: Faithful,
    pub insertion: Faithful,
    pub curves: AllCurves,
    pub each: Vec<Trial>,
}

/// MaxBoxAccV2. Source: J. Choe et al., "Evaluating Weakly Supervised Object Localization
/// Methods Right", CVPR 2020, in the version of its journal paper, TPAMI 2022.
#[derive(Clone, Debug, Serialize)]
pub struct MaxBoxAcc {
    /// The mean over [`RIGHT_AT`].
    pub v2: f64,
    /// The largest share of trials with a right box, over all thresholds.
    pub accuracy: [f64; 3],
    /// The first threshold that gives it.
    pub threshold: [f64; 3],
}

/// Mean areas under the curves, and what the map gains over the control.
#[derive(Clone, Debug, Serialize)]
pub struct Faithful {
    pub map: f64,
    pub gaussian: f64,
    /// The map moved elsewhere.
    pub control: f64,
    /// Mean over the trials of how much better the map is than its control; its standard
    /// error; the share of trials in which it is better.
    pub gain: f64,
    pub gain_error: f64,
    pub better: f64,
}

/// What the plots show: means over the trials.
#[derive(Clone, Debug, Serialize)]
pub struct AllCurves {
    /// Share of trials with a right box, `[RIGHT_AT][THRESHOLDS]`.
    pub box_accuracy: Beside<[Vec<f64>; 3]>,
    /// Probability after each step.
    pub deletion: Stepwise,
    pub insertion: Stepwise,
}

#[derive(Clone, Debug, Serialize)]
pub struct Stepwise {
    pub map: Vec<f64>,
    pub gaussian: Vec<f64>,
    pub control: Vec<f64>,
}

/// One photo and one class.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub image: PathBuf,
    pub class: String,
    /// Merged over the views, 0–1.
    pub probability: f32,
    pub named: bool,
    /// The map's maximum, in pixels of the photo.
    pub point: [f64; 2],
    pub hit: Beside<bool>,
    pub box_iou: Beside<f64>,
    /// Areas: map, Gaussian, control.
    pub deletion: [f64; 3],
    pub insertion: [f64; 3],
    #[serde(skip)]
    best_iou: Beside<Vec<f64>>,
    #[serde(skip)]
    curves: Vec<Curves>,
}

/// Measures maps on annotated photos; the views' plans are made once.
pub struct Localizer {
    explainer: Explainer,
    geometry: Geometry,
    faithfulness: Faithfulness,
    subject: Subject,
    guided: Option<GuidedFilter>,
    trials: Vec<Trial>,
    photos: usize,
}

impl Localizer {
    /// `config`'s classes give way to `subject`; its filter should be `none`. Maps are those
    /// that `config.overlay.upsample` draws.
    ///
    /// # Errors
    /// The model does not work at that size, or lacks a class that the boxes name.
    pub fn new(
        model: Arc<Model>,
        config: &Config,
        subject: Subject,
        photos: &[Photo],
    ) -> Result<Self, EvalError> {
        let classes = match subject {
            Subject::Top1 => {
                ClassesConfig { select: ClassSelect::Top, top: 1, ..each_photo_alone() }
            }
            Subject::Annotated => {
                let list = annotated_classes(&model.labels, photos)?;
                let list = list.into_iter().map(ClassName::Index).collect();
                ClassesConfig { select: ClassSelect::List, list, ..each_photo_alone() }
            }
        };
        let explainer = Explainer::new(model.clone(), &Config { classes, ..config.clone() })?;
        let geometry =
            Geometry::new(&config.geometry).map_err(crate::explain::ExplainError::from)?;
        let faithfulness = Faithfulness::new(model, explainer.size(), explainer.threads())?;
        let guided = (config.overlay.upsample == Upsample::Guided).then(GuidedFilter::default);
        let trials = Vec::new();
        Ok(Self { explainer, geometry, faithfulness, subject, guided, trials, photos: 0 })
    }

    pub fn explainer(&self) -> &Explainer {
        &self.explainer
    }

    /// Measures one photo.
    ///
    /// # Errors
    /// The photo cannot be read, or its annotation is another photo's.
    pub fn measure(&mut self, photo: &Photo) -> Result<(), EvalError> {
        let picture = load_image(&photo.image)?;
        photo.check_size([picture.width as u32, picture.height as u32])?;
        let size = self.explainer.size();
        let fitted = self.geometry.fit(&picture, size);
        let (placement, base) = fitted.map_err(crate::explain::ExplainError::from)?;
        let mut explained = self.explainer.explain(base)?;
        if let Some(guided) = &mut self.guided {
            refine(&mut explained, guided, base);
        }
        let classes = match self.subject {
            Subject::Top1 => vec![0],
            Subject::Annotated => {
                let named = |c: &usize| names_any(&explained.classes[*c].label, &photo.objects);
                (0..explained.classes.len()).filter(named).collect()
            }
        };
        for class in classes {
            let index = self.trials.len();
            let trial =
                trial(photo, base, &placement, &explained, class, index, &self.faithfulness)?;
            self.trials.push(trial);
        }
        self.photos += 1;
        Ok(())
    }

    /// What was measured.
    pub fn report(self) -> Report {
        let trials = self.trials;
        let boxes = |of: fn(&Trial) -> &Vec<f64>| box_accuracy(&trials, of);
        let box_accuracy = Beside {
            map: boxes(|t| &t.best_iou.map),
            centre: boxes(|t| &t.best_iou.centre),
            gaussian: boxes(|t| &t.best_iou.gaussian),
        };
        let share = |of: fn(&Trial) -> bool| {
            trials.iter().filter(|t| of(t)).count() as f64 / trials.len().max(1) as f64
        };
        let iou = |of: fn(&Trial) -> f64| Summary::of(trials.iter().map(of));
        let scores = |of: fn(&Trial) -> [f64; 3]| trials.iter().map(of).collect::<Vec<_>>();
        Report {
            photos: self.photos,
            trials: trials.len(),
            named: trials.iter().filter(|t| t.named).count(),
            pointing: Beside {
                map: share(|t| t.hit.map),
                centre: share(|t| t.hit.centre),
                gaussian: share(|t| t.hit.gaussian),
            },
            box_iou: Beside {
                map: iou(|t| t.box_iou.map),
                centre: iou(|t| t.box_iou.centre),
                gaussian: iou(|t| t.box_iou.gaussian),
            },
            max_box_acc: Beside {
                map: MaxBoxAcc::of(&box_accuracy.map),
                centre: MaxBoxAcc::of(&box_accuracy.centre),
                gaussian: MaxBoxAcc::of(&box_accuracy.gaussian),
            },
            deletion: Faithful::of(&scores(|t| t.deletion), -1.0),
            insertion: Faithful::of(&scores(|t| t.insertion), 1.0),
            curves: AllCurves {
                box_accuracy,
                deletion: Stepwise::of(&trials, |c| &c.deletion),
                insertion: Stepwise::of(&trials, |c| &c.insertion),
            },
            each: trials,
        }
    }
}

/// `[classes]` without thresholds that would make one photo depend on another.
fn each_photo_alone() -> ClassesConfig {
    ClassesConfig { enter: 0.0, leave: 0.0, ..ClassesConfig::default() }
}

/// Every class's map along the edges of the picture that the model saw.
fn refine(explained: &mut Explanation, guided: &mut GuidedFilter, base: &Picture) {
    let (count, whole) = (explained.classes.len(), base.whole());
    for class in 0..count {
        let of_class = || explained.values.iter().skip(class).step_by(count);
        let mut map: Vec<f32> = of_class().copied().collect();
        guided.refine(base, whole, &mut map, explained.width);
        explained.values.iter_mut().skip(class).step_by(count).zip(map).for_each(|(v, m)| *v = m);
    }
}

/// Indices of the classes that the boxes name.
fn annotated_classes(labels: &[String], photos: &[Photo]) -> Result<BTreeSet<usize>, EvalError> {
    let mut found = BTreeSet::new();
    for photo in photos {
        for Object { name, .. } in &photo.objects {
            let Some(index) = labels.iter().position(|label| is_named(label, name)) else {
                let some: Vec<&str> = labels.iter().take(6).map(String::as_str).collect();
                let more = if labels.len() > some.len() { ", …" } else { "" };
                let why = format!(
                    "a box of \"{name}\", and the model has no such class (it has {}{more}); \
                     --class top-1 takes the class that it decides for",
                    some.join(", ")
                );
                return Err(EvalError::annotation(&photo.annotation, why));
            };
            found.insert(index);
        }
    }
    Ok(found)
}

fn names_any(label: &str, objects: &[Object]) -> bool {
    objects.iter().any(|object| is_named(label, &object.name))
}

/// Whether a label, whose synonyms commas part, has that name.
fn is_named(label: &str, name: &str) -> bool {
    let plain = |text: &str| text.trim().to_lowercase().replace('_', " ");
    label.split(',').any(|synonym| plain(synonym) == plain(name))
}

/// The boxes that a class may hit: those that bear its name, or all if none does.
fn wanted(label: &str, objects: &[Object]) -> (bool, Vec<Bounds>) {
    let named = names_any(label, objects);
    let of_class = objects.iter().filter(|o| !named || is_named(label, &o.name));
    (named, of_class.map(|object| object.bounds).collect())
}

fn trial(
    photo: &Photo,
    base: &Picture,
    placement: &Placement,
    explained: &Explanation,
    class: usize,
    index: usize,
    faithfulness: &Faithfulness,
) -> Result<Trial, EvalError> {
    let count = explained.classes.len();
    let of_class = explained.values.iter().skip(class).step_by(count).copied().collect();
    let (height, width, map) = content(placement, explained.width, 1, of_class);
    let grid = Grid { height, width, placement: *placement };
    let score = &explained.classes[class];
    let (named, truth) = wanted(&score.label, &photo.objects);
    let truth: Vec<Bounds> = truth.iter().map(|pixels| grid.cells(pixels)).collect();
    let (blob, guess) = (gaussian(&grid), centre_box(&grid));
    let [x, y] = peak(&map, width).map(|cell| cell as f64 + 0.5);
    let hit = |point| truth.iter().any(|bounds| bounds.contains(point));
    let box_iou = |map: &[f32]| box_of(map, width).map_or(0.0, |b| b.best_iou(&truth));
    let maps = [&map[..], &blob, &moved(&map, width, index)];
    let curves = faithfulness.curves(base, placement.content, score.index, &maps)?;
    let areas = |of: fn(&Curves) -> &Vec<f64>| std::array::from_fn(|i| area(of(&curves[i])));
    Ok(Trial {
        image: photo.image.clone(),
        class: score.label.clone(),
        probability: score.probability,
        named,
        point: grid.pixel([x, y]),
        hit: Beside { map: hit([x, y]), centre: hit(centre(&grid)), gaussian: hit(centre(&grid)) },
        box_iou: Beside {
            map: box_iou(&map),
            centre: guess.best_iou(&truth),
            gaussian: box_iou(&blob),
        },
        deletion: areas(|c| &c.deletion),
        insertion: areas(|c| &c.insertion),
        best_iou: Beside {
            map: best_ious(&map, width, &truth),
            centre: vec![guess.best_iou(&truth); THRESHOLDS],
            gaussian: best_ious(&blob, width, &truth),
        },
        curves,
    })
}

/// The box around the largest part of the map that reaches [`BOX_SHARE`] of its maximum;
/// `None` for a map without anything above 0.
pub(super) fn box_of(map: &[f32], width: usize) -> Option<Bounds> {
    let level = Threshold::Share(BOX_SHARE).level(map)?;
    let largest = regions(map, width, level).into_iter().max_by_key(|region| region.cells)?;
    let [left, top] = [largest.bounds.x, largest.bounds.y].map(f64::from);
    let [width, height] = [largest.bounds.width, largest.bounds.height].map(f64::from);
    Some(Bounds { left, top, right: left + width, bottom: top + height })
}

/// For each threshold the best IoU of any of the map's boxes with any of the truth's.
fn best_ious(map: &[f32], width: usize, truth: &[Bounds]) -> Vec<f64> {
    let stretched = stretched(map);
    let mut best = vec![0.0; THRESHOLDS];
    let falling = (0..THRESHOLDS).rev().map(|i| i as f32 / THRESHOLDS as f32);
    boxes_at_levels(&stretched, width, falling, |i, boxes| {
        best[THRESHOLDS - 1 - i] = boxes.map(|b| b.best_iou(truth)).fold(0.0, f64::max);
    });
    best
}

/// From 0 at the minimum to 1 at the maximum; 0 everywhere if flat, and where not finite.
fn stretched(map: &[f32]) -> Vec<f32> {
    let finite = || map.iter().copied().filter(|v| v.is_finite());
    let (lo, hi) = (finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max));
    let stretch = |&v: &f32| if v.is_finite() && hi > lo { (v - lo) / (hi - lo) } else { 0.0 };
    map.iter().map(stretch).collect()
}

/// The share of trials with a right box, `[RIGHT_AT][THRESHOLDS]`.
fn box_accuracy(trials: &[Trial], best_iou: fn(&Trial) -> &Vec<f64>) -> [Vec<f64>; 3] {
    RIGHT_AT.map(|right_at| {
        let right = |i: usize| trials.iter().filter(|t| best_iou(t)[i] >= right_at).count();
        (0..THRESHOLDS).map(|i| right(i) as f64 / trials.len().max(1) as f64).collect()
    })
}

impl MaxBoxAcc {
    fn of(box_accuracy: &[Vec<f64>; 3]) -> Self {
        let best = |curve: &Vec<f64>| curve.iter().copied().fold(0.0, f64::max);
        let accuracy = box_accuracy.each_ref().map(best);
        let first = |i: usize| box_accuracy[i].iter().position(|&a| a == accuracy[i]);
        let threshold = std::array::from_fn(|i| first(i).unwrap_or(0) as f64 / THRESHOLDS as f64);
        Self { v2: mean(&accuracy), accuracy, threshold }
    }
}

impl Faithful {
    /// From each trial's areas (map, Gaussian, control); `sign` is 1 if more is better.
    fn of(areas: &[[f64; 3]], sign: f64) -> Self {
        let column = |i: usize| mean(&areas.iter().map(|a| a[i]).collect::<Vec<_>>());
        let gains: Vec<f64> = areas.iter().map(|a| sign * (a[0] - a[2])).collect();
        let gain = mean(&gains);
        let spread: f64 = gains.iter().map(|g| (g - gain).powi(2)).sum();
        let n = gains.len() as f64;
        Self {
            map: column(0),
            gaussian: column(1),
            control: column(2),
            gain,
            gain_error: (spread / (n - 1.0).max(1.0) / n.max(1.0)).sqrt(),
            better: gains.iter().filter(|&&g| g > 0.0).count() as f64 / n.max(1.0),
        }
    }
}

impl Stepwise {
    fn of(trials: &[Trial], curve: fn(&Curves) -> &Vec<f64>) -> Self {
        let mean_of = |i: usize| -> Vec<f64> {
            let at = |step: usize| {
                mean(&trials.iter().map(|t| curve(&t.curves[i])[step]).collect::<Vec<_>>())
            };
            (0..=STEPS).map(at).collect()
        };
        Self { map: mean_of(0), gaussian: mean_of(1), control: mean_of(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, left: f64) -> Object {
        let bounds = Bounds { left, top: 0.0, right: left + 1.0, bottom: 1.0 };
        Object { name: name.into(), bounds }
    }

    #[test]
    fn which_boxes_a_class_may_hit() {
        let objects = [object("dining_table", 0.0), object("cat", 1.0), object("Cat", 2.0)];
        let check = |label: &str, named: bool, lefts: &[f64]| {
            let (is_named, bounds) = wanted(label, &objects);
            let found: Vec<f64> = bounds.iter().map(|b| b.left).collect();
            assert_eq!((is_named, &found[..]), (named, lefts), "{label}");
        };
        check("cat", true, &[1.0, 2.0]);
        check("tabby, cat", true, &[1.0, 2.0]);
        check("dining table, board", true, &[0.0]);
        check("tabby cat", false, &[0.0, 1.0, 2.0]);
        check("catamaran", false, &[0.0, 1.0, 2.0]);
    }

    /// 6 × 4 cells: a weak part of eight on the left, a strong one of two on the right.
    const TWO: [f32; 24] = [
        3.0, 3.0, 0.0, 0.0, 0.0, 0.0, //
        3.0, 3.0, 0.0, 0.0, 0.0, 9.0, //
        3.0, 3.0, 0.0, -3.0, 0.0, 9.0, //
        3.0, 3.0, 0.0, 0.0, 0.0, 0.0, //
    ];

    #[test]
    fn the_box_of_a_map_is_around_its_largest_part() {
        let left = Bounds { left: 0.0, top: 0.0, right: 2.0, bottom: 4.0 };
        assert_eq!(box_of(&TWO, 6), Some(left));
        assert_eq!(box_of(&[-1.0; 4], 2), None);
    }

    #[test]
    fn any_of_a_maps_boxes_may_be_the_right_one() {
        let right = Bounds { left: 5.0, top: 1.0, right: 6.0, bottom: 3.0 };
        let ious = best_ious(&TWO, 6, &[right]);
        // Stretched, the values are 0 (−3), 1/4 (0), 1/2 (3) and 1 (9).
        let check = |range: std::ops::RangeInclusive<usize>, expected: f64| {
            assert!(ious[range.clone()].iter().all(|&iou| iou == expected), "{range:?} {ious:?}");
        };
        check(0..=64, 2.0 / 24.0);
        check(65..=128, 1.0);
        check(129..=255, 1.0);
        let left = Bounds { left: 0.0, top: 0.0, right: 2.0, bottom: 4.0 };
        let ious = best_ious(&TWO, 6, &[left, right]);
        assert_eq!((ious[0], ious[100], ious[200]), (8.0 / 24.0, 1.0, 1.0));
        assert_eq!(best_ious(&TWO, 6, &[left])[200], 0.0);
        assert_eq!(stretched(&[f32::NAN, 2.0, 4.0]), [0.0, 0.0, 1.0]);
        assert_eq!(stretched(&[5.0; 3]), [0.0; 3]);
    }

    #[test]
    fn the_best_threshold_is_chosen_for_each_iou() {
        let curve = |at: usize, value: f64| {
            let mut curve = vec![0.1; THRESHOLDS];
            curve[at] = value;
            curve
        };
        let best = MaxBoxAcc::of(&[curve(64, 0.9), curve(128, 0.6), curve(0, 0.3)]);
        assert_eq!((best.accuracy, best.threshold), ([0.9, 0.6, 0.3], [0.25, 0.5, 0.0]));
        assert!((best.v2 - 0.6).abs() < 1e-12);
    }

    #[test]
    fn gains_over_the_control() {
        let areas = [[0.2, 0.3, 0.4], [0.1, 0.3, 0.5], [0.3, 0.3, 0.2]];
        let got = Faithful::of(&areas, -1.0);
        assert!((got.gain - 0.5 / 3.0).abs() < 1e-12 && got.better == 2.0 / 3.0, "{got:?}");
        // Gains 0.2, 0.4, −0.1: standard deviation 0.2517, over √3.
        assert!((got.gain_error - 0.145_297).abs() < 1e-5, "{got:?}");
        assert!((Faithful::of(&areas, 1.0).gain + 0.5 / 3.0).abs() < 1e-12);
        assert_eq!(Faithful::of(&areas[..1], 1.0).gain_error, 0.0);
    }
}
