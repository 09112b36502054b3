//! The jobs of the program `lora`, as functions: train, evaluate, predict, generate, merge, inspect.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `plan` | the options of a training run, checked and completed |
//! | `open`, `weights` | models and adapters from files, and what was trained into files |
//! | `job`, `train` | what differs between kinds of training, and training |
//! | `causal` | GPT-2: data, evaluation, texts |
//! | `labelled` | encoders with a head: data, evaluation, predictions |
//! | `eval`, `merge`, `inspect` | the other jobs |

mod causal;
mod eval;
mod inspect;
mod job;
mod labelled;
mod merge;
mod open;
mod plan;
mod train;
mod weights;

pub use causal::{ExampleScore, GenerateOptions, SamplingOptions, generate};
pub use eval::{EvalOptions, EvalSummary, eval};
pub use inspect::inspect;
pub use labelled::{PredictOptions, Predicted, predict};
pub use merge::{MergeOptions, merge};
pub use open::{Base, Loaded, Opens, Traits, load_base, model_directory};
pub use plan::TrainPlan;
pub use train::{INTERRUPTED, TrainSummary, train};
