//! Options of a training run: flags of the command line and keys of a recipe.
//!
//! | file | contents |
//! | --- | --- |
//! | `recipe` | recipes: options as a TOML file |
//! | `reading` | options for reading data files |
//! | `decoding` | options of the texts that an evaluation generates |
//! | `method` | training method |
//! | `class_weights` | class weights |
//! | `data_cache` | place of the tokens of the training data |
//! | `paths` | a path, or a list of paths, in a recipe |
//! | `token_source` | new tokens, as a number or a file |
//! | `template_variables` | variables of a chat template |
//! | `precision` | precision of products with frozen weights |

mod class_weights;
mod data_cache;
mod decoding;
mod method;
mod paths;
mod precision;
mod reading;
mod recipe;
mod template_variables;
mod token_source;

pub use class_weights::ClassWeighting;
use class_weights::parse_weights;
pub use data_cache::DataCache;
pub use decoding::DecodingOptions;
pub(crate) use decoding::unescape;
pub use method::{Method, MethodPart};
pub use precision::Precision;
pub use reading::ReadingOptions;
pub use recipe::RunOptions;
pub use template_variables::TemplateVariables;
pub use token_source::TokenSource;
pub(crate) use token_source::read_tokens;

use crate::data::EvalSplit;
use crate::device::DeviceName;
use crate::task::TaskName;
use crate::trainer::ScheduleKind;
use clap::Args;
use lora_core::{BaseDType, BiasTraining, LoraInit, Quantization};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Options of `lora train`.
///
/// Each option is a flag of the command line and a key of a recipe (with `_` for `-`). The command line takes
/// precedence. `None` and `false` mean that an option is not given; TOML leaves `None` out by itself.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Directory of the base model with config.json, weights and tokenizer in Hugging Face's format; with the feature `hub`, also a name on the Hub.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub model: Option<PathBuf>,
    /// Task: causal-lm, classification, multi-label-classification, regression, token-classification, or glue/NAME such as glue/cola [default: that of the adapter or of the model's head; without either, causal-lm for a language model, and classification for an encoder].
    #[arg(long, value_name = "TASK", help_heading = "Files")]
    pub task: Option<TaskName>,
    /// PEFT adapter to start from, or a file of loralib (microsoft/LoRA) beside its --alpha [default: a new one].
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub adapter: Option<PathBuf>,
    /// With a file of loralib as --adapter: slices of q, k and v that its `MergedLinear` layers adapt, such as `q,v`.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        help_heading = "Files"
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<String>,
    /// Fail, instead of warning, if the adapter or checkpoint to continue from was trained on another base model.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub strict_base: bool,
    /// Training data. For classification: .jsonl, .csv or .tsv with `text`, `label` and, for pairs, `pair`; several labels are a list or columns; for token-classification: CoNLL, or .jsonl with `tokens` and `tags`; for GLUE its own files. For causal-lm: .jsonl, .csv or .tsv with `text`, or with `prompt` and `completion`; .jsonl or .json with conversations (`messages`, ShareGPT, Alpaca); plain text; the files of E2E, DART, WebNLG, WikiSQL and SAMSum; those of MNLI with `--format mnli`. Several files are given one by one, and read one after the other; with a share each, as in `a.jsonl:0.7`, an epoch is a mix of them in these shares, as long as no file runs out; a list in a recipe.
    #[arg(long, value_name = "FILE[:SHARE]", help_heading = "Files")]
    #[serde(with = "paths", skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<PathBuf>,
    /// Evaluation data, in the same formats.
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub eval_data: Option<PathBuf>,
    /// Hold records of the training data out, and evaluate on them: a share of all, such as 0.05, or their number [default: none].
    #[arg(
        long,
        value_name = "X",
        conflicts_with = "eval_data",
        help_heading = "Files"
    )]
    pub eval_split: Option<EvalSplit>,
    /// Seed that the records of --eval-split are drawn by. It is not --seed, so that runs with other seeds are compared on the same records [default: 42].
    #[arg(long, value_name = "N", help_heading = "Files")]
    pub eval_split_seed: Option<u64>,
    /// Output directory for adapter/, metrics.jsonl, checkpoints/ and recipe.toml.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    pub output: Option<PathBuf>,
    /// Overwrite the results of an earlier run in the output directory.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub overwrite: bool,
    /// Resume from the last checkpoint in the output directory; the results equal those of an uninterrupted run.
    #[arg(long, help_heading = "Files")]
    #[serde(skip)]
    pub resume: bool,
    /// With --resume: continue although texts, labels, their order or the classes differ from those of the checkpoint [default: an error that names what changed].
    #[arg(long, requires = "resume", help_heading = "Files")]
    #[serde(skip)]
    pub allow_changed_data: bool,
    /// Also write losses, learning rates, gradient norms and scores for TensorBoard, to tensorboard/ in the output directory.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub tensorboard: bool,
    /// Also write the model with the adapter merged into it, to merged/ in the output directory.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub merge: bool,

    /// Method: lora, full (all weights), bitfit (biases), top2 (the last two layers), adapter-h, adapter-l or adapter-p (adapter layers of Houlsby, Lin or Pfeiffer), prompt, prefix or prefix-layer (virtual tokens: embeddings, keys and values, or activations); `+` combines, as in lora+prompt [default: lora].
    #[arg(long, value_name = "METHOD", help_heading = "Adapter")]
    pub method: Option<Method>,
    /// Rank of the adapters [default: 8].
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    pub rank: Option<usize>,
    /// Alpha: the update is scaled by alpha/rank [default: 8, or that of --adapter; a file of loralib has none].
    #[arg(long, value_name = "X", help_heading = "Adapter")]
    pub alpha: Option<f64>,
    /// Dropout probability of the adapters' inputs, in [0, 1) [default: 0].
    #[arg(long, value_name = "P", help_heading = "Adapter")]
    pub dropout: Option<f64>,
    /// Modules to adapt: names such as `query,value`, slices such as `c_attn[q,v]`, `all-linear`, or `regex:` and a pattern of the full path [default: PEFT's for the model: `c_attn`; `query,value`; `in_proj`; `query_proj,value_proj`].
    #[arg(long, value_name = "A,B", value_parser = split_targets, help_heading = "Adapter")]
    pub targets: Option<TargetNames>,
    /// Modules to exclude, by name.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        help_heading = "Adapter"
    )]
    pub exclude: Option<Vec<String>>,
    /// Layers to adapt, by index from 0 [default: all].
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        help_heading = "Adapter"
    )]
    pub layers: Option<Vec<usize>>,
    /// Modules to train fully and to save with the adapter (PEFT's `modules_to_save`); a classifier's head always is.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        help_heading = "Adapter"
    )]
    pub modules_to_save: Option<Vec<String>>,
    /// With both embeddings and output layer among the modules to save, keep them one matrix where the model ties them (PEFT's `ensure_weight_tying`); otherwise each is trained apart.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub ensure_weight_tying: bool,
    /// Tokens whose rows of the embedding are trained (PEFT's `trainable_token_indices`): a file with a token in each line, which the tokenizer and the embedding get if they lack it, or a number, for as many tokens at the end of the tokenizer's vocabulary. With virtual tokens, at the end of each prompt, these are the paper's infix.
    #[arg(long, value_name = "FILE|N", help_heading = "Adapter")]
    pub new_tokens: Option<TokenSource>,
    /// Initialize head and pooler at random instead of loading them from the checkpoint or --adapter, to train another task.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub fresh_head: bool,
    /// Scale by alpha/√rank (rank-stabilized LoRA).
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub rslora: bool,
    /// Initialization of the factors: `kaiming-uniform`, `gaussian`, `orthogonal`, `random`, or from the weight's principal components with `pissa`, `pissa-niter-N` (faster) or `olora` [default: kaiming-uniform].
    #[arg(long, value_name = "INIT", help_heading = "Adapter")]
    pub init: Option<LoraInit>,
    /// Train magnitude and direction of the weights separately (DoRA).
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub dora: bool,
    /// Add a bias to the factor B.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub lora_bias: bool,
    /// Biases of the model to train with the adapters: `none`, `all` or `lora-only` [default: none].
    #[arg(long, value_name = "WHICH", value_parser = parse_bias, help_heading = "Adapter")]
    pub bias: Option<BiasTraining>,
    /// Train only the biases and the head, without adapters: --method bitfit.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub bitfit: bool,
    /// Number of virtual tokens before every text, for the methods prompt, prefix and prefix-layer.
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    pub virtual_tokens: Option<usize>,
    /// For the method prompt: text from whose tokens the virtual tokens start, in turn [default: random values].
    #[arg(long, value_name = "TEXT", help_heading = "Adapter")]
    pub prompt_text: Option<String>,
    /// Width of adapter layers [default: a sixteenth of the model's].
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    pub adapter_size: Option<usize>,
    /// Activation in adapter layers, by its name in transformers [default: silu for adapter-h, relu for adapter-l and adapter-p].
    #[arg(long, value_name = "NAME", help_heading = "Adapter")]
    pub adapter_activation: Option<String>,
    /// Number of layers, from the first, without adapter layers (AdapterDrop) [default: 0].
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    pub adapter_drop: Option<usize>,
    /// Also train keys and values of N virtual tokens before every text: --method lora+prefix --virtual-tokens N.
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    pub prefix: Option<usize>,
    /// Train only the prefix, without adapters: --method prefix.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub prefix_only: bool,
    /// Ranks of single modules, by the end of the module's path; a table in a recipe.
    #[arg(skip)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules, by the end of the module's path; a table in a recipe.
    #[arg(skip)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Quantize the frozen weights while the adapters train in floating point (QLoRA): nf4 or int8 [default: not quantized].
    #[arg(long, value_name = "KIND", help_heading = "Adapter")]
    pub quantize: Option<Quantization>,
    /// Float type of the frozen weights in memory: f32, f16, bf16, or auto for that of the checkpoint, in which nothing is rounded; everything is computed in f32. Beside --quantize it is for embeddings and output layers; int8, in blocks of 64 values, is for these alone [default: f32].
    #[arg(long, value_name = "TYPE", help_heading = "Adapter")]
    pub base_dtype: Option<BaseDType>,
    /// Precision of products with frozen weights: f32, or mixed on GPUs, with operands in 16 bits (bf16 on cuda and rocm, else f16) and sums in f32; everything else is computed in f32. The frozen weights of linear layers are then in 16 bits too [default: f32].
    #[arg(long, value_name = "PRECISION", help_heading = "Adapter")]
    pub precision: Option<Precision>,
    /// Train all weights instead of an adapter, as a baseline: --method full.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub full: bool,
    /// With --full, start from random weights; the model directory then needs only config.json and a tokenizer.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub from_scratch: bool,

    /// Peak learning rate [default: 2e-4].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub lr: Option<f64>,
    /// LoRA+: ratio of the learning rates of the factors B and A; its authors use 16 [default: 1].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub loraplus_lr_ratio: Option<f64>,
    /// LoRA+: learning rate of adapters on embeddings [default: 1e-6, as in PEFT].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub loraplus_lr_embedding: Option<f64>,
    /// Decoupled weight decay, not applied to biases and norms [default: 0.01].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub weight_decay: Option<f64>,
    /// Decay of the running mean of the gradients [default: 0.9].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub beta1: Option<f64>,
    /// Decay of the running mean of the squared gradients [default: 0.999].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub beta2: Option<f64>,
    /// Epsilon, added to the square root of the second moment [default: 1e-8].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub epsilon: Option<f64>,
    /// Schedule of the learning rate after the warm-up: linear (to zero), cosine (to zero) or constant [default: linear].
    #[arg(long, value_name = "KIND", help_heading = "Optimization (AdamW)")]
    pub schedule: Option<ScheduleKind>,
    /// Number of steps over which the learning rate rises from zero [default: 0].
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "warmup_ratio",
        help_heading = "Optimization (AdamW)"
    )]
    pub warmup_steps: Option<usize>,
    /// Warm-up as a share of all steps, in [0, 1].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub warmup_ratio: Option<f64>,
    /// Largest norm of all gradients together; 0 disables clipping [default: 1].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub max_grad_norm: Option<f64>,
    /// Label smoothing in [0, 1) [default: 0].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    pub label_smoothing: Option<f64>,

    /// Weights of the classes in the loss: `balanced` (inverse frequency) or one number per class [default: equal].
    #[arg(long, value_name = "W,W", value_parser = parse_weights, help_heading = "Optimization (AdamW)")]
    pub class_weights: Option<ClassWeighting>,

    /// Number of examples in a forward pass [default: 8].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub batch_size: Option<usize>,
    /// Token budget of a forward pass, including padding, instead of a number of examples.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "batch_size",
        help_heading = "Batches"
    )]
    pub batch_tokens: Option<usize>,
    /// Pad batches to a multiple of N tokens, at most the maximum length: on GPUs each new length makes kernels compile. Without dropout no loss depends on it [default: 64 on GPUs, 16 on software adapters, 1 on CPUs].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub pad_to_multiple_of: Option<usize>,
    /// Pack the examples of a batch into one row without padding; each attends to itself only. For causal-lm.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub packing: bool,
    /// Number of forward passes per optimizer step; the loss is averaged over all their tokens [default: 1].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub grad_accumulation: Option<usize>,
    /// Keep only the inputs of blocks and recompute the rest in the backward pass: less memory, a third more time.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub checkpoint_activations: bool,
    /// Maximum length of an example in tokens; the rest is truncated [default: 512, or the model's maximum if lower].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub max_length: Option<usize>,
    /// Number of passes over the data [default: 3].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub epochs: Option<usize>,
    /// Number of optimizer steps, regardless of the epochs.
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub max_steps: Option<usize>,
    /// Keep the examples in the order of the file.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub no_shuffle: bool,
    /// Shuffle without grouping examples of similar length.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub no_group_by_length: bool,
    /// Seed of all random numbers [default: 42].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    pub seed: Option<u64>,
    /// Names of the classes, in order [default: the labels in the data, sorted; for GLUE its own].
    #[arg(long, value_name = "A,B", value_delimiter = ',', help_heading = "Data")]
    pub labels: Option<Vec<String>>,

    /// Train on at most N records, drawn by the seed; the first ones drawn are the same for every N [default: all].
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub max_examples: Option<usize>,

    /// Place of the tokens of the training data: memory, disk (tokenized once into tokens/ in the output directory, a file that is mapped into memory, and used again by later runs there with the same data and options; for causal-lm), or auto, which is disk for files of 256 MiB and more together [default: auto].
    #[arg(long, value_name = "PLACE", help_heading = "Data")]
    pub data_cache: Option<DataCache>,

    /// Options for reading the data.
    #[command(flatten)]
    #[serde(flatten)]
    pub reading: ReadingOptions,

    /// Options of generated texts.
    #[command(flatten)]
    #[serde(flatten)]
    pub decoding: DecodingOptions,

    /// Interval of evaluations in steps [default: each epoch].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub eval_steps: Option<usize>,
    /// Number of examples in a forward pass of an evaluation [default: the batch size].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub eval_batch_size: Option<usize>,
    /// Number of prompts of the evaluation data to generate for, before and after training, scored by BLEU, NIST, ROUGE-L, CIDEr and TER, or by the scores of the data set [default: 0].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub generate_prompts: Option<usize>,
    /// Maximum number of tokens to generate per prompt [default: the model's, else 64].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub max_new_tokens: Option<usize>,
    /// Number of beams; 1 is greedy search [default: the model's, else 1].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub beams: Option<usize>,
    /// Stop after N evaluations without improvement, and keep the best adapter.
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub early_stopping: Option<usize>,
    /// Metric that decides the best evaluation [default: the task's primary score; for causal-lm the loss].
    #[arg(long, value_name = "NAME", help_heading = "Evaluation and checkpoints")]
    pub metric: Option<String>,
    /// For multi-label-classification: probability above which a class is predicted, one number or one per class [default: 0.5].
    #[arg(
        long,
        value_name = "P,P",
        value_delimiter = ',',
        help_heading = "Evaluation and checkpoints"
    )]
    pub threshold: Option<Vec<f64>>,
    /// Keep the adapter of the best evaluation instead of the last one.
    #[arg(long, help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "is_false")]
    pub keep_best: bool,
    /// Interval of checkpoints in steps; 0 writes none [default: each epoch].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub save_steps: Option<usize>,
    /// Number of the latest checkpoints to keep. If the last one is damaged, a resumed run goes back to the one before [default: 2].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    pub keep_checkpoints: Option<usize>,

    /// Device to train on [default: auto].
    #[arg(long, value_name = "DEVICE", help_heading = "Device")]
    pub device: Option<DeviceName>,
    /// Compare the first step with the CPU on a slice of the first batch, and fail if the numbers differ [default: on a GPU, where it takes less than two seconds].
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Device"
    )]
    pub verify_device: Option<bool>,
}

/// Target modules in an option or a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetNames {
    /// `"c_attn,c_proj"`, `"all-linear"` or `"regex:…"`.
    Text(String),
    /// `["c_attn", "c_proj"]`.
    List(Vec<String>),
}

impl TrainOptions {
    /// Returns true if the run has data to evaluate on.
    pub(crate) fn evaluates(&self) -> bool {
        self.eval_data.is_some() || self.eval_split.is_some()
    }

    /// Returns the options without the files and directories, whose places may differ between runs that compute the same.
    pub(crate) fn without_files(&self) -> Self {
        Self {
            model: None,
            data: Vec::new(),
            eval_data: None,
            output: None,
            adapter: None,
            new_tokens: None,
            ..self.clone()
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

pub(crate) fn split_targets(text: &str) -> Result<TargetNames, std::convert::Infallible> {
    Ok(TargetNames::Text(text.into()))
}

/// Parses a word by its serde name, as in recipes.
fn parse_word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

fn parse_bias(text: &str) -> Result<BiasTraining, String> {
    parse_word(&text.replace('-', "_"))
}
