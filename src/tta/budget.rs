//! Which views a frame can afford: in order of value per cost, none whose predicted time
//! exceeds what is left. Times are handed in, so a fake clock proves the logic.

use super::view::View;
use std::collections::VecDeque;
use std::time::Duration;

/// What a frame may cost. All absent: every view of every frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BudgetSettings {
    /// Wall time from decoded frame to merged map.
    pub per_frame: Option<Duration>,
    /// Share of the processor in percent; 100 is one core.
    pub cpu_percent: Option<f64>,
    /// Multiply-accumulates per second of wall time.
    pub macs_per_s: Option<f64>,
    /// Best value per cost first; views that are not named come after, in the default
    /// order. Empty: the default order.
    pub order: Vec<View>,
}

/// The default order after the identity view: measured on Xception over photos, agreement
/// with the map of all eight views rose from 0.962 (Pearson) by 0.020 with the mirrored
/// half-scale view at 0.23 of one view's cost, by 0.007 more with the mirrored view, and
/// the views of scale 2 gave least for 53 % of the cost.
const MEASURED_ORDER: [(f32, bool); 7] =
    [(0.5, true), (1.0, true), (1.5, true), (0.5, false), (1.5, false), (2.0, true), (2.0, false)];

/// `views` with the identity view first, then those of `order`, then the measured ones,
/// then the cheap before the dear and the mirrored before the plain.
pub fn ordered(views: &[View], order: &[View]) -> Vec<View> {
    let place = |list: &[View], view| list.iter().position(|&v| v == view).unwrap_or(usize::MAX);
    let measured = MEASURED_ORDER.map(|(scale, hflip)| View { scale, hflip });
    let rank = |view| (view != View::IDENTITY, place(order, view), place(&measured, view));
    let mut sorted = views.to_vec();
    sorted.sort_by(|&a, &b| {
        let by_cost = a.scale.total_cmp(&b.scale).then(b.hflip.cmp(&a.hflip));
        rank(a).cmp(&rank(b)).then(by_cost)
    });
    sorted.dedup();
    sorted
}

/// Hands out the views of one frame after another.
///
/// Per frame: [`begin`](Self::begin), then [`next`](Self::next) and
/// [`finished`](Self::finished) for each view, from as many workers as there are, then
/// [`end`](Self::end). Between frames the views that [`untimed`](Self::untimed) names are
/// run and [`learned`](Self::learn) from. `now` is time since any fixed moment and never
/// goes back.
#[derive(Debug)]
pub struct Budget {
    settings: BudgetSettings,
    /// In order of value per cost; the first always runs.
    candidates: Vec<Candidate>,
    cpu_s: Option<Bucket>,
    macs: Option<Bucket>,
    /// Multiply-accumulates of one identity view.
    identity_macs: f64,
    /// From the last view's end to the merged map.
    tail: Predictor,
    began: Duration,
    last_finished: Duration,
    factor: f64,
    /// Cost of the views started in this frame, in identity views.
    started_cost: f64,
}

/// A view's time is known after so many runs. The first reads its weights from memory or
/// disk and is not counted; of the others the slowest speaks.
const CALIBRATION_RUNS: u32 = 3;

/// How a frame came out against its wall time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// What the frame was to take, heat and gate considered.
    pub budget: Duration,
    pub spent: Duration,
    /// Predicted time of the cheapest view that was not run; `None`: all were.
    pub cheapest_left: Option<Duration>,
}

impl Outcome {
    /// Of the budget, or of a prediction: what lies within is as good as kept.
    const TOLERANCE: f64 = 1.1;

    /// More was taken than there was.
    pub fn is_late(&self) -> bool {
        self.spent > self.budget.mul_f64(Self::TOLERANCE)
    }

    /// One more view would have fitted.
    pub fn is_idle(&self) -> bool {
        let left = self.budget.saturating_sub(self.spent);
        self.cheapest_left.is_some_and(|cheapest| left > cheapest.mul_f64(Self::TOLERANCE))
    }
}

