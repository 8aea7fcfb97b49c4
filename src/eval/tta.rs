//! What is each view worth? Every part of the views is compared with all of them, photo by
//! photo; docs/tta.md tells what came of it.

use super::EvalError;
use super::annotations::Photo;
use super::boxes::{Bounds, Grid};
use super::fit::{fitted, uniform};
use super::localize::box_of;
use super::metrics::{Summary, iou_at, mean, peak};
use crate::explain::ViewMap;
use crate::tta::View;
use serde::Serialize;

/// More views than this have more parts than anybody waits for.
pub const MOST_VIEWS: usize = 12;
/// IoU with the full map is of what reaches this share of the maximum.
const IOU_SHARE: f32 = 0.5;
/// Two peaks agree when they are no further apart than this share of the longer side: the
/// 15 of 224 pixels that the pointing game allows.
const NEAR: f64 = 15.0 / 224.0;

/// A part of the views: bit `i` stands for the i-th view.
type Part = usize;

/// The views with their costs, and what was seen of them so far.
pub struct Worth {
    views: Vec<View>,
    /// In identity views.
    costs: Vec<f64>,
    identity: Part,
    photos: Vec<PhotoSeen>,
}

/// What is kept of a photo.
struct PhotoSeen {
    /// Of the views' maps, `[n][n]` over `[n]`: covariances over the pixels, and means; all
    /// over the full map's deviation.
    covariance: Vec<Vec<f64>>,
    mean: Vec<f64>,
    /// For each part that has the identity view.
    parts: Vec<Seen>,
    /// Best less second probability of the identity view alone.
    margin: f64,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    iou: f64,
    points_alike: bool,
    decides_alike: bool,
    /// Whether the peak lies in a box, and the best IoU of the map's box with one.
    hit: Option<(bool, f64)>,
}

/// A part of the views against all of them.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// In order of value.
    pub views: Vec<String>,
    /// In identity views, by multiply-accumulates.
    pub cost: f64,
    /// Correlation with the map of all views.
    pub pearson: Summary,
    /// Overlap with it of what reaches half of the maximum.
    pub iou: f64,
    /// Share of photos whose peak is where the full map's is.
    pub pointing: f64,
    /// Share of photos that are decided alike.
    pub same_decision: f64,
    /// Against boxes: share of photos whose peak lies in one, and the IoU of the map's box.
    pub box_pointing: Option<f64>,
    pub box_iou: Option<f64>,
    /// Mean correlation with weights fitted on the photos of the other half.
    pub pearson_fitted: f64,
    /// The weights that fit all photos best, in the order of `views`; they sum to one.
    pub fitted_weights: Vec<f64>,
}

/// Spending by the identity view's decision: all views where its margin is below.
#[derive(Clone, Debug, Serialize)]
pub struct GateReport {
    pub margin: f64,
    /// Share of photos that are sure, and get the identity view alone.
    pub sure: f64,
    pub cost: f64,
    pub pearson: f64,
    /// Of the identity view alone, where it is sure and where it is not.
    pub pearson_if_sure: f64,
    pub pearson_if_unsure: f64,
    /// What the prefixes of the order give at that cost, linear between them.
    pub pearson_of_order: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub photos: usize,
    /// The order whose prefixes agree best over all budgets.
    pub order: Vec<String>,
    pub prefixes: Vec<PartReport>,
    /// The order that is built in.
    pub usual_order: Vec<String>,
    pub usual_prefixes: Vec<PartReport>,
    /// The best part at each cost: none is cheaper and as good.
    pub best: Vec<PartReport>,
    pub gate: Vec<GateReport>,
}

impl Worth {
    /// `views` with their multiply-accumulates.
    ///
    /// # Errors
    /// Too many views, or none at scale 1, which every frame gets.
    pub fn new(views: &[(View, u64)]) -> Result<Self, EvalError> {
        if views.len() > MOST_VIEWS {
            return Err(EvalError::Views(
                "every part of the views is measured, so at most 12 views: give fewer --scales",
            ));
        }
        let Some(at) = views.iter().position(|(view, _)| *view == View::IDENTITY) else {
            return Err(EvalError::Views(
                "every frame gets the view at scale 1: add 1 to --scales",
            ));
        };
        let identity_macs = views[at].1.max(1) as f64;
        Ok(Self {
            views: views.iter().map(|(view, _)| *view).collect(),
            costs: views.iter().map(|(_, macs)| *macs as f64 / identity_macs).collect(),
            identity: 1 << at,
            photos: Vec::new(),
        })
    }

