//! The jobs of the program `lora`, as functions: train, evaluate, predict, generate, merge, combine,
//! convert, inspect.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `plan`, `adapter`, `ranges`, `meaning` | the options of a training run, checked and completed |
//! | `open`, `models`, `encoding` | models with tokenizer and adapter from files |
//! | `prefix` | what becomes of a prefix where weights are merged or factors rewritten |
//! | `weights`, `finite` | what a run starts from, and what was trained into files |
//! | `job`, `train` | what differs between kinds of training, and training |
//! | `causal` | GPT-2: data, evaluation, texts |
//! | `labelled` | encoders with a head: data, evaluation, predictions |
//! | `combine`, `convert` | adapters' files made of others |
//! | `evaluation`, `eval`, `merge`, `inspect` | the other jobs |

mod adapter;
mod causal;
mod combine;
mod convert;
mod encoding;
mod eval;
mod evaluation;
mod finite;
mod inspect;
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
mod weights;

pub use causal::{GenerateOptions, SamplingOptions, generate};
pub use combine::{CombineArgs, combine};
pub use convert::{ConvertOptions, FormatName, convert};
pub use eval::eval;
pub use evaluation::{EvalOptions, EvalSummary, ExampleScore};
pub use inspect::inspect;
pub use labelled::{PredictOptions, Predicted, predict};
pub use merge::{MergeOptions, merge};
pub use open::{Base, Loaded, Opens, Traits, load_base, load_trained, model_directory};
pub use plan::TrainPlan;
pub use train::{INTERRUPTED, TrainSummary, train};
