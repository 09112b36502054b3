//! Options and outcome of an evaluation, and its comparison between ranks.

use super::adapters::AdapterOptions;
use crate::TrainError;
use crate::data::{DataDigest, Example};
use crate::device::DeviceName;
use crate::metric::ConfusionMatrix;
use crate::options::{DecodingOptions, Precision, ReadingOptions};
use crate::task::{GeneratedText, TaskName};
use crate::trainer::ranks::{Ranks, agree, digest_of_files};
use clap::Args;
use lora_core::{BaseDType, Quantization};
use lora_models::checkpoint::WeightFiles;
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
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: not quantized].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Float type of the frozen weights in memory: f32, f16, bf16, or auto for that of the checkpoint, or int8 for embeddings and output layers alone; everything is computed in f32 [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub base_dtype: Option<BaseDType>,
    /// Precision of products with frozen weights: f32, or mixed on GPUs [default: f32].
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Task: causal-lm, classification, multi-label-classification, regression, token-classification, or glue/NAME [default: the model's].
    #[arg(long, value_name = "TASK")]
    pub task: Option<TaskName>,
    /// Data for the evaluation.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Write one JSON object per example, in the order of the data: logits, label and prediction; for a language model the mean loss over its label tokens, their number, and the prediction with --generate.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Replace the predictions file if it exists.
    #[arg(long)]
    pub overwrite: bool,
    /// Also generate for each prompt, and score BLEU, NIST, ROUGE-L, CIDEr and TER against all its completions; for WikiSQL the accuracy of the queries, for SAMSum ROUGE-1, ROUGE-2 and ROUGE-L.
    #[arg(long)]
    pub generate: bool,
    /// Maximum number of tokens to generate [default: the model's, else 64].
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// Number of beams; 1 is greedy [default: the model's, else 1].
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Number of examples in a forward pass.
    #[arg(long, alias = "eval-batch-size", value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Pad batches to a multiple of N tokens, at most the maximum length [default: 64 on GPUs, 16 on software adapters, 1 on CPUs].
    #[arg(long, value_name = "N")]
    pub pad_to_multiple_of: Option<usize>,
    /// Maximum length of an example in tokens [default: 512, at most the model's].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Names of the classes, in the order of the head's outputs, for a head without names of its own [default: the model's or the adapter's].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// For multi-label-classification: probability above which a class is predicted, one number or one per class [default: 0.5].
    #[arg(long, value_name = "P,P", value_delimiter = ',')]
    pub threshold: Option<Vec<f64>>,
    /// Options for reading the data.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Options of generated texts.
    #[command(flatten)]
    pub decoding: DecodingOptions,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Seed of texts that are sampled because the model's settings for generation say so [default: 42].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Outcome of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct EvalSummary {
    /// Metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// For a language model: score of each example, in the order of the data.
    pub scores: Vec<ExampleScore>,
    /// Generated texts, one per prompt.
    pub texts: Vec<GeneratedText>,
    /// For a classification: confusion matrix.
    pub confusion: Option<ConfusionMatrix>,
}

/// Score of an example.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExampleScore {
    /// Mean negative log-likelihood over its label tokens, in nats.
    pub loss: f64,
    /// Number of its label tokens.
    pub tokens: usize,
}

/// Checks that all ranks evaluate the same base model on the same data.
///
/// # Errors
/// [`TrainError::Rank`] with the rank that differs.
pub(super) fn agree_on(
    ranks: &dyn Ranks,
    files: &WeightFiles,
    examples: &[Example],
    classes: &[String],
) -> Result<(), TrainError> {
    agree_with(ranks, files, || {
        vec![("set of data", DataDigest::new(examples, classes).lines())]
    })
}

/// Checks that all ranks have the same base model and the same other facts, pairs of a name and a value.
///
/// # Errors
/// [`TrainError::Rank`] with the rank that differs.
pub(super) fn agree_with(
    ranks: &dyn Ranks,
    files: &WeightFiles,
    others: impl FnOnce() -> Vec<(&'static str, String)>,
) -> Result<(), TrainError> {
    if ranks.is_alone() {
        return Ok(());
    }
    let mut facts = vec![
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("base model", digest_of_files(files.paths())?),
    ];
    facts.extend(others());
    agree(ranks, &facts)
}
