//! The training loop around Burn's [`Learner`](burn_train::Learner).
//!
//! The learner holds the task, its optimizer and its schedule, and takes each step. The loop around it
//! is our own, since Burn's evaluates and saves between epochs only, sums accumulated gradients and
//! does not keep its position in the data. [`fit`] averages the loss over all labels of a step, clips
//! by the norm of all gradients together, evaluates and saves at any step, and resumes in the middle
//! of an epoch with exactly the numbers of an uninterrupted run.

mod batches;
mod checkpoint;
mod checkpointed;
mod events;
mod fit;
mod lora_plus;
mod optimizer;
mod optimizer_tap;
mod prefetch;
mod schedule;
mod task;
mod training_loop;

pub use batches::{BatchLoader, Collate, MicroBatch, Position};
pub use checkpoint::{Best, Checkpoint, CheckpointDir, RunState};
pub(crate) use checkpointed::checkpointed_step;
pub use events::{EvalEvent, Event, Observer, StepEvent};
pub use fit::{Outcome, fit};
pub use lora_plus::LoraPlus;
pub use optimizer::AdamW;
pub use schedule::{Schedule, ScheduleKind};
pub(crate) use task::train_step;
pub use task::{StepOutput, Task};
pub use training_loop::{Every, Hooks, Run, TrainerConfig};
