//! The jobs of the program `lora`, as functions: train, evaluate, predict, generate, merge, combine,
//! convert, inspect, diff, measure, plan.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `plan`, `adapter`, `ranges`, `meaning` | the options of a training run, checked and completed |
//! | `open`, `models`, `encoding` | models with tokenizer and adapter from files |
//! | `adapters` | the adapters that a job uses, one for all or one for each record |
//! | `prefix` | what becomes of a prefix where weights are merged or factors rewritten |
//! | `weights`, `finite` | what a run starts from, and what was trained into files |
//! | `job`, `train` | what differs between kinds of training, and training |
//! | `causal` | GPT-2: data, evaluation, texts |
//! | `labelled` | encoders with a head: data, evaluation, predictions |
//! | `combine`, `convert` | adapters' files made of others |
//! | `inspect`, `diff` | what files hold, and how two differ |
//! | `merge`, `verify` | merged models, and whether they say what they were made of |
//! | `evaluation`, `eval` | the other jobs |
//! | `bench`, `estimate` | what work costs on this machine, measured, and said before it is done |

mod adapter;
mod adapters;
pub mod bench;
mod causal;
mod combine;
mod convert;
pub mod diff;
mod encoding;
pub mod estimate;
mod eval;
mod evaluation;
mod finite;
pub mod inspect;
mod job;
mod labelled;
mod meaning;
mod merge;
mod models;
mod open;
mod plan;
mod prefix;
mod ranges;
mod train;
mod verify;
mod weights;

pub use adapters::{AdapterArg, AdapterOptions};
pub use causal::{GenerateOptions, SamplingOptions, generate};
pub use combine::{CombineArgs, combine};
pub use convert::{ConvertOptions, FormatName, convert};
pub use diff::{DiffOptions, diff};
pub use estimate::{Forecast, PlanOptions, estimate};
pub use eval::eval;
pub use evaluation::{EvalOptions, EvalSummary, ExampleScore};
pub use inspect::{InspectOptions, inspect};
pub use labelled::{PredictOptions, Predicted, predict};
pub use merge::{MergeOptions, MergeSummary, merge};
pub use open::{
    Base, Loaded, Opens, Traits, load_base, load_trained, model_directory, quantize_config,
};
pub use plan::TrainPlan;
pub use train::{INTERRUPTED, TrainSummary, train};
pub use verify::{MergeCheck, Probe, VerifyOptions};
