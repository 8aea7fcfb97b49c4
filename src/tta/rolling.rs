//! Rolling TTA: on a still scene the views other than the identity are spread over the
//! frames that follow, and their maps are kept until time or change makes them worthless.

use super::luma::{LumaGrid, REGIONS};
use super::view::View;
use std::time::Duration;

/// How kept views are made and given up.
#[derive(Clone, Debug, PartialEq)]
pub struct RollingSettings {
    /// What further views may cost per frame on average, in identity views.
    pub share: f64,
    /// A kept view older than this has no weight; it fades over the last quarter.
    pub max_age: Duration,
    /// A region that differs by this many luma levels from the frame that a view was
    /// made of has nothing of that view; half of it is still the same. Positive.
    pub change_levels: f32,
    /// When more than this share of the picture changed, 0–1, it is another scene.
    pub cut_share: f32,
}

impl Default for RollingSettings {
    fn default() -> Self {
        Self { share: 0.5, max_age: Duration::from_secs(30), change_levels: 6.0, cut_share: 0.4 }
    }
}

/// Decides which view runs when, keeps what views made (`T`: a map, or the features), and
/// says how much each kept one still counts in each region.
///
/// Per frame: [`begin`](Self::begin), [`next`](Self::next) until `None`, each view at most
/// once, [`keep`](Self::keep) for each that ran, then the weights.
#[derive(Debug)]
pub struct Rolling<T> {
    settings: RollingSettings,
    /// In order of value per cost, without the identity view.
    slots: Vec<Slot<T>>,
    /// Cost that may be spent now, in identity views.
    credit: f64,
    identity: [f32; REGIONS],
}

#[derive(Debug)]
struct Slot<T> {
    view: View,
    /// In identity views.
    cost: f64,
    kept: Option<Kept<T>>,
    /// Handed out for the frame at hand.
    asked: bool,
}

#[derive(Debug)]
struct Kept<T> {
    made: T,
    luma: LumaGrid,
    at: Duration,
    /// 1: as good as new; 0: nothing left of it.
    freshness: [f32; REGIONS],
    weights: [f32; REGIONS],
}

/// A kept view's part in the frame at hand.
#[derive(Debug)]
pub struct KeptView<'a, T> {
    pub view: View,
    pub made: &'a T,
    pub age: Duration,
    /// Per region, row by row; with all others' and the identity's these sum to one.
    pub weights: &'a [f32; REGIONS],
}

impl<T> Rolling<T> {
    /// `views` in order of value per cost; the identity view among them is left out, as
    /// it runs on every frame.
    pub fn new(settings: RollingSettings, views: &[View], [height, width]: [usize; 2]) -> Self {
        let further = views.iter().filter(|&&view| view != View::IDENTITY);
        let slot = |&view: &View| {
            let cost = view.cost(height, width);
            Slot { view, cost, kept: None, asked: false }
        };
        Self { settings, slots: further.map(slot).collect(), credit: 0.0, identity: [1.0; REGIONS] }
    }

    /// A frame that will be inferred: ages what is kept, and drops what is from another
    /// scene or from the future. `factor`, 0–1, is what heat leaves of the share for further
    /// views.
    pub fn begin(&mut self, luma: &LumaGrid, factor: f64, now: Duration) {
        let dearest = self.slots.iter().map(|slot| slot.cost).fold(0.0, f64::max);
        let earned = self.settings.share * factor;
        self.credit = (self.credit + earned).min(dearest.max(self.settings.share));
        for slot in &mut self.slots {
            slot.asked = false;
            slot.kept = slot.kept.take().and_then(|kept| kept.aged(&self.settings, luma, now));
        }
        self.weigh();
    }

