//! Measurements of training and inference on this machine: time, memory, and trainable parameters.
//!
//! | file | contents |
//! | --- | --- |
//! | `step` | training steps with one batch size |
//! | `epoch` | training on data with texts of real lengths |
//! | `inference`, `latency` | the base, a merged model and one with an adapter, in turn; the latency by batch and length |
//! | `load` | loading of a checkpoint |
//! | `workload`, `measure`, `report` | model and batch, timing, report |
//!
//! Every run needs a process of its own, so that the peak of the memory is its own. Numbers depend on the machine: compare
//! ratios of consecutive runs.

mod epoch;
mod inference;
mod latency;
mod load;
mod measure;
mod report;
mod step;
mod workload;

pub use epoch::bench_epoch;
pub use inference::{InferenceOptions, bench_inference};
pub use latency::{LatencyReport, LatencyRow, bench_latency};
pub use load::{LoadOptions, bench_load};
pub use measure::Timing;
pub use report::BenchReport;
pub use step::{StepOptions, bench_step, bench_step_with};
pub use workload::{BatchSize, Shape, Training};

pub(in crate::tools) use step::{Measured, adapted, measured};
pub(in crate::tools) use workload::{labelled, texts};
