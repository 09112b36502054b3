//! Kinds of training.

use super::division::HeldOut;
use super::plan::TrainPlan;
use super::session::Base;
use super::sources::Sources;
use crate::TrainError;
use crate::data::{Example, ExampleSet, Mix, Sample};
use crate::metric::ConfusionMatrix;
use crate::progress::Screen;
use crate::task::{GeneratedText, TaskName};
use crate::trainer::ranks::Ranks;
use crate::trainer::{Collate, Task};
use lora_models::{LoraTargets, Pretrained};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Metrics by name.
pub(crate) type Metrics = BTreeMap<String, f64>;

/// Evaluation of models on a fixed set of examples.
pub(crate) trait Evaluate<T>: Send + Sync {
    /// Returns the number of examples.
    fn len(&self) -> usize;

    /// Computes metrics by name. Ranks share the examples, and all have the metrics. `progress` receives the number of finished
    /// examples.
    fn metrics(
        &self,
        task: &T,
        ranks: &dyn Ranks,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Metrics, TrainError>;

    /// Returns the confusion matrix that belongs to the last metrics; `None` without any.
    fn last_confusion(&self) -> Option<ConfusionMatrix> {
        None
    }
}

/// Metric that selects the best evaluation.
#[derive(Clone, Debug)]
pub(crate) struct BestBy {
    pub metric: String,
    pub higher_is_better: bool,
}

impl BestBy {
    pub fn new(metric: impl Into<String>, higher_is_better: bool) -> Self {
        Self {
            metric: metric.into(),
            higher_is_better,
        }
    }
}

/// Examples to train on.
pub(crate) struct TrainingSet {
    /// Examples of all files, one file after the other.
    pub examples: ExampleSet,
    /// Shares of the files in an epoch; `None` for all examples in each.
    pub mix: Option<Mix>,
    /// Records that are held out for the evaluation.
    pub held_out: Option<HeldOut>,
}

/// Kind of training: model, data, loss and metrics.
pub(crate) trait Job: Sized {
    type Model: Pretrained;
    type Task: Task<Example>;

    /// Reads the options, and the data that must be known before the model.
    fn new(
        plan: &TrainPlan,
        sources: &Sources,
        task: TaskName,
        screen: &Screen,
    ) -> Result<Self, TrainError>;

    /// Returns the options for loading the model.
    fn load_options(&self) -> <Self::Model as Pretrained>::Options;

    /// Tokenizes the data: returns the training examples and keeps those for evaluation.
    fn encode(
        &mut self,
        plan: &TrainPlan,
        base: &Base,
        screen: &Screen,
    ) -> Result<TrainingSet, TrainError>;

    /// Tokenizes the training data without a maximum length, to show what it cuts; called before [`encode`](Self::encode).
    fn uncut(&self, plan: &TrainPlan, base: &Base) -> Result<Vec<Example>, TrainError>;

    /// Returns the names of the outputs; empty for a language model and for a single number.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// Returns the examples of the evaluation.
    fn eval_examples(&self) -> &[Example];

    /// Returns the function that collates examples into a batch.
    fn collate(&self) -> Collate<Example> {
        Example::collate
    }

    /// Creates the task of a model.
    fn task(&self, model: Self::Model) -> Self::Task;

    /// Returns the model of a task.
    fn model(task: &Self::Task) -> &Self::Model;

    /// Returns the model of a task, and drops the task.
    fn into_model(task: Self::Task) -> Self::Model;

    /// Returns the evaluation, if there is data for it.
    fn evaluator(&self) -> Option<Arc<dyn Evaluate<Self::Task>>>;

    /// Returns the metric that selects the best evaluation.
    fn best_by(&self) -> BestBy;

    /// Generates and scores texts, which ranks share; called before and after training alone.
    fn score_texts(
        &self,
        _task: &Self::Task,
        _base: &Base,
        _ranks: &dyn Ranks,
        _screen: &mut Screen,
        _when: &str,
    ) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
        Ok(Default::default())
    }
}

/// Evaluates a model before or after training. `known` holds the evaluator's metrics, if they are known for this model.
pub(crate) fn measure<J: Job>(
    job: &J,
    task: &J::Task,
    base: &Base,
    ranks: &dyn Ranks,
    screen: &mut Screen,
    when: &str,
    known: Option<Metrics>,
) -> Result<(Metrics, Vec<GeneratedText>), TrainError> {
    let mut metrics = match (known, job.evaluator()) {
        (Some(known), _) => known,
        (None, None) => Metrics::new(),
        (None, Some(evaluator)) => {
            let bar = screen.bar(&format!("eval {when}"), evaluator.len());
            let mut bar = bar.for_device(&J::model(task).device());
            let metrics = evaluator.metrics(task, ranks, &mut |done| bar.set(done))?;
            bar.finish();
            metrics
        }
    };
    let (more, texts) = job.score_texts(task, base, ranks, screen, when)?;
    metrics.extend(more);
    Ok((metrics, texts))
}