#[derive(Debug)]
struct Candidate {
    view: View,
    /// In identity views.
    cost: f64,
    times: Predictor,
    /// Its time in units of the first view's prediction; its cost until it has run.
    ratio: f64,
    /// Runs seen, up to [`CALIBRATION_RUNS`].
    runs: u32,
    started: bool,
    /// What was taken from the CPU bucket when it started, in seconds.
    reserved_s: f64,
}

impl Budget {
    /// `identity_macs` are those of one identity view of a `height` × `width` picture.
    pub fn new(
        settings: BudgetSettings,
        views: &[View],
        [height, width]: [usize; 2],
        identity_macs: f64,
    ) -> Self {
        let order = ordered(views, &settings.order);
        let first_cost = order.first().map_or(1.0, |first| first.cost(height, width));
        let candidate = |view: View| {
            let cost = view.cost(height, width);
            let ratio = if first_cost > 0.0 { cost / first_cost } else { 1.0 };
            let times = Predictor::default();
            Candidate { view, cost, times, ratio, runs: 0, started: false, reserved_s: 0.0 }
        };
        Self {
            candidates: order.into_iter().map(candidate).collect(),
            cpu_s: settings.cpu_percent.map(|percent| Bucket::new(percent / 100.0)),
            macs: settings.macs_per_s.map(Bucket::new),
            identity_macs,
            tail: Predictor::default(),
            began: Duration::ZERO,
            last_finished: Duration::ZERO,
            factor: 1.0,
            started_cost: 0.0,
            settings,
        }
    }

    /// A frame was decoded at `now`. `factor`, 0–1, is the share of the budget that it
    /// may cost: less than 1 on a hot board or for a sure decision. It also holds the
    /// frame to that share of all views' cost, so it works without any budget set.
    pub fn begin(&mut self, now: Duration, factor: f64) {
        self.began = now;
        self.last_finished = now;
        self.factor = if factor.is_nan() { 1.0 } else { factor.clamp(0.0, 1.0) };
        self.started_cost = 0.0;
        for candidate in &mut self.candidates {
            candidate.started = false;
        }
        for bucket in [&mut self.cpu_s, &mut self.macs].into_iter().flatten() {
            bucket.fill(now, self.factor);
        }
    }

    /// The next view to run, if one fits: the first in order that has not run and is
    /// predicted to finish within what is left. The very first always fits.
    pub fn next(&mut self, now: Duration) -> Option<View> {
        let index = (0..self.candidates.len()).find(|&i| self.may_start(i, now))?;
        self.reserve(index, now);
        Some(self.candidates[index].view)
    }

    /// Whether `view`, chosen by other means than the order, may start now.
    pub fn affords(&self, view: View, now: Duration) -> bool {
        self.find(view).is_some_and(|index| self.may_start(index, now))
    }

    /// Starts `view` if it may; [`finished`](Self::finished) must follow.
    pub fn start(&mut self, view: View, now: Duration) -> bool {
        let index = self.find(view).filter(|&index| self.may_start(index, now));
        if let Some(index) = index {
            self.reserve(index, now);
        }
        index.is_some()
    }

    /// A view that was started took `spent`.
    pub fn finished(&mut self, view: View, spent: Duration, now: Duration) {
        self.last_finished = self.last_finished.max(now);
        self.learn(view, spent, now);
        let started = self.candidates.iter().find(|c| c.view == view && c.started);
        if let (Some(bucket), Some(candidate)) = (&mut self.cpu_s, started) {
            bucket.take(spent.as_secs_f64() - candidate.reserved_s);
        }
    }

    /// `view` takes `spent`, whether or not it ran for a frame.
    pub fn learn(&mut self, view: View, spent: Duration, now: Duration) {
        /// Of a new time in the ratio.
        const NEWS: f64 = 0.2;

        let first = self.candidates.first().and_then(|first| first.times.p95(now));
        let Some(candidate) = self.candidates.iter_mut().find(|c| c.view == view) else { return };
        candidate.runs = CALIBRATION_RUNS.min(candidate.runs + 1);
        if candidate.runs == 1 {
            return;
        }
        if let Some(first) = first.filter(|first| !first.is_zero()) {
            let ratio = spent.as_secs_f64() / first.as_secs_f64();
            // The first time that counts says more than the area does.
            let news = if candidate.runs == 2 { 1.0 } else { NEWS };
            candidate.ratio += news * (ratio - candidate.ratio);
        }
        candidate.times.learn(spent, now);
    }