    /// Takes in a photo: what each view made of it, and where its things are.
    pub fn add(&mut self, maps: &[ViewMap], width: usize, truth: Option<(&Photo, &Grid)>) {
        let everything = self.merged(maps, self.all());
        let truth: Option<Vec<Bounds>> = truth.map(|(photo, grid)| {
            photo.objects.iter().map(|object| grid.cells(&object.bounds)).collect()
        });
        let full = Full { map: &everything, width, decision: self.decision(maps, self.all()) };
        let seen = |part| {
            let map = self.merged(maps, part);
            full.compared(&map, self.decision(maps, part), truth.as_deref())
        };
        let parts = (0..=self.all())
            .map(|part| if part & self.identity != 0 { seen(part) } else { Seen::default() })
            .collect();
        let (covariance, mean) = moments(maps);
        let at = self.identity.trailing_zeros() as usize;
        self.photos.push(PhotoSeen { covariance, mean, parts, margin: margin(&maps[at].logits) });
    }

    /// What all photos say together.
    pub fn report(&self) -> Report {
        let order = self.best_order();
        let usual = crate::tta::budget::ordered(&self.views, &[]);
        let usual: Vec<usize> = usual.iter().filter_map(|&view| self.index(view)).collect();
        let names = |order: &[usize]| order.iter().map(|&i| self.views[i].to_string()).collect();
        let prefixes = self.prefixes(&order);
        Report {
            photos: self.photos.len(),
            gate: self.gate(&prefixes),
            prefixes,
            usual_order: names(&usual),
            usual_prefixes: self.prefixes(&usual),
            best: self.best_parts(&order),
            order: names(&order),
        }
    }

    fn all(&self) -> Part {
        (1 << self.views.len()) - 1
    }

    fn index(&self, view: View) -> Option<usize> {
        self.views.iter().position(|&v| v == view)
    }

    fn members(&self, part: Part) -> impl Iterator<Item = usize> + Clone {
        (0..self.views.len()).filter(move |i| part & 1 << i != 0)
    }

    fn cost(&self, part: Part) -> f64 {
        self.members(part).map(|i| self.costs[i]).sum()
    }

    /// The mean of a part's maps.
    fn merged(&self, maps: &[ViewMap], part: Part) -> Vec<f32> {
        let share = 1.0 / part.count_ones() as f32;
        let mut sum = vec![0.0; maps.first().map_or(0, |map| map.values.len())];
        for i in self.members(part) {
            sum.iter_mut().zip(&maps[i].values).for_each(|(sum, value)| *sum += share * value);
        }
        sum
    }

    /// The class that a part's logits are largest for.
    fn decision(&self, maps: &[ViewMap], part: Part) -> usize {
        let logit = |c: usize| self.members(part).map(|i| maps[i].logits[c]).sum::<f32>();
        let classes = maps.first().map_or(0, |map| map.logits.len());
        (0..classes).max_by(|&a, &b| logit(a).total_cmp(&logit(b))).unwrap_or_default()
    }

    fn pearson(&self, part: Part) -> Vec<f64> {
        let weights = uniform(self.views.len(), part);
        self.photos.iter().map(|photo| photo.pearson(&weights)).collect()
    }

    /// The order that agrees best with all views on average over budgets from one view to
    /// all, each doubling counting alike. Every part's best way to it is known from those of
    /// the parts with one view less, so all orders are compared.
    fn best_order(&self) -> Vec<usize> {
        let agreement: Vec<f64> = (0..=self.all())
            .map(|part| if part & self.identity != 0 { mean(&self.pearson(part)) } else { 0.0 })
            .collect();
        // The best sum so far, and the view that came last.
        let mut best = vec![(f64::NEG_INFINITY, usize::MAX); self.all() + 1];
        best[self.identity].0 = 0.0;
        for part in 0..=self.all() {
            if part & self.identity == 0 {
                continue;
            }
            for i in self.members(self.all() & !part) {
                let larger = part | 1 << i;
                let doublings = (self.cost(larger) / self.cost(part)).log2();
                let sum = best[part].0 + agreement[part] * doublings;
                if sum > best[larger].0 {
                    best[larger] = (sum, i);
                }
            }
        }
        let mut part = self.all();
        let mut order = Vec::new();
        while part != self.identity {
            order.push(best[part].1);
            part &= !(1 << best[part].1);
        }
        order.push(self.identity.trailing_zeros() as usize);
        order.reverse();
        order
    }

