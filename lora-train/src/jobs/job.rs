//! What differs between the kinds of training.

use super::open::{Base, Opens};
use super::plan::TrainPlan;
use crate::TrainError;
use crate::data::Sample;
use crate::progress::Screen;
use crate::task::GeneratedText;
use crate::trainer::{Collate, Task};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Metrics by name.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// How good a model is, on the same examples again and again.
pub(crate) trait Evaluate<T>: Send + Sync {
    /// The number of examples.
    fn len(&self) -> usize;

    /// Metrics by name. `progress` is told how many examples are done.
    fn metrics(&self, task: &T, progress: &mut dyn FnMut(usize)) -> Result<Metrics, TrainError>;
}

/// The metric that says which evaluation is the best.
#[derive(Clone, Debug)]
pub(crate) struct BestBy {
    pub metric: String,
    pub higher_is_better: bool,
}

/// A kind of training: which model, which data, which loss, which metrics.
pub(crate) trait Job: Sized {
    type Model: Opens;
    type Sample: Sample;
    type Task: Task<Self::Sample>;

    /// Reads the data, as far as it must be known before the model.
    fn new(plan: &TrainPlan, screen: &Screen) -> Result<Self, TrainError>;

    /// How the model is opened.
    fn how(&self) -> <Self::Model as Opens>::How;

    /// Tokenises the data: the examples to train on are returned, those to evaluate on kept.
    fn encode(
        &mut self,
        plan: &TrainPlan,
        base: &Base,
        screen: &Screen,
    ) -> Result<Vec<Self::Sample>, TrainError>;

    /// How examples are put into a batch.
    fn collate(&self) -> Collate<Self::Sample> {
        Self::Sample::collate
    }

    /// A model with its loss.
    fn task(&self, model: Self::Model) -> Self::Task;

    /// The model of a task.
    fn model(task: &Self::Task) -> &Self::Model;

    /// The model of a task, for good.
    fn into_model(task: Self::Task) -> Self::Model;

    /// The evaluation, where there is data for one.
    fn evaluator(&self) -> Option<Arc<dyn Evaluate<Self::Task>>>;

    /// The metric that says which evaluation is the best.
    fn best_by(&self) -> BestBy;

    /// What is judged before and after training only: texts, with their metrics.
    fn texts(
        &self,
        _task: &Self::Task,
        _base: &Base,
        _screen: &mut Screen,
        _when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        Ok(Default::default())
    }
}

/// Judges a model before or after training. `known` are the evaluator's metrics, where they were measured on
/// this model already.
pub(crate) fn judge<J: Job>(
    job: &J,
    task: &J::Task,
    base: &Base,
    screen: &mut Screen,
    when: &str,
    known: Option<Metrics>,
) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
    let mut metrics = match (known, job.evaluator()) {
        (Some(known), _) => known,
        (None, None) => Metrics::new(),
        (None, Some(evaluator)) => {
            let mut bar = screen.bar(&format!("eval {when}"), evaluator.len());
            let metrics = evaluator.metrics(task, &mut |done| bar.set(done))?;
            bar.finish();
            metrics
        }
    };
    let (more, texts) = job.texts(task, base, screen, when)?;
    metrics.extend(more);
    Ok((metrics, texts))
}