    /// The first view in order, after the very first, whose time is not known yet: it does
    /// not start within a limit of time before it was run so often. `None`: all are known,
    /// no time is limited, or what is left is far beyond the limit.
    pub fn untimed(&self, now: Duration) -> Option<View> {
        let limit_s = [
            self.settings.per_frame.map(|budget| budget.as_secs_f64()),
            self.cpu_s.map(|bucket| bucket.limit()),
        ];
        let limit_s = limit_s.into_iter().flatten().reduce(f64::min)?;
        // By area a view may be off by less than this.
        let hopeless_s = 2.0 * limit_s;
        (1..self.candidates.len())
            .filter(|&i| self.candidates[i].runs < CALIBRATION_RUNS)
            .find(|&i| self.predict_at(i, now).is_some_and(|p| p.as_secs_f64() <= hopeless_s))
            .map(|i| self.candidates[i].view)
    }

    /// The map is merged. What came of the frame, where its wall time is limited.
    pub fn end(&mut self, now: Duration) -> Option<Outcome> {
        self.tail.learn(now.saturating_sub(self.last_finished), now);
        let budget = self.settings.per_frame?.mul_f64(self.factor);
        let left = (0..self.candidates.len()).filter(|&i| !self.candidates[i].started);
        Some(Outcome {
            budget,
            spent: now.saturating_sub(self.began),
            cheapest_left: left.filter_map(|i| self.predict_at(i, now)).min(),
        })
    }

    /// Predicted time of `view`: the 95th percentile of its recent runs. Where there are
    /// none, the first view's, scaled by how the two used to compare, or by cost.
    /// `None` when nothing ran yet.
    pub fn predict(&self, view: View, now: Duration) -> Option<Duration> {
        self.predict_at(self.find(view)?, now)
    }

    /// The identity view's predicted time with all around it, when that alone exceeds the
    /// budget: the daemon warns with this figure and runs the identity view only.
    pub fn exceeded_by_first_view(&self, now: Duration) -> Option<Duration> {
        let least = self.predict_at(0, now)? + self.tail.p95(now).unwrap_or_default();
        self.settings.per_frame.filter(|&budget| least > budget).map(|_| least)
    }

    fn find(&self, view: View) -> Option<usize> {
        self.candidates.iter().position(|candidate| candidate.view == view)
    }

    fn may_start(&self, index: usize, now: Duration) -> bool {
        let first = self.started_cost == 0.0;
        !self.candidates[index].started && (first || self.fits(index, now))
    }

    /// Takes from the allowances what the view is expected to need.
    fn reserve(&mut self, index: usize, now: Duration) {
        let reserved_s = self.predict_at(index, now).unwrap_or_default().as_secs_f64();
        let candidate = &mut self.candidates[index];
        candidate.started = true;
        candidate.reserved_s = reserved_s;
        self.started_cost += candidate.cost.max(f64::MIN_POSITIVE);
        if let Some(bucket) = &mut self.cpu_s {
            bucket.take(reserved_s);
        }
        if let Some(bucket) = &mut self.macs {
            bucket.take(candidate.cost * self.identity_macs);
        }
    }

    fn predict_at(&self, index: usize, now: Duration) -> Option<Duration> {
        let candidate = self.candidates.get(index)?;
        if let Some(known) = candidate.times.p95(now) {
            return Some(known);
        }
        Some(self.candidates[0].times.p95(now)?.mul_f64(candidate.ratio))
    }

    fn fits(&self, index: usize, now: Duration) -> bool {
        let cost = self.candidates[index].cost;
        let all: f64 = self.candidates.iter().map(|c| c.cost).sum();
        let in_share = self.factor >= 1.0 || self.started_cost + cost <= self.factor * all;
        let in_macs = self.macs.is_none_or(|bucket| cost * self.identity_macs <= bucket.level);
        in_share && in_macs && self.fits_in_time(index, now)
    }