    fn prefixes(&self, order: &[usize]) -> Vec<PartReport> {
        (1..=order.len()).map(|n| self.part_report(&order[..n])).collect()
    }

    /// From cheap to dear the parts that are better than all cheaper ones.
    fn best_parts(&self, order: &[usize]) -> Vec<PartReport> {
        let parts = (0..=self.all()).filter(|part| part & self.identity != 0);
        let mut by_cost: Vec<(f64, f64, Part)> =
            parts.map(|part| (self.cost(part), mean(&self.pearson(part)), part)).collect();
        by_cost.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut best = f64::NEG_INFINITY;
        by_cost.retain(|&(_, agreement, _)| {
            let better = agreement > best;
            best = best.max(agreement);
            better
        });
        let members = |part: Part| order.iter().copied().filter(move |i| part & 1 << i != 0);
        by_cost
            .into_iter()
            .map(|(_, _, part)| self.part_report(&members(part).collect::<Vec<_>>()))
            .collect()
    }

    fn part_report(&self, members: &[usize]) -> PartReport {
        let part = members.iter().fold(0, |part, i| part | 1 << i);
        let seen = || self.photos.iter().map(|photo| photo.parts[part]);
        let share = |of: fn(Seen) -> bool| mean(&seen().map(|s| of(s).into()).collect::<Vec<_>>());
        let hits: Vec<(bool, f64)> = seen().filter_map(|s| s.hit).collect();
        let of_hits = |of: fn(&(bool, f64)) -> f64| {
            (!hits.is_empty()).then(|| mean(&hits.iter().map(of).collect::<Vec<_>>()))
        };
        let weights = fitted(&self.gram(|_| true), part);
        PartReport {
            views: members.iter().map(|&i| self.views[i].to_string()).collect(),
            cost: self.cost(part),
            pearson: Summary::of(self.pearson(part)),
            iou: mean(&seen().map(|s| s.iou).collect::<Vec<_>>()),
            pointing: share(|s| s.points_alike),
            same_decision: share(|s| s.decides_alike),
            box_pointing: of_hits(|hit| hit.0.into()),
            box_iou: of_hits(|hit| hit.1),
            pearson_fitted: self.pearson_fitted(part),
            fitted_weights: members.iter().map(|&i| weights[i]).collect(),
        }
    }

    /// Weights from every other photo, tried on those between.
    fn pearson_fitted(&self, part: Part) -> f64 {
        let halves = [0, 1].map(|half| fitted(&self.gram(|i| i % 2 != half), part));
        let photos = self.photos.iter().enumerate();
        mean(&photos.map(|(i, photo)| photo.pearson(&halves[i % 2])).collect::<Vec<_>>())
    }

    /// Sums of the maps' products over some photos, each photo counting alike.
    fn gram(&self, of: impl Fn(usize) -> bool) -> Vec<Vec<f64>> {
        let n = self.views.len();
        let mut gram = vec![vec![0.0; n]; n];
        for (_, photo) in self.photos.iter().enumerate().filter(|(i, _)| of(*i)) {
            for (a, row) in gram.iter_mut().enumerate() {
                for (b, sum) in row.iter_mut().enumerate() {
                    *sum += photo.covariance[a][b] + photo.mean[a] * photo.mean[b];
                }
            }
        }
        gram
    }

