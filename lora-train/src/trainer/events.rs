//! Events of a run.

use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One optimizer step, as a line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct StepEvent {
    /// The step, counted from 1.
    pub step: usize,
    /// Progress through the data, in epochs.
    pub epoch: f64,
    /// Mean loss over the step's labels, label smoothing included.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Number of labelled tokens in the step; for tasks with one label per text, the number of input tokens.
    pub tokens: usize,
    /// True if the optimizer left the step out, because its loss or its gradients were not finite.
    #[serde(skip_serializing_if = "is_false")]
    pub skipped: bool,
    /// Seconds since the start of the run, including earlier sessions.
    pub seconds: f64,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One evaluation, as a line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EvalEvent {
    /// Number of steps done.
    pub step: usize,
    /// Progress through the data, in epochs.
    pub epoch: f64,
    /// Metrics by name, including `loss`.
    pub eval: BTreeMap<String, f64>,
    /// True if this is the best evaluation so far.
    pub best: bool,
    /// Duration of the evaluation in seconds.
    pub eval_seconds: f64,
}

/// Event of a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run begins.
    Start {
        /// The next step, counted from 1.
        first_step: usize,
        /// The last step.
        total_steps: usize,
    },
    /// A step has ended.
    Step(StepEvent),
    /// An evaluation has ended.
    Eval(EvalEvent),
    /// A checkpoint has been written.
    Saved(PathBuf),
    /// Something that does not stop the run, but that its user should know.
    Warning(String),
    /// The run stops before its last step, for this reason.
    Stopped(String),
    /// The run ends.
    End,
}

/// Receiver of a run's events.
pub trait Observer: Send {
    /// Handles an event.
    ///
    /// # Errors
    /// An error, such as a full disk, ends the run.
    fn observe(&mut self, event: &Event) -> Result<(), crate::TrainError>;
}