    /// A view to run on this frame, paid from the credit: a missing one first, by value,
    /// then the oldest. `fits` says whether the time budget allows a view at all, now.
    pub fn next(&mut self, fits: impl Fn(View) -> bool) -> Option<View> {
        let wanted = self.slots.iter_mut().filter(|slot| !slot.asked && fits(slot.view));
        let slot = wanted.min_by_key(|slot| match &slot.kept {
            Some(kept) if !kept.mostly_gone() => Some(kept.at),
            _ => None,
        })?;
        if slot.cost > self.credit {
            return None;
        }
        self.credit -= slot.cost;
        slot.asked = true;
        Some(slot.view)
    }

    /// What `view` made of the frame with this `luma`.
    pub fn keep(&mut self, view: View, made: T, luma: &LumaGrid, now: Duration) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.view == view) {
            let (freshness, weights) = ([1.0; REGIONS], [0.0; REGIONS]);
            slot.kept = Some(Kept { made, luma: luma.clone(), at: now, freshness, weights });
            self.weigh();
        }
    }

    /// Forgets all: other classes, another model, another size. Nothing is left of the credit
    /// either, or what the model was warmed up with would pay for the first frames' views.
    pub fn clear(&mut self) {
        self.credit = 0.0;
        for slot in &mut self.slots {
            slot.kept = None;
        }
        self.weigh();
    }

    /// Whether every view is there with its full weight everywhere.
    pub fn is_complete(&self) -> bool {
        let whole = |kept: &Kept<T>| kept.freshness.iter().all(|&f| f == 1.0);
        self.slots.iter().all(|slot| slot.kept.as_ref().is_some_and(whole))
    }

    /// The identity view's weight in each region; never 0.
    pub fn identity_weights(&self) -> &[f32; REGIONS] {
        &self.identity
    }

    /// Kept views that count for anything in the frame begun at `now`.
    pub fn kept(&self, now: Duration) -> impl Iterator<Item = KeptView<'_, T>> {
        self.slots.iter().filter_map(move |slot| {
            let kept = slot.kept.as_ref().filter(|kept| kept.weights.iter().any(|&w| w > 0.0))?;
            let age = now.saturating_sub(kept.at);
            Some(KeptView { view: slot.view, made: &kept.made, age, weights: &kept.weights })
        })
    }

    /// Every view counts as much as it is fresh; the identity view always is.
    fn weigh(&mut self) {
        let mut totals = [1.0; REGIONS];
        for kept in self.slots.iter().filter_map(|slot| slot.kept.as_ref()) {
            totals.iter_mut().zip(&kept.freshness).for_each(|(total, f)| *total += f);
        }
        self.identity = totals.map(|total: f32| 1.0 / total);
        for kept in self.slots.iter_mut().filter_map(|slot| slot.kept.as_mut()) {
            for ((weight, freshness), total) in
                kept.weights.iter_mut().zip(&kept.freshness).zip(&totals)
            {
                *weight = freshness / total;
            }
        }
    }
}

impl<T> Kept<T> {
    /// How good it still is for a frame with this `luma`; `None`: throw it away.
    fn aged(mut self, settings: &RollingSettings, luma: &LumaGrid, now: Duration) -> Option<Self> {
        let left = settings.max_age.checked_sub(now.checked_sub(self.at)?)?;
        let change = self.luma.change_to(luma, settings.change_levels);
        if left.is_zero() || change.changed_share > settings.cut_share {
            return None;
        }
        let by_age = (4.0 * left.as_secs_f32() / settings.max_age.as_secs_f32()).min(1.0);
        for (freshness, levels) in self.freshness.iter_mut().zip(change.levels) {
            let by_change = (2.0 - 2.0 * levels / settings.change_levels).clamp(0.0, 1.0);
            *freshness = by_age * by_change;
        }
        Some(self)
    }

    fn mostly_gone(&self) -> bool {
        self.freshness.iter().sum::<f32>() < 0.5 * REGIONS as f32
    }
}

#[cfg(test)]
mod tests {
    use super::super::luma::REGION_SIDE;
    use super::super::luma::scene::{HEIGHT, WIDTH, fill, picture, shoot};
    use super::super::merge::{MapMerger, Weight};
    use super::super::{Budget, BudgetSettings, budget::ordered, views};
    use super::*;
    use crate::config::Merge;
    use proptest::prelude::*;