    fn gate(&self, prefixes: &[PartReport]) -> Vec<GateReport> {
        let identity = self.pearson(self.identity);
        let all_cost = self.cost(self.all());
        let curve: Vec<[f64; 2]> = prefixes.iter().map(|p| [p.cost, p.pearson.mean]).collect();
        [0.1, 0.25, 0.5, 0.75, 0.9, 0.98]
            .into_iter()
            .map(|margin| {
                let is_sure = |i: &usize| self.photos[*i].margin >= margin;
                let of = |sure: bool| -> Vec<f64> {
                    let those = (0..identity.len()).filter(|i| is_sure(i) == sure);
                    those.map(|i| identity[i]).collect()
                };
                let sure = of(true).len() as f64 / identity.len().max(1) as f64;
                // The identity view has run before anybody can ask how sure it is.
                let cost = sure + (1.0 - sure) * all_cost;
                GateReport {
                    margin,
                    sure,
                    cost,
                    pearson: sure * mean(&of(true)) + (1.0 - sure),
                    pearson_if_sure: mean(&of(true)),
                    pearson_if_unsure: mean(&of(false)),
                    pearson_of_order: between(&curve, cost),
                }
            })
            .collect()
    }
}

impl PhotoSeen {
    /// Of the maps added with these weights, with the mean of all.
    fn pearson(&self, weights: &[f64]) -> f64 {
        let all = uniform(weights.len(), (1 << weights.len()) - 1);
        let product = |a: &[f64], b: &[f64]| -> f64 {
            let row = |row: &Vec<f64>| row.iter().zip(b).map(|(c, b)| c * b).sum::<f64>();
            self.covariance.iter().zip(a).map(|(c, a)| a * row(c)).sum()
        };
        let spread = product(weights, weights) * product(&all, &all);
        if spread > 0.0 { product(weights, &all) / spread.sqrt() } else { 1.0 }
    }
}

/// The map of all views.
struct Full<'a> {
    map: &'a [f32],
    width: usize,
    decision: usize,
}

impl Full<'_> {
    fn compared(&self, map: &[f32], decision: usize, truth: Option<&[Bounds]>) -> Seen {
        let [x, y] = peak(map, self.width);
        let [full_x, full_y] = peak(self.map, self.width);
        let apart = (x.abs_diff(full_x) as f64).hypot(y.abs_diff(full_y) as f64);
        let longer = self.width.max(map.len() / self.width.max(1));
        let centre = [x as f64 + 0.5, y as f64 + 0.5];
        let hit = |truth: &[Bounds]| {
            let iou = box_of(map, self.width).map_or(0.0, |found| found.best_iou(truth));
            (truth.iter().any(|bounds| bounds.contains(centre)), iou)
        };
        Seen {
            iou: iou_at(map, self.map, IOU_SHARE),
            points_alike: apart <= NEAR * longer as f64,
            decides_alike: decision == self.decision,
            hit: truth.map(hit),
        }
    }
}

/// Covariances and means of the views' maps, over the deviation of their mean.
fn moments(maps: &[ViewMap]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let n = maps.len();
    let pixels = maps.first().map_or(0, |map| map.values.len()).max(1) as f64;
    let sum = |f: &dyn Fn(usize) -> f64| (0..pixels as usize).map(f).sum::<f64>() / pixels;
    let mean: Vec<f64> = maps.iter().map(|m| sum(&|i| f64::from(m.values[i]))).collect();
    let mut covariance = vec![vec![0.0; n]; n];
    for a in 0..n {
        for b in a..n {
            let (ma, mb) = (&maps[a].values, &maps[b].values);
            let c = sum(&|i| (f64::from(ma[i]) - mean[a]) * (f64::from(mb[i]) - mean[b]));
            (covariance[a][b], covariance[b][a]) = (c, c);
        }
    }
    let variance = covariance.iter().flatten().sum::<f64>() / (n * n).max(1) as f64;
    let scale = if variance > 0.0 { 1.0 / variance } else { 0.0 };
    covariance.iter_mut().flatten().for_each(|c| *c *= scale);
    (covariance, mean.iter().map(|m| m * scale.sqrt()).collect())
}

fn margin(logits: &[f32]) -> f64 {
    let probabilities = crate::classes::softmax(logits);
    let mut sorted = probabilities;
    sorted.sort_by(|a, b| b.total_cmp(a));
    f64::from(sorted.first().copied().unwrap_or(1.0) - sorted.get(1).copied().unwrap_or(0.0))
}

