//! The jobs of the program `lora`, as functions: train, evaluate, generate, merge, inspect.

mod base;
mod data;
mod eval;
mod evaluator;
mod generate;
mod inspect;
mod judge;
mod merge;
mod plan;
mod train;
mod weights;

pub use base::{Base, Loaded, load_base};
pub use eval::{EvalOptions, EvalSummary, eval};
pub use generate::{GenerateOptions, SamplingOptions, generate};
pub use inspect::inspect;
pub use merge::{MergeOptions, merge};
pub use plan::TrainPlan;
pub use train::{INTERRUPTED, TrainSummary, train};