    const SIZE: [usize; 2] = [299, 299];
    const FRAME: Duration = Duration::from_millis(100);

    fn eight() -> Vec<View> {
        let listed = views(&[0.5, 1.0, 1.5, 2.0], true, Merge::Mean);
        ordered(&listed.iter().map(|v| v.view).collect::<Vec<_>>(), &[])
    }

    /// Remembers with every view the scene that it saw.
    struct Rig {
        rolling: Rolling<u64>,
        now: Duration,
        frames: u64,
        spent: f64,
    }

    impl Rig {
        fn new() -> Self {
            let rolling = Rolling::new(RollingSettings::default(), &eight(), SIZE);
            Self { rolling, now: Duration::ZERO, frames: 0, spent: 0.0 }
        }

        /// One frame of `scene`; then what must always hold.
        fn frame(&mut self, scene: u64, picture: &[f32]) {
            self.now += FRAME;
            self.frames += 1;
            let luma = shoot(picture, 1.0, 0.0, 2.0, self.frames);
            self.rolling.begin(&luma, 1.0, self.now);
            while let Some(view) = self.rolling.next(|_| true) {
                assert_ne!(view, View::IDENTITY);
                self.spent += view.cost(SIZE[0], SIZE[1]);
                self.rolling.keep(view, scene, &luma, self.now);
            }
            self.check_weights();
            let share = RollingSettings::default().share;
            assert!(self.spent <= share * self.frames as f64 + 1e-9, "more spent than allowed");
        }

        /// Weights sum to one: in every region, and at every pixel of maps merged by them.
        fn check_weights(&self) {
            let (rows, columns) = (REGION_SIDE, REGION_SIDE);
            let mut sums = *self.rolling.identity_weights();
            assert!(sums.iter().all(|&weight| weight > 0.0));
            let mut merger = MapMerger::default();
            merger.begin(19, 23, 1);
            let mut add = |view, values| {
                merger.add(view, Weight::Regions { rows, columns, values }, [2, 3], &[3.0; 6]);
            };
            add(View::IDENTITY, self.rolling.identity_weights());
            for kept in self.rolling.kept(self.now) {
                assert!(kept.age <= RollingSettings::default().max_age, "{}", kept.view);
                add(kept.view, kept.weights);
                sums.iter_mut().zip(kept.weights).for_each(|(sum, weight)| *sum += weight);
            }
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{sums:?}");
            assert!(merger.map().iter().all(|value| (value - 3.0).abs() < 1e-4));
        }

        fn scenes_kept(&self) -> Vec<u64> {
            self.rolling.kept(self.now).map(|kept| *kept.made).collect()
        }
    }

    #[test]
    fn a_still_scene_gets_every_view_for_half_a_view_more() {
        let (mut rig, still) = (Rig::new(), picture(1));
        let mut complete_at = None;
        for frame in 0..100 {
            rig.frame(1, &still);
            if rig.rolling.is_complete() {
                complete_at = complete_at.or(Some(frame));
            }
            if complete_at.is_some() {
                let weights = rig.rolling.kept(rig.now).flat_map(|kept| *kept.weights);
                let mut all = weights.chain(*rig.rolling.identity_weights());
                assert!(all.all(|weight| weight == 0.125), "frame {frame}: not the mean of eight");
            }
        }
        let cost = 1.0 + rig.spent / rig.frames as f64;
        assert!((1.4..=1.5).contains(&cost), "{cost} identity views a frame");
        let complete_at = complete_at.expect("complete in the end");
        assert!(complete_at <= 28, "13.5 views of cost take 27 frames, not {complete_at}");
    }

