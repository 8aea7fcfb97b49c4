//! What a frame gets when it cannot have every view: the budget, views kept from earlier
//! frames, and the gate, asked with one frame's time and picture. No clock.

use crate::config::{GateConfig, TtaConfig};
use crate::frame::Picture;
use crate::model::Pass;
use crate::tta::gate::Verdict;
use crate::tta::luma::REGION_SIDE;
use crate::tta::rolling::KeptView;
use crate::tta::{Budget, BudgetSettings, Gate, LumaGrid, Outcome, Rolling, View, Weight};
use std::time::Duration;

/// What a view gave, and its forward pass in ms.
#[derive(Debug)]
pub(super) struct Made {
    pub pass: Pass,
    pub spent_ms: f64,
}

impl Made {
    fn spent(&self) -> Duration {
        Duration::try_from_secs_f64(self.spent_ms / 1e3).unwrap_or_default()
    }
}

/// Per frame: [`begin`](Self::begin); unless it [has all](Self::has_all) views,
/// [`next`](Self::next) and [`finished`](Self::finished) for one after another; then
/// [`end`](Self::end).
pub(super) struct Limits {
    budget: Budget,
    per_frame: Option<Duration>,
    /// Whether any budget is set.
    is_budgeted: bool,
    rolling: Option<Rolling<Made>>,
    gate: Gate,
    /// Whether anything asks what the picture looks like.
    watches: bool,
    /// Share of the budget that heat leaves.
    heat: f64,
    /// Of the last frame.
    probabilities: Vec<f32>,
    /// The frame at hand: its share of the budget, looks and time.
    factor: f64,
    luma: Option<LumaGrid>,
    began: Duration,
}

impl Limits {
    /// `identity_macs` are those of one view at scale 1 of a picture of `size`
    /// (`[height, width]`), which runs on `threads` threads.
    pub fn new(
        config: &TtaConfig,
        views: &[View],
        size: [usize; 2],
        identity_macs: f64,
        threads: usize,
    ) -> Self {
        let settings = BudgetSettings::new(&config.budget, views, threads);
        let order = crate::tta::budget::ordered(views, &settings.order);
        let rolling = || Rolling::new((&config.rolling).into(), &order, size);
        Self {
            per_frame: settings.per_frame,
            is_budgeted: settings.per_frame.is_some()
                || settings.cpu_percent.is_some()
                || settings.macs_per_s.is_some(),
            rolling: config.rolling.enabled.then(rolling),
            gate: Gate::new((&config.gate).into()),
            watches: config.rolling.enabled || config.gate != GateConfig::default(),
            heat: 1.0,
            probabilities: Vec::new(),
            factor: 1.0,
            luma: None,
            began: Duration::ZERO,
            budget: Budget::new(settings, views, size, identity_macs),
        }
    }

    /// See [`super::Explainer::set_heat`].
    pub fn set_heat(&mut self, factor: f64) {
        self.heat = factor;
    }

    /// How old the last map is that still holds for this picture; `None`: infer.
    pub fn unchanged(&self, base: &Picture, now: Duration) -> Option<Duration> {
        let luma = self.watches.then(|| luma(base))??;
        match self.gate.judge(&luma, now) {
            Verdict::Republish { age } => Some(age),
            Verdict::Infer => None,
        }
    }

    pub fn begin(&mut self, base: &Picture, now: Duration) {
        let decision = match self.probabilities.is_empty() {
            true => 1.0,
            false => self.gate.factor(&self.probabilities),
        };
        self.factor = self.heat * decision;
        self.began = now;
        self.luma = self.watches.then(|| luma(base)).flatten();
        self.budget.begin(now, self.factor);
        if let (Some(rolling), Some(luma)) = (&mut self.rolling, &self.luma) {
            rolling.begin(luma, self.factor, now);
        }
    }

    /// Whether this frame gets every view, so that they need not run one after another.
    pub fn has_all(&self) -> bool {
        !self.is_budgeted && self.rolling.is_none() && self.factor >= 1.0
    }

    /// The next view to run; the first call of a frame always gives one.
    pub fn next(&mut self, now: Duration) -> Option<View> {
        let Some(rolling) = &mut self.rolling else { return self.budget.next(now) };
        if self.budget.start(View::IDENTITY, now) {
            return Some(View::IDENTITY);
        }
        let view = rolling.next(|view| self.budget.affords(view, now))?;
        self.budget.start(view, now).then_some(view)
    }

    /// A view has run. What rolling keeps stays here; the rest comes back.
    pub fn finished(&mut self, view: View, made: Made, now: Duration) -> Option<Made> {
        self.budget.finished(view, made.spent(), now);
        match (&mut self.rolling, &self.luma) {
            (Some(rolling), Some(luma)) if view != View::IDENTITY => {
                rolling.keep(view, made, luma, self.began);
                None
            }
            _ => Some(made),
        }
    }

    /// A view whose time a budget does not know yet; see [`Budget::untimed`].
    pub fn untimed(&self, now: Duration) -> Option<View> {
        self.budget.untimed(now)
    }

    /// A view ran to be timed.
    pub fn timed(&mut self, view: View, made: &Made, now: Duration) {
        self.budget.learn(view, made.spent(), now);
    }

    /// The map is merged. What came of the frame, where its wall time is limited.
    pub fn end(&mut self, probabilities: Vec<f32>, now: Duration) -> Option<Outcome> {
        if let Some(luma) = self.luma.take() {
            self.gate.inferred(luma, &probabilities, self.began);
        }
        self.probabilities = probabilities;
        self.budget.end(now)
    }

    /// Views other than the identity that count for the frame at hand, while rolling.
    pub fn kept(&self) -> impl Iterator<Item = KeptView<'_, Made>> {
        self.rolling.iter().flat_map(|rolling| rolling.kept(self.began))
    }

    /// The identity view's weight beside the kept ones; `None` where none are kept.
    pub fn identity_weight(&self) -> Option<Weight<'_>> {
        self.rolling.as_ref().map(|rolling| by_region(rolling.identity_weights()))
    }

    /// What the frame at hand may take, in ms.
    pub fn budget_ms(&self) -> Option<f64> {
        self.per_frame.map(|budget| budget.as_secs_f64() * 1e3 * self.factor)
    }

    /// See [`Budget::exceeded_by_first_view`].
    pub fn exceeded(&self, now: Duration) -> Option<Duration> {
        self.budget.exceeded_by_first_view(now)
    }

    /// Forgets pictures; what views cost stays known.
    pub fn clear(&mut self) {
        self.gate.clear();
        self.probabilities.clear();
        if let Some(rolling) = &mut self.rolling {
            rolling.clear();
        }
    }

    /// Whether every view counts fully for the frame at hand, while rolling.
    pub fn is_complete(&self) -> bool {
        self.rolling.as_ref().is_none_or(Rolling::is_complete)
    }
}

/// Weights of [`crate::tta::luma::REGIONS`].
pub(super) fn by_region(values: &[f32]) -> Weight<'_> {
    Weight::Regions { rows: REGION_SIDE, columns: REGION_SIDE, values }
}

/// `None` for a picture that is shorter than it says.
fn luma(base: &Picture) -> Option<LumaGrid> {
    let rgb = base.rgb.get(..base.width * base.height * 3)?;
    Some(LumaGrid::new(rgb, base.width, base.height))
}