    fn fits_in_time(&self, index: usize, now: Duration) -> bool {
        if self.settings.per_frame.is_none() && self.cpu_s.is_none() {
            return true;
        }
        let is_known = index == 0 || self.candidates[index].runs == CALIBRATION_RUNS;
        let Some(predicted) = self.predict_at(index, now).filter(|_| is_known) else {
            return false;
        };
        let in_time = self.settings.per_frame.is_none_or(|budget| {
            let end =
                now.saturating_sub(self.began) + predicted + self.tail.p95(now).unwrap_or_default();
            end <= budget.mul_f64(self.factor)
        });
        in_time && self.cpu_s.is_none_or(|bucket| predicted.as_secs_f64() <= bucket.level)
    }
}

/// The 95th percentile of recent times. Old ones are forgotten, so that a view which one
/// bad second made look too dear is tried again.
#[derive(Debug, Default)]
struct Predictor(VecDeque<(Duration, Duration)>);

impl Predictor {
    const SAMPLES: usize = 64;
    const MEMORY: Duration = Duration::from_secs(30);

    fn learn(&mut self, spent: Duration, now: Duration) {
        if self.0.len() == Self::SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back((now, spent));
    }

    fn p95(&self, now: Duration) -> Option<Duration> {
        let recent = self.0.iter().filter(|(at, _)| now.saturating_sub(*at) <= Self::MEMORY);
        let mut times = [Duration::ZERO; Self::SAMPLES];
        let mut count = 0_usize;
        for (slot, (_, spent)) in times.iter_mut().zip(recent) {
            *slot = *spent;
            count += 1;
        }
        let rank = (count * 95).div_ceil(100).checked_sub(1)?;
        Some(*times[..count].select_nth_unstable(rank).1)
    }
}

/// An allowance that fills at a rate and is spent by views. The first view of a frame
/// runs in any case, so it can go into debt, which is bounded as savings are.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate_per_s: f64,
    level: f64,
    filled_at: Option<Duration>,
}

impl Bucket {
    /// Savings and debts beyond this much time's worth are forgotten.
    const MEMORY_S: f64 = 5.0;

    fn new(rate_per_s: f64) -> Self {
        Self { rate_per_s: rate_per_s.max(0.0), level: 0.0, filled_at: None }
    }

    fn fill(&mut self, now: Duration, factor: f64) {
        let elapsed = now.saturating_sub(self.filled_at.unwrap_or(now)).as_secs_f64();
        self.filled_at = Some(now);
        self.take(-elapsed * self.rate_per_s * factor);
    }

    /// The most that it ever holds.
    fn limit(self) -> f64 {
        self.rate_per_s * Self::MEMORY_S
    }