    #[test]
    fn the_first_frame_after_a_cut_has_nothing_from_before() {
        for seed in 0..3 {
            let (mut rig, scene) = (Rig::new(), picture(seed));
            for _ in 0..35 {
                rig.frame(seed, &scene);
            }
            assert_eq!(rig.scenes_kept(), [seed; 7]);
            rig.frame(seed + 1, &picture(seed + 1));
            assert!(!rig.scenes_kept().contains(&seed), "scene {seed} outlived the cut");
            rig.frame(seed, &picture(seed));
            assert!(!rig.scenes_kept().contains(&(seed + 1)), "scene {} came back", seed + 1);
        }
    }

    #[test]
    fn a_walk_through_a_corner_resets_that_corner_only() {
        let (mut rig, mut scene) = (Rig::new(), picture(4));
        for _ in 0..35 {
            rig.frame(1, &scene);
        }
        fill(&mut scene, [0.0, 0.0], [0.125, 0.25], 250.0);
        rig.frame(2, &scene);
        let corner = [0, REGION_SIDE];
        for kept in rig.rolling.kept(rig.now).filter(|kept| *kept.made == 1) {
            for (region, &weight) in kept.weights.iter().enumerate() {
                let expected = if corner.contains(&region) { 0.0 } else { 0.125 };
                assert_eq!(weight, expected, "{} in region {region}", kept.view);
            }
        }
    }

    /// A fifth of the picture is another, a piece in three of four regions: no cut, yet little is
    /// left of a view of it.
    #[test]
    fn a_view_that_is_mostly_gone_comes_before_older_ones() {
        let (mut rig, scene) = (Rig::new(), picture(3));
        for _ in 0..35 {
            rig.frame(1, &scene);
        }
        let mut pieces = scene.clone();
        let side = REGION_SIDE as f32;
        for (x, y) in (0..REGIONS).filter(|i| i % 4 > 0).map(|i| (i % REGION_SIDE, i / REGION_SIDE))
        {
            let at = [(x as f32 + 0.25) / side, (y as f32 + 0.25) / side];
            let before =
                scene[(at[1] * HEIGHT as f32) as usize * WIDTH + (at[0] * WIDTH as f32) as usize];
            fill(&mut pieces, at, [0.5 / side; 2], if before > 128.0 { 40.0 } else { 215.0 });
        }
        let newest =
            rig.rolling.slots.iter().max_by_key(|slot| slot.kept.as_ref().map(|kept| kept.at));
        let newest = newest.unwrap().view;
        let [whole, broken] = [&scene, &pieces].map(|scene| shoot(scene, 1.0, 0.0, 0.0, 1));
        rig.rolling.keep(newest, 1, &broken, rig.now);
        rig.rolling.begin(&whole, 1.0, rig.now);
        assert_eq!(rig.rolling.kept(rig.now).count(), 7, "a cut");
        rig.rolling.credit = 15.0;
        assert_eq!(rig.rolling.next(|_| true), Some(newest));
    }

    #[test]
    fn heat_leaves_less_for_further_views() {
        let (still, mut ran) = (picture(1), [0.0; 3]);
        for (spent, factor) in ran.iter_mut().zip([1.0, 0.25, 0.0]) {
            let mut rig = Rig::new();
            for _ in 0..200 {
                let luma = shoot(&still, 1.0, 0.0, 2.0, 1);
                rig.now += FRAME;
                rig.rolling.begin(&luma, factor, rig.now);
                while let Some(view) = rig.rolling.next(|_| true) {
                    *spent += view.cost(SIZE[0], SIZE[1]) / 200.0;
                    rig.rolling.keep(view, 1, &luma, rig.now);
                }
            }
        }
        let [cool, warm, hot] = ran;
        assert!((0.45..=0.5).contains(&cool) && (0.1..=0.125).contains(&warm), "{ran:?}");
        assert_eq!(hot, 0.0);
    }

