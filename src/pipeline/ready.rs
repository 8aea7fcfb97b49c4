//! A model made ready to run, on a thread of its own: loading and the first pass take
//! seconds to minutes on a small board, and meanwhile signals are obeyed, the service
//! manager is answered, and, in a reload, the old pipeline goes on.

use super::heat::Heat;
use super::{StartError, spawn};
use crate::config::Config;
use crate::explain::Explainer;
use crate::model::Model;
use crate::rules::Rules;
use crossbeam_channel::{Receiver, bounded};
use std::sync::Arc;

/// A model, planned for the configuration and warmed up.
pub struct Ready {
    pub(super) model: Arc<Model>,
    pub(super) explainer: Explainer,
    pub(super) rules: Rules,
    /// What an earlier pipeline knew of the board's temperature.
    pub(super) heat: Option<Heat>,
    /// What the first pass took.
    pub(super) warm_ms: f64,
}

impl Ready {
    /// Loads the configured model, unless it is given, and runs it once.
    ///
    /// # Errors
    /// For a model that cannot be loaded or run, and settings that do not fit it.
    pub fn new(config: &Config, model: Option<Arc<Model>>) -> Result<Self, StartError> {
        let model = match model {
            Some(model) => model,
            None => Arc::new(Model::configured(&config.model)?),
        };
        let rules = Rules::new(&config.rules, &model.labels)?;
        let mut explainer = Explainer::new(model.clone(), config)?;
        let [height, width] = explainer.size();
        let warm = explainer.warm_up()?;
        log::info!(
            "model {} at {height}x{width}: {} views in {:.0} ms",
            model.name,
            warm.views.len(),
            warm.spent_ms
        );
        if let (Some(least), Some(budget_ms)) =
            (explainer.exceeded_budget(), config.tta.budget.budget_ms)
        {
            log::warn!(
                "tta.budget.budget_ms = {budget_ms}: the first view alone takes {:.0} ms, so it \
                 alone runs; allow more, or make model.size smaller",
                least.as_secs_f64() * 1e3
            );
        }
        Ok(Self { model, explainer, rules, heat: None, warm_ms: warm.spent_ms })
    }

    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Takes over what an earlier pipeline knew and a reload does not change.
    pub fn go_on_from(&mut self, before: &Self) {
        self.heat = before.heat.clone();
    }

    /// [`Ready::new`] on a thread; the outcome comes once. A thread that is not waited for
    /// ends with the process.
    pub fn in_background(
        config: &Config,
        model: Option<Arc<Model>>,
    ) -> Result<Receiver<Result<Self, StartError>>, StartError> {
        let (send, outcome) = bounded(1);
        let config = config.clone();
        spawn("load", move || {
            // Nobody may wait any more.
            let _ = send.send(Self::new(&config, model));
        })?;
        Ok(outcome)
    }
}
