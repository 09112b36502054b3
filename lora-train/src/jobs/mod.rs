//! Jobs of the program `lora`, as functions: train, evaluate, predict, generate, merge.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `plan`, `adapter`, `ranges`, `meaning` | the options of a training run, checked and completed |
//! | `open`, `models` | models with tokenizer and adapter from files |
//! | `adapters` | the adapters that a job uses, one for all or one for each record |
//! | `prefix` | what becomes of a prefix where weights are merged or factors rewritten |
//! | `weights`, `finite` | what a run starts from, and what was trained into files |
//! | `job`, `train` | what differs between kinds of training, and training |
//! | `causal` | language models: data, evaluation, texts |
//! | `labelled` | encoders with a head: data, evaluation, predictions |
//! | `merge`, `verify` | merged models, and whether they say what they were made of |
//! | `evaluation`, `eval` | the other jobs |
//!
//! What describes, rewrites or measures instead is in [`tools`](crate::tools).

pub(crate) mod adapter;
mod adapters;
mod causal;
mod eval;
mod evaluation;
mod finite;
mod job;
mod labelled;
mod meaning;
mod merge;
pub(crate) mod open;
pub(crate) mod plan;
pub(crate) mod prefix;
pub(crate) mod ranges;
pub(crate) mod train;
mod verify;
mod weights;

pub use adapters::{AdapterArg, AdapterOptions};
pub use causal::{GenerateOptions, SamplingOptions, generate};
pub use eval::eval;
pub use evaluation::{EvalOptions, EvalSummary, ExampleScore};
pub use labelled::{PredictOptions, Predicted, predict};
pub use merge::{MergeOptions, MergeSummary, merge};
pub use open::{Base, Loaded, load_base, load_trained, model_directory, quantize_config};
pub use plan::TrainPlan;
pub use train::{INTERRUPTED, TrainSummary, train};
pub use verify::{MergeCheck, Probe, VerifyOptions};
