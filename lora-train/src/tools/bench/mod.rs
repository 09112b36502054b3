//! What training and inference cost on this machine: times, memory, and what trains.
//!
//! | file | what it measures |
//! | --- | --- |
//! | `step` | training steps at one shape |
//! | `epoch` | training on data with its real lengths |
//! | `inference` | the base, a merged model and one with an adapter, in turn |
//! | `load` | reading a checkpoint |
//! | `workload`, `measure`, `report` | the shape of the work, the clock, what is told |
//!
//! Every run has its process to itself, so that the peak of its memory is its own. Numbers hold for the machine; compare ratios of
//! runs one after another.

mod epoch;
mod inference;
mod load;
mod measure;
mod report;
mod step;
mod workload;

pub use epoch::{EpochOptions, bench_epoch};
pub use inference::{InferenceOptions, bench_inference};
pub use load::{LoadOptions, bench_load};
pub use measure::Timing;
pub use report::BenchReport;
pub use step::{StepOptions, bench_step};
pub use workload::{Shape, Training};

pub(in crate::tools) use step::{Measured, measured, with_adapter};
