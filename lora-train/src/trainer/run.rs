//! Parts of a run other than the model: [`Run`].

use super::ranks::Ranks;
use super::{AdamW, BatchLoader, LoraPlus, Observer, Schedule};
use crate::TrainError;
use crate::data::{DataDigest, Sample};
use burn_train::Interrupter;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Interval of evaluations or checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After each epoch, and at the end.
    Epoch,
    /// After this many steps, and at the end.
    Steps(usize),
    /// At the end only.
    End,
    /// Never.
    Never,
}

/// Reaction to a step whose loss or gradients are not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NonFinite {
    /// The run ends with an error.
    #[default]
    Fail,
    /// The optimizer leaves the step out, as PyTorch's `GradScaler` does: weights and moments stay, the batch and the learning
    /// rate pass.
    Skip {
        /// Number of such steps in a row that ends the run with an error.
        limit: usize,
    },
}

/// Time at which the loss and the gradient norm of a step are read from the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadValues {
    /// Before the optimizer's step. A GPU has nothing to do meanwhile.
    #[default]
    AtOnce,
    /// After the next step has been queued, and before any evaluation or checkpoint. Gradients are clipped on the device. An
    /// error names the step that it belongs to; the optimizer has gone on by then, but nothing of that is kept. With
    /// [`NonFinite::Skip`] values are read at once all the same, because they decide about the step.
    OneStepLate,
}

/// Settings of the training loop.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Number of optimizer steps.
    pub total_steps: usize,
    /// Number of batches whose gradients are accumulated in a step, over all ranks.
    pub accumulation: usize,
    /// Largest norm of all gradients together; larger gradients are scaled down to it.
    pub max_grad_norm: Option<f64>,
    /// Reaction to a loss or gradients that are not finite.
    pub non_finite: NonFinite,
    /// Time at which losses are read from the device.
    pub read_values: ReadValues,
    /// Interval of evaluations.
    pub evaluate: Every,
    /// Interval of checkpoints.
    pub save: Every,
    /// Number of checkpoints that are kept, at least one.
    pub keep_checkpoints: usize,
    /// Early stopping: number of evaluations without improvement after which the run ends.
    pub patience: Option<usize>,
    /// Name of the metric that decides the best evaluation.
    pub best_metric: String,
    /// True if a higher value of [`best_metric`](Self::best_metric) is better.
    pub higher_is_better: bool,
    /// Seed of all random numbers in the run.
    pub seed: u64,
}

/// Evaluation and saving, supplied by the caller of the loop.
pub trait Hooks<M>: Send {
    /// Evaluates the model and returns metrics by name. The model is `valid()`: without dropout.
    ///
    /// # Errors
    /// An error ends the run.
    fn evaluate(&mut self, model: &M) -> Result<BTreeMap<String, f64>, TrainError>;

    /// Writes the trained weights into a directory.
    ///
    /// # Errors
    /// An error ends the run.
    fn save_weights(&mut self, model: &M, dir: &Path) -> Result<(), TrainError>;
}

/// Parts of a run other than the model.
pub struct Run<M, S: Sample> {
    /// Settings of the loop.
    pub config: TrainerConfig,
    /// The optimizer.
    pub adamw: AdamW,
    /// Learning rate schedule.
    pub schedule: Schedule,
    /// LoRA+: separate learning rates for some factors.
    pub lora_plus: Option<LoraPlus>,
    /// Training data in batches.
    pub loader: BatchLoader<S>,
    /// Evaluation and saving.
    pub hooks: Box<dyn Hooks<M>>,
    /// Ranks that train together; [`Alone`](super::ranks::Alone) for one process. The first one writes and has the observers.
    pub ranks: Arc<dyn Ranks>,
    /// Receivers of the run's events.
    pub observers: Vec<Box<dyn Observer>>,
    /// Handle to stop the run from outside; it then saves a checkpoint and ends.
    pub interrupter: Interrupter,
    /// Options that affect the results, compared when a run is resumed.
    pub fingerprint: String,
    /// Digest of the training data, which goes into the checkpoints.
    pub data: Option<DataDigest>,
    /// Digest of the evaluation data, which goes into the checkpoints.
    pub eval_data: Option<DataDigest>,
}
