//! Jobs of the program `lora`, as functions: train, evaluate, predict, generate, merge.
//!
//! | file | contents |
//! | --- | --- |
//! | `plan`, `adapter`, `ranges`, `meaning` | options of a training run, checked and with defaults |
//! | `adapters` | options of the adapters: none, one, or several by name |
//! | `foreign` | adapters in the files of other programs |
//! | `sources` | model directory and adapters of a command, each opened once; the head's labels |
//! | `session` | model with tokenizer and adapter; stop tokens |
//! | `assignment` | named adapters on a model, one for each example |
//! | `beside` | virtual tokens and adapter layers in merges and conversions |
//! | `card` | files beside a trained adapter: card and tokenizer |
//! | `weights`, `finite`, `memory_check` | weights that a run starts from, their checks; writing of trained weights |
//! | `new_tokens` | tokens that a run adds to tokenizer and embedding |
//! | `job`, `train`, `finish` | kinds of training; training; the results of a run |
//! | `output` | output directory of a training run, with one run at a time |
//! | `division` | shares of several files in an epoch, and records that are held out |
//! | `together` | runs of several ranks |
//! | `resumed` | comparison of a resumed run with the run before |
//! | `preview` | encoded examples of a training run |
//! | `device_check` | comparison of the first step with the CPU |
//! | `causal` | language models: data, evaluation, texts |
//! | `labelled` | encoders with a head: data, evaluation, predictions |
//! | `merge`, `verify` | merged models, and their comparison with the parts |
//! | `evaluation`, `eval`, `batches` | evaluation |
//! | `batch_limit` | the largest batch that a device takes |
//! | `record` | lines of `metrics.jsonl` before and after a run |
//! | `results`, `run_key` | files of results that are written one by one, and the key of their run |
//! | `inputs` | files and directories that an output may not replace |
//!
//! Commands that describe, rewrite or measure are in `tools`.

pub(crate) mod adapter;
mod adapters;
mod assignment;
pub(crate) mod batch_limit;
mod batches;
pub(crate) mod beside;
mod card;
mod causal;
pub(crate) mod device_check;
mod division;
mod eval;
mod evaluation;
mod finish;
mod finite;
pub(crate) mod foreign;
pub(crate) mod inputs;
mod job;
mod labelled;
mod meaning;
mod memory_check;
mod merge;
mod new_tokens;
pub(crate) mod output;
pub(crate) mod plan;
mod preview;
pub(crate) mod ranges;
pub(crate) mod record;
mod results;
mod resumed;
mod run_key;
pub(crate) mod session;
pub(crate) mod sources;
mod together;
pub(crate) mod train;
mod verify;
mod weights;

pub use adapters::{AdapterArg, AdapterOptions};
pub use causal::{
    ChatOptions, Continuation, GenerateOptions, SamplingOptions, ScoreOptions, ScoreReport,
    Terminal, chat, generate, generate_with, score,
};
pub use eval::{eval, eval_with};
pub use evaluation::{EvalOptions, EvalSummary, ExampleScore};
pub use finish::{INTERRUPTED, TrainSummary};
pub use labelled::{PredictOptions, Predicted, predict, predict_with};
pub use merge::{MergeOptions, MergeSummary, ModelFormat, merge};
pub use plan::TrainPlan;
pub use preview::{Preview, PreviewOptions, preview};
pub use results::OutputOptions;
pub use session::{Base, Session};
pub use train::{train, train_with};
pub use verify::{MergeCheck, Probe, VerifyOptions};
