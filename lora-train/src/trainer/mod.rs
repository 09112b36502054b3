//! The training loop: Burn's `Learner` and `SupervisedTraining` with a strategy of our own.
//!
//! Burn's own loop checkpoints and evaluates between epochs only, sums accumulated gradients and
//! forgets its place in the data. [`Trainer`] is a
//! [`SupervisedLearningStrategy`](burn_train::SupervisedLearningStrategy) that averages over the
//! tokens of a step, clips by the norm of all gradients together, evaluates and saves at any step,
//! and resumes in the middle of an epoch with the very numbers of a run that was not interrupted.
//! The learner, its optimizer, schedule and the data loaders are Burn's.

mod ahead;
mod batches;
mod checkpoint;
mod checkpointed;
mod events;
mod fit;
mod lora_plus;
mod optimizer;
mod quiet;
mod schedule;
mod strategy;
mod task;

pub use batches::{BatchLoader, Collate, MicroBatch, Position};
pub use checkpoint::{Best, Checkpoint, CheckpointDir, RunState};
pub(crate) use checkpointed::checkpointed_step;
pub use events::{EvalEvent, Event, Observer, StepEvent};
pub use fit::{Outcome, Run, fit};
pub use lora_plus::LoraPlus;
pub use optimizer::AdamW;
pub use schedule::{Schedule, ScheduleKind};
pub use strategy::{Every, Hooks, Trainer, TrainerConfig};
pub use task::{OptimizerTap, StepOutput, Task};
pub(crate) use task::{optimize, train_step};