    #[test]
    fn kept_views_fade_and_go_with_age() {
        let (mut rig, still) = (Rig::new(), picture(5));
        for _ in 0..35 {
            rig.frame(1, &still);
        }
        let luma = shoot(&still, 1.0, 0.0, 2.0, 99);
        rig.rolling.begin(&luma, 1.0, rig.now + Duration::from_secs(27));
        let identity = rig.rolling.identity_weights()[0];
        let kept: Vec<f32> = rig.rolling.kept(rig.now).map(|kept| kept.weights[0]).collect();
        assert!(kept.len() == 7 && kept.iter().all(|&w| w > 0.0 && w < 0.5 * identity), "{kept:?}");
        rig.rolling.begin(&luma, 1.0, rig.now + Duration::from_secs(31));
        assert_eq!(rig.rolling.kept(rig.now).count(), 0);
        assert_eq!(rig.rolling.identity_weights(), &[1.0; REGIONS]);
    }

    #[test]
    fn views_that_do_not_fit_are_passed_over() {
        let mut rig = Rig::new();
        let luma = shoot(&picture(6), 1.0, 0.0, 2.0, 1);
        let mut ran = Vec::new();
        for _ in 0..40 {
            rig.rolling.begin(&luma, 1.0, rig.now);
            while let Some(view) = rig.rolling.next(|view| view.scale <= 1.0) {
                rig.rolling.keep(view, 1, &luma, rig.now);
                ran.push(view);
            }
        }
        ran.sort();
        ran.dedup();
        let names: Vec<String> = ran.iter().map(View::to_string).collect();
        assert_eq!(names, ["0.5", "0.5f", "1f"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Random cuts, walks through corners, pauses and reloads.
        #[test]
        fn invariants_hold_whatever_happens(
            events in prop::collection::vec((0u8..12, 0u64..6), 1..30),
        ) {
            let (mut rig, mut seed) = (Rig::new(), 0);
            let mut scene = picture(seed);
            for (event, value) in events {
                match event {
                    0 => { seed = value; scene = picture(seed); }
                    1 => fill(&mut scene, [0.1 * value as f32, 0.5], [0.2, 0.3], 40.0 * value as f32),
                    2 => rig.now += Duration::from_secs(5 * value),
                    3 => rig.rolling.clear(),
                    _ => {}
                }
                rig.frame(seed, &scene);
                prop_assert!(rig.scenes_kept().iter().all(|&kept| kept == seed));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// Rolling views within a wall-time budget, reloads and changes of size included.
        #[test]
        fn a_time_budget_holds_as_well(
            events in prop::collection::vec((0u8..10, 1u64..80), 1..50),
        ) {
            let time = |view: View| Duration::from_secs_f64(0.01 * view.cost(SIZE[0], SIZE[1]));
            let luma = shoot(&picture(7), 1.0, 0.0, 0.0, 0);
            let mut now = Duration::ZERO;
            let (mut rolling, mut limit) = (None, Duration::ZERO);
            for (event, value) in events {
                if event == 0 || rolling.is_none() {
                    limit = Duration::from_millis(value);
                    let settings =
                        BudgetSettings { per_frame: Some(limit), ..Default::default() };
                    let side = if value % 2 == 0 { 299 } else { 128 };
                    let rolling_new = Rolling::new(RollingSettings::default(), &eight(), [side; 2]);
                    rolling = Some((rolling_new, Budget::new(settings, &eight(), SIZE, 1.0)));
                }
                let (rolling, budget) = rolling.as_mut().unwrap();
                let began = now;
                budget.begin(now, 1.0);
                rolling.begin(&luma, 1.0, now);
                prop_assert!(budget.start(View::IDENTITY, now));
                now += time(View::IDENTITY);
                budget.finished(View::IDENTITY, time(View::IDENTITY), now);
                while let Some(view) = rolling.next(|view| budget.affords(view, now)) {
                    prop_assert!(budget.start(view, now));
                    now += time(view);
                    budget.finished(view, time(view), now);
                    rolling.keep(view, (), &luma, now);
                }
                budget.end(now);
                prop_assert!(now - began <= limit.max(time(View::IDENTITY)));
                if let Some(view) = budget.untimed(now) {
                    budget.learn(view, time(view), now);
                }
                now += FRAME;
            }
        }
    }
}
