//! Fine-tuning of language models and classifiers with LoRA on [Burn](burn).
//!
//! - [`trainer`]: training loop on Burn's `Learner`, with checkpoints, schedule and optimizer
//! - [`task`]: models with their loss, and generated texts
//! - [`metric`]: loss, perplexity, BLEU, ROUGE-L; accuracy, F1, correlations, entities
//! - [`data`]: records of files, examples, batches; GLUE
//! - [`jobs`]: training, evaluation, prediction, generation and merging, from files to files; [`options`]: options of a
//!   training run, from flags or a recipe
//! - [`progress`]: the [`Screen`](progress::Screen) that jobs print to; [`error`]: [`TrainError`]
//!
//! With the feature `tracing`, loads and runs send events to the application's subscriber of `tracing`: `loaded` with the files and sizes
//! of a checkpoint, and in the span `train` the events `step` (on the level of debug), `evaluation`, `saved` and `stopped`, with the fields
//! of [`trainer::Event`], and warnings.
//!
//! All other modules serve the program `lora` and may change in any version.
#![recursion_limit = "256"]

pub mod data;
#[doc(hidden)]
pub mod device;
pub mod error;
mod host;
pub mod jobs;
#[doc(hidden)]
pub mod memory;
pub mod metric;
pub mod options;
pub mod progress;
pub mod task;
#[doc(hidden)]
pub mod tools;
pub mod trainer;

pub use error::TrainError;

/// The README, whose Rust code runs as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