/// The curve's value at `x`, linear between its points.
fn between(curve: &[[f64; 2]], x: f64) -> f64 {
    let above = curve.iter().position(|point| point[0] >= x).unwrap_or(curve.len() - 1);
    let ([x0, y0], [x1, y1]) = (curve[above.saturating_sub(1)], curve[above]);
    if x1 > x0 { y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0.0, 1.0) } else { y1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(scale: f32, hflip: bool) -> View {
        View { scale, hflip }
    }

    fn map(view: View, values: &[f32]) -> ViewMap {
        ViewMap { view, values: values.to_vec(), logits: vec![1.0, 0.0] }
    }

    /// Three views: the second says nearly what all say and is cheap, the third is dear and
    /// says what the first says.
    fn worth() -> Worth {
        let views = [(view(2.0, false), 400), (View::IDENTITY, 100), (view(0.5, true), 25)];
        let mut worth = Worth::new(&views).unwrap();
        for shift in 0..6 {
            let s = shift as f32 * 0.1;
            let one = [1.0 + s, 0.0, 0.0, 2.0, 0.0, 1.0];
            let other = [0.0, 3.0, 1.0 + s, 0.0, 0.0, 1.0];
            let maps = [map(views[0].0, &one), map(views[1].0, &one), map(views[2].0, &other)];
            worth.add(&maps, 3, None);
        }
        worth
    }

    #[test]
    fn the_cheap_view_that_tells_something_new_comes_first() {
        let report = worth().report();
        assert_eq!(report.order, ["1", "0.5f", "2"]);
        assert_eq!(report.photos, 6);
        let costs: Vec<f64> = report.prefixes.iter().map(|p| p.cost).collect();
        assert_eq!(costs, [1.0, 1.25, 5.25]);
        let last = &report.prefixes[2];
        assert!((last.pearson.min - 1.0).abs() < 1e-9 && last.iou == 1.0, "{last:?}");
        assert_eq!((last.pointing, last.same_decision, last.box_iou), (1.0, 1.0, None));
        assert!(report.prefixes[0].pearson.mean < report.prefixes[1].pearson.mean);
        let best: Vec<usize> = report.best.iter().map(|part| part.views.len()).collect();
        assert_eq!(best, [1, 2, 3]);
    }

    #[test]
    fn fitted_weights_make_up_for_a_view_that_is_missing() {
        // All views: two thirds of one map, one third of the other.
        let part = &worth().report().prefixes[1];
        let weights = part.fitted_weights.as_slice();
        assert!((weights[0] - 2.0 / 3.0).abs() < 1e-6 && (weights[1] - 1.0 / 3.0).abs() < 1e-6);
        assert!((part.pearson_fitted - 1.0).abs() < 1e-9 && part.pearson.mean < 0.99);
    }

    #[test]
    fn agreement_by_moments_is_agreement_by_pixels() {
        let worth = worth();
        let s = 0.2;
        let one = [1.0 + s, 0.0, 0.0, 2.0, 0.0, 1.0];
        let other = [0.0, 3.0, 1.0 + s, 0.0, 0.0, 1.0];
        let part: Vec<f32> = one.iter().zip(&other).map(|(a, b)| (a + b) / 2.0).collect();
        let all: Vec<f32> = one.iter().zip(&other).map(|(a, b)| (2.0 * a + b) / 3.0).collect();
        let by_pixels = crate::eval::metrics::pearson(&part, &all);
        assert!((worth.pearson(0b110)[2] - by_pixels).abs() < 1e-6);
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let views = |n: usize| -> Vec<(View, u64)> {
            (0..n).map(|i| (view(1.0 + i as f32, false), 1)).collect()
        };
        let refused = |views: &[(View, u64)]| Worth::new(views).err().map(|e| e.to_string());
        let many = "every part of the views is measured, so at most 12 views: give fewer --scales";
        assert_eq!(refused(&views(13)).as_deref(), Some(many));
        let none = "every frame gets the view at scale 1: add 1 to --scales";
        assert_eq!(refused(&views(2)[1..]).as_deref(), Some(none));
        assert_eq!(refused(&views(12)), None);
    }

    #[test]
    fn between_points() {
        let curve = [[1.0, 0.0], [2.0, 1.0], [4.0, 2.0]];
        for (x, expected) in [(0.5, 0.0), (1.0, 0.0), (1.5, 0.5), (3.0, 1.5), (9.0, 2.0)] {
            assert_eq!(between(&curve, x), expected, "{x}");
        }
    }
}