    fn take(&mut self, amount: f64) {
        let limit = self.limit();
        self.level = (self.level - amount).clamp(-limit, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Merge;
    use proptest::prelude::*;

    const SIZE: [usize; 2] = [299, 299];

    fn ms(ms: f64) -> Duration {
        Duration::from_secs_f64(ms / 1e3)
    }

    fn eight() -> Vec<View> {
        let views = super::super::views(&[0.5, 1.0, 1.5, 2.0], true, Merge::Mean);
        views.iter().map(|v| v.view).collect()
    }

    fn names(views: &[View]) -> String {
        views.iter().map(View::to_string).collect::<Vec<_>>().join(" ")
    }

    /// One thread on a fake clock. `time(view, noise)` is how long a view takes, with
    /// noise in 0–1.
    struct Rig<F: Fn(View, f64) -> Duration> {
        budget: Budget,
        now: Duration,
        random: u64,
        time: F,
    }

    impl<F: Fn(View, f64) -> Duration> Rig<F> {
        fn new(settings: BudgetSettings, time: F) -> Self {
            let mut budget = Budget::new(settings, &eight(), SIZE, 8.36e9);
            for _ in 0..CALIBRATION_RUNS {
                budget.learn(View::IDENTITY, time(View::IDENTITY, 0.5), Duration::ZERO);
            }
            while let Some(view) = budget.untimed(Duration::ZERO) {
                budget.learn(view, time(view, 0.5), Duration::ZERO);
            }
            Self { budget, now: Duration::ZERO, random: 1, time }
        }

        fn noise(&mut self) -> f64 {
            self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1);
            (self.random >> 33) as f64 / (1u64 << 31) as f64
        }

        /// Runs one frame: the views in the order they ran, the time it took, and whether
        /// more than 1.1 times the prediction of the cheapest view not run was left over.
        fn frame(&mut self, factor: f64) -> (Vec<View>, Duration, bool) {
            let began = self.now;
            let mut ran = Vec::new();
            self.budget.begin(self.now, factor);
            while let Some(view) = self.budget.next(self.now) {
                let noise = self.noise();
                let spent = (self.time)(view, noise);
                self.now += spent;
                self.budget.finished(view, spent, self.now);
                ran.push(view);
            }
            self.now += ms(0.3);
            let outcome = self.budget.end(self.now);
            assert!(outcome.is_none_or(|outcome| outcome.spent == self.now - began));
            (ran, self.now - began, outcome.is_some_and(|outcome| outcome.is_idle()))
        }
    }

    /// 10 ms an identity view, up to 10 % more with noise; now and then far more.
    fn usual(view: View, noise: f64) -> Duration {
        let slip = if noise > 0.995 { 2.0 } else { 1.0 };
        ms(10.0 * view.cost(SIZE[0], SIZE[1]) * (1.0 + 0.1 * noise) * slip)
    }

    fn per_frame(budget_ms: f64) -> BudgetSettings {
        BudgetSettings { per_frame: Some(ms(budget_ms)), ..Default::default() }
    }

    #[test]
    fn order_is_by_measured_value_then_by_hand() {
        assert_eq!(names(&ordered(&eight(), &[])), "1 0.5f 1f 1.5f 0.5 1.5 2f 2");
        let by_hand = [View { scale: 2.0, hflip: false }, View { scale: 3.0, hflip: false }];
        assert_eq!(names(&ordered(&eight(), &by_hand)), "1 2 0.5f 1f 1.5f 0.5 1.5 2f");
        let odd = super::super::views(&[1.25, 0.75], true, Merge::Mean);
        let odd: Vec<View> = odd.iter().map(|v| v.view).collect();
        assert_eq!(names(&ordered(&odd, &[])), "0.75f 0.75 1.25f 1.25");
    }

    #[test]
    fn without_limits_every_view_runs() {
        let mut rig = Rig::new(BudgetSettings::default(), usual);
        assert_eq!(names(&rig.frame(1.0).0), "1 0.5f 1f 1.5f 0.5 1.5 2f 2");
        let mut budget = Budget::new(BudgetSettings::default(), &eight(), SIZE, 0.0);
        budget.begin(Duration::ZERO, 1.0);
        let all: Vec<View> = std::iter::from_fn(|| budget.next(Duration::ZERO)).collect();
        assert_eq!(all.len(), 8, "before anything was measured, too");
    }

    #[test]
    fn frames_keep_to_their_wall_time_and_use_it() {
        for (budget_ms, expected) in [
            (5.0, "1"),
            (12.0, "1"),
            (15.0, "1 0.5f"),
            (25.4, "1 0.5f 1f"),
            (33.0, "1 0.5f 1f 0.5"), // 1.5f does not fit, the cheaper one after it does
            (60.0, "1 0.5f 1f 1.5f 0.5"),
            (500.0, "1 0.5f 1f 1.5f 0.5 1.5 2f 2"),
        ] {
            let mut rig = Rig::new(per_frame(budget_ms), usual);
            let (mut late, mut idle, mut as_expected) = (0, 0, 0);
            for _ in 0..1000 {
                let (ran, spent, left_over) = rig.frame(1.0);
                assert_eq!(ran[0], View::IDENTITY);
                late += usize::from(spent > ms(budget_ms * 1.1));
                idle += usize::from(left_over);
                as_expected += usize::from(names(&ran) == expected);
            }
            assert!(as_expected > 900, "{budget_ms} ms: {expected} in {as_expected} frames only");
            if budget_ms > 12.0 {
                assert!(late <= 10, "{budget_ms} ms: {late} of 1000 frames late");
            }
            assert!(idle <= 50, "{budget_ms} ms: {idle} of 1000 frames idle");
        }
    }

    /// Two workers draw from one budget; views get slower beside each other.
    #[test]
    fn workers_share_a_frame() {
        let mut rig = Rig::new(per_frame(60.0), usual);
        let (mut late, mut views) = (0, 0);
        for _ in 0..1000 {
            let began = rig.now;
            rig.budget.begin(began, 1.0);
            let mut running: Vec<(Duration, Duration, View)> = Vec::new();
            loop {
                while running.len() < 2 {
                    let Some(view) = rig.budget.next(rig.now) else { break };
                    assert!(rig.now > began || !running.is_empty() || view == View::IDENTITY);
                    let noise = rig.noise();
                    let spent = usual(view, noise).mul_f64(1.2);
                    running.push((rig.now + spent, spent, view));
                    views += 1;
                }
                running.sort();
                if running.is_empty() {
                    break;
                }
                let (end, spent, view) = running.remove(0);
                rig.now = end;
                rig.budget.finished(view, spent, end);
            }
            rig.budget.end(rig.now);
            late += usize::from(rig.now - began > ms(66.0));
        }
        assert!(late <= 10, "{late} of 1000 frames late");
        assert!(views > 5500, "two workers should do six views a frame, not {views} in 1000");
    }

    #[test]
    fn a_view_of_unknown_time_does_not_start() {
        let mut budget = Budget::new(per_frame(60.0), &eight(), SIZE, 8.36e9);
        let frame = |budget: &mut Budget, now| {
            budget.begin(now, 1.0);
            let ran: Vec<View> = std::iter::from_fn(|| budget.next(now)).collect();
            ran.iter().for_each(|&view| budget.finished(view, usual(view, 0.0), now));
            ran
        };
        let now = Duration::from_secs(1);
        assert_eq!(budget.untimed(now), None, "nothing to compare a view with yet");
        // Of the first frame's view the time is not counted yet.
        for _ in 0..CALIBRATION_RUNS {
            assert_eq!(names(&frame(&mut budget, now)), "1");
        }
        let mut timed = Vec::new();
        while let Some(view) = budget.untimed(now) {
            // Cold ten times as slow: that run says nothing.
            let cold = if timed.contains(&view) { 1.0 } else { 10.0 };
            budget.learn(view, usual(view, 0.0).mul_f64(cold), now);
            timed.push(view);
        }
        timed.dedup();
        assert_eq!(names(&timed), "0.5f 1f 1.5f 0.5 1.5 2f 2");
        assert_eq!(budget.predict(timed[0], now), Some(usual(timed[0], 0.0)));
        assert_eq!(frame(&mut budget, now).len(), 8);

        let mut small = Budget::new(per_frame(15.0), &eight(), SIZE, 8.36e9);
        (0..CALIBRATION_RUNS).for_each(|_| drop(frame(&mut small, now)));
        let mut timed = Vec::new();
        while let Some(view) = small.untimed(now) {
            small.learn(view, usual(view, 0.0), now);
            timed.push(view);
        }
        timed.dedup();
        assert_eq!(names(&timed), "0.5f 1f 1.5f 0.5 1.5", "scale 2 is beyond twice the budget");
    }

    #[test]
    fn a_budget_below_the_first_view_is_told() {
        let told = |budget_ms| {
            let mut rig = Rig::new(per_frame(budget_ms), |view, _| usual(view, 0.0));
            rig.frame(1.0);
            rig.budget.exceeded_by_first_view(rig.now)
        };
        assert_eq!(told(5.0), Some(ms(10.3)));
        assert_eq!(told(11.0), None);
    }

    /// A view that has not run for long is predicted from the first one's times now, by what the
    /// two took when both ran.
    #[test]
    fn how_views_compare_is_remembered() {
        let dear = eight()[1];
        let time = move |view: View, _| ms(if view == dear { 70.0 } else { 10.0 });
        let mut rig = Rig::new(per_frame(300.0), time);
        let later = Predictor::MEMORY * 2;
        rig.budget.learn(View::IDENTITY, ms(20.0), later);
        let predicted = rig.budget.predict(dear, later).unwrap();
        assert!(predicted.abs_diff(ms(140.0)) < ms(0.1), "{predicted:?}");
    }

    #[test]
    fn a_bad_moment_is_forgotten() {
        let slow = std::cell::Cell::new(1.0);
        let mut rig =
            Rig::new(per_frame(60.0), |view, noise| usual(view, noise).mul_f64(slow.get()));
        let usual = rig.frame(1.0).0;
        slow.set(5.0);
        for _ in 0..100 {
            rig.frame(1.0);
        }
        assert_eq!(names(&rig.frame(1.0).0), "1");
        slow.set(1.0);
        while rig.frame(1.0).0 != usual {
            assert!(rig.now < Duration::from_secs(60), "still at {}", names(&rig.frame(1.0).0));
        }
    }

    #[test]
    fn shares_hold_over_time_and_are_used() {
        let cpu = BudgetSettings { cpu_percent: Some(50.0), ..Default::default() };
        let macs = BudgetSettings { macs_per_s: Some(8.36e9 * 50.0), ..Default::default() };
        for settings in [cpu, macs] {
            let mut rig = Rig::new(settings.clone(), |view, _| usual(view, 0.0));
            let mut busy = Duration::ZERO;
            for _ in 0..1000 {
                let due = rig.now + ms(100.0);
                let ran = rig.frame(1.0).0;
                busy += ran.iter().map(|&view| usual(view, 0.0)).sum::<Duration>();
                rig.now = rig.now.max(due);
            }
            let percent = 100.0 * busy.as_secs_f64() / rig.now.as_secs_f64();
            assert!((45.0..=51.0).contains(&percent), "{settings:?}: {percent} % of a core");
        }
    }

    #[test]
    fn a_factor_holds_a_frame_to_its_share() {
        for (factor, expected) in [
            (1.0, "1 0.5f 1f 1.5f 0.5 1.5 2f 2"),
            (0.5, "1 0.5f 1f 1.5f 0.5 1.5"),
            (0.25, "1 0.5f 1f 0.5"),
            (0.0, "1"),
        ] {
            let mut rig = Rig::new(BudgetSettings::default(), usual);
            assert_eq!(names(&rig.frame(factor).0), expected, "factor {factor}");
        }
        let mut rig = Rig::new(per_frame(28.0), |view, _| usual(view, 0.0));
        assert_eq!(names(&rig.frame(0.5).0), "1 0.5f");
        rig.budget.begin(rig.now, 2.0);
        assert_eq!(rig.budget.factor, 1.0, "no more than the budget");
    }

    proptest! {
        /// Whatever views take and whatever the budget: the identity view first, no view
        /// twice, and none started that was predicted to end too late.
        #[test]
        fn no_view_starts_that_does_not_fit(
            frames in prop::collection::vec((1u64..400, 0u8..3, prop::collection::vec(1u64..200, 8)), 1..60),
        ) {
            let mut now = Duration::ZERO;
            let mut budget = Budget::new(per_frame(50.0), &eight(), SIZE, 1.0);
            for (budget_ms, reload, times) in frames {
                if reload == 0 {
                    budget = Budget::new(per_frame(budget_ms as f64), &eight(), SIZE, 1.0);
                }
                let limit = budget.settings.per_frame.unwrap();
                let began = now;
                let mut ran = Vec::new();
                budget.begin(now, 1.0);
                loop {
                    let predicted: Vec<_> = eight().iter().map(|&v| budget.predict(v, now)).collect();
                    let Some(view) = budget.next(now) else { break };
                    prop_assert!(!ran.contains(&view));
                    if !ran.is_empty() {
                        let index = eight().iter().position(|&v| v == view).unwrap();
                        let predicted = predicted[index].expect("a prediction before a start");
                        prop_assert!(now - began + predicted <= limit);
                    }
                    let spent = Duration::from_millis(times[ran.len()]);
                    now += spent;
                    budget.finished(view, spent, now);
                    ran.push(view);
                }
                prop_assert_eq!(ran.first(), Some(&View::IDENTITY));
                budget.end(now);
                for time in times {
                    let Some(view) = budget.untimed(now) else { break };
                    budget.learn(view, Duration::from_millis(time), now);
                }
            }
        }
    }
}
