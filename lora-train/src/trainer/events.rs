//! What a run tells while it goes on.

use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One optimizer step, as a line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct StepEvent {
    /// The step, counted from 1.
    pub step: usize,
    /// How far the data has been gone through, in epochs.
    pub epoch: f64,
    /// Mean loss over the step's labels, label smoothing included.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Label tokens of the step; where one thing is predicted of many tokens, those that were read.
    pub tokens: usize,
    /// Seconds since the start of the run, those of earlier sessions included.
    pub seconds: f64,
}

/// One evaluation, as a line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct EvalEvent {
    /// After how many steps.
    pub step: usize,
    /// How far the data has been gone through, in epochs.
    pub epoch: f64,
    /// Its metrics by name, `loss` among them.
    pub eval: BTreeMap<String, f64>,
    /// Whether it is the best so far.
    pub best: bool,
    /// Seconds that it took.
    pub eval_seconds: f64,
}

/// What happens in a run.
#[derive(Clone, Debug)]
pub enum Event {
    /// It begins.
    Start {
        /// The step that comes next, counted from 1.
        first_step: usize,
        /// The last step.
        total_steps: usize,
    },
    /// A step is done.
    Step(StepEvent),
    /// An evaluation begins.
    EvalStart,
    /// An evaluation is done.
    Eval(EvalEvent),
    /// A checkpoint is written.
    Saved(PathBuf),
    /// The run ends before its last step, and why.
    Stopped(String),
    /// It ends.
    End,
}

/// Somebody who is told.
pub trait Observer: Send {
    /// Takes note of an event. An error, such as a full disk, ends the run.
    fn observe(&mut self, event: &Event) -> Result<(), crate::TrainError>;
}
