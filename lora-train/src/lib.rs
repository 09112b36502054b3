//! Fine-tuning language models and classifiers with LoRA on [Burn](burn): data, training loop, metrics, and the
//! jobs of the program `lora`.
//!
//! # Rooms
//! - [`data`]: files to records, records to examples, examples to batches; GLUE
//! - [`task`]: a model with its loss, and texts generated with it
//! - [`trainer`]: the training loop on Burn's `Learner`, checkpoints, schedule, optimizer
//! - [`metric`]: loss, perplexity, BLEU, ROUGE-L; accuracy, F1, correlations, entities
//! - [`options`]: what a run can be told, by flags or a recipe
//! - [`jobs`]: train, evaluate, predict, generate, merge
//! - [`tools`]: inspect, diff, combine, convert, measure, plan
//! - [`progress`], [`device`], [`memory`]: what is shown, where it runs, how memory is kept
#![recursion_limit = "256"]

pub mod data;
pub mod device;
pub mod error;
mod host;
pub mod jobs;
pub mod memory;
pub mod metric;
pub mod options;
pub mod progress;
pub mod task;
pub mod tools;
pub mod trainer;

pub use error::TrainError;
