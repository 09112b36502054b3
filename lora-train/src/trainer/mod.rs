//! The training loop around Burn's [`Learner`](burn_train::Learner).
//!
//! The learner holds the task, its optimizer and its schedule, and takes each step. The loop around it
//! is this crate's own, because Burn's loop evaluates and saves only between epochs, sums accumulated gradients and
//! does not keep its position in the data. [`fit`] averages the loss over all labels of a step, clips
//! by the norm of all gradients together, evaluates and saves at any step, and resumes in the middle
//! of an epoch with the same numbers as an uninterrupted run.
//!
//! | file | contents |
//! | --- | --- |
//! | `fit`, `run` | a run from its parts |
//! | `training_loop`, `gradients`, `step_values` | steps, evaluations, checkpoints; gradients of a step; the loss read from the device |
//! | `ranks` | several processes that train together |
//! | `task` | [`Task`]: interface to a model with its loss |
//! | `batches`, `prefetch` | batches from any position in the data, prepared on another thread |
//! | `optimizer`, `lora_plus`, `optimizer_tap` | [`AdamW`], LoRA+, access to the state of the optimizer |
//! | `optimizer_state` | state of the optimizer that a checkpoint holds |
//! | `schedule` | learning rates |
//! | `checkpoint`, `run_state` | checkpoints, and resuming; the state of a run |
//! | `checkpointed` | activation checkpointing |
//! | `comparison`, `differences` | a step on two devices; two texts of options |
//! | `events` | [`Event`]s for an [`Observer`] |
//! | `traced` | events for `tracing`, with the feature of that name |

mod batches;
mod checkpoint;
mod checkpointed;
mod comparison;
mod differences;
mod events;
mod fit;
mod gradients;
mod lora_plus;
mod optimizer;
mod optimizer_state;
mod optimizer_tap;
mod prefetch;
pub mod ranks;
mod run;
mod run_state;
mod schedule;
mod step_values;
mod task;
#[cfg(feature = "tracing")]
mod traced;
mod training_loop;

pub use batches::{BatchLoader, Collate, MicroBatch, Position};
pub use checkpoint::{Checkpoint, CheckpointDir, LastCheckpoint, SavedCheckpoint};
pub(crate) use checkpointed::checkpointed_step;
pub(crate) use comparison::{StepDifference, compare_steps};
pub(crate) use differences::differences;
pub use events::{EvalEvent, Event, Observer, StepEvent};
pub use fit::{Outcome, fit};
pub(crate) use gradients::gradients_at_once;
pub use lora_plus::LoraPlus;
pub use optimizer::AdamW;
pub use optimizer_state::OptimizerState;
pub use run::{Every, Hooks, NonFinite, ReadValues, Run, TrainerConfig};
pub use run_state::{Best, RunState};
pub use schedule::{Schedule, ScheduleKind};
pub(crate) use task::train_step;
pub use task::{StepOutput, Task};
