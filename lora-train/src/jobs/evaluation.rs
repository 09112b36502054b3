//! What an evaluation is asked, and what it found.

use super::adapters::AdapterOptions;
use crate::device::DeviceName;
use crate::metric::ConfusionMatrix;
use crate::options::ReadingOptions;
use crate::task::{GeneratedText, TaskName};
use clap::Args;
use lora_core::Quantization;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Options of `lora eval`.
#[derive(Args, Clone, Debug, Default)]
pub struct EvalOptions {
    /// Directory of the model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Adapters on it.
    #[command(flatten)]
    pub adapters: AdapterOptions,
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: in floats].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// What it is evaluated on: causal-lm, classification, regression, token-classification, or glue/NAME [default: by the model].
    #[arg(long, value_name = "TASK")]
    pub task: Option<TaskName>,
    /// Data to evaluate on.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Write one JSON object an example, in the order of the data: logits, label and prediction; of a language model the mean loss over its label tokens, their number, and the prediction with --generate.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Replace the predictions file if it is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Generate for each prompt too, and score BLEU and ROUGE-L against all its completions.
    #[arg(long)]
    pub generate: bool,
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Beams to generate with; 1 is greedy.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub beams: usize,
    /// Examples in a forward pass.
    #[arg(long, alias = "eval-batch-size", value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Longest example in tokens [default: 512, at most the model's].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// How to read the data.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Seed; nothing in an evaluation is random, the option is there for scripts.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

/// What an evaluation found.
#[derive(Clone, Debug, Default)]
pub struct EvalSummary {
    /// Metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// Of a language model: the score of each example, in the order of the data.
    pub scores: Vec<ExampleScore>,
    /// The generated texts, one a prompt.
    pub texts: Vec<GeneratedText>,
    /// Of a classification: which classes were taken for which.
    pub confusion: Option<ConfusionMatrix>,
}

/// The score of one example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExampleScore {
    /// Mean `-log p` over its label tokens.
    pub loss: f64,
    /// Number of its label tokens.
    pub tokens: usize,
}
