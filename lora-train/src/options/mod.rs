//! Options of a training run, from the command line and from a recipe: one list for both.

mod class_weights;
mod reading;

pub use class_weights::ClassWeighting;
use class_weights::parse_weights;
pub use reading::ReadingOptions;

use crate::TrainError;
use crate::device::DeviceName;
use crate::task::TaskName;
use crate::trainer::ScheduleKind;
use clap::Args;
use lora_core::{BiasTraining, LoraInit, Quantization};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Options of `lora train`.
///
/// Each is a flag of the command line and a key of a recipe (with `_` for `-`). What is given on
/// the command line wins. `None` and `false` stand for "not given".
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Directory of the base model: config.json, weights and tokenizer as Hugging Face has them; built with the feature `hub`, also its name there.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// What is learned: causal-lm, classification, regression, token-classification, or glue/NAME, such as glue/cola [default: causal-lm for GPT-2, classification for encoders].
    #[arg(long, value_name = "TASK", help_heading = "Files")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// PEFT adapter to start from [default: a fresh one].
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// Refuse an adapter to start from, or a checkpoint to go on with, that is known to be of another base, where otherwise a line warns.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub strict_base: bool,
    /// Training data. To classify: .jsonl, .csv or .tsv with `text`, `pair` where there are two, and `label`; CoNLL or .jsonl with `tokens` and `tags` for words; GLUE's own files. For causal-lm: .jsonl with `text` or `prompt` and `completion`, .csv or .tsv with such columns, E2E (`mr||reference`), or plain text.
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Data to evaluate on, likewise.
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<PathBuf>,
    /// Directory that receives adapter/, metrics.jsonl, checkpoints/ and recipe.toml.
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
    /// Replace what an earlier run left in the output directory.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub overwrite: bool,
    /// Go on with the last checkpoint in the output directory, with the numbers of a run that was never interrupted.
    #[arg(long, help_heading = "Files")]
    #[serde(skip)]
    pub resume: bool,
    /// Also write the model with the adapter merged, to merged/ in the output directory.
    #[arg(long, help_heading = "Files")]
    #[serde(skip_serializing_if = "is_false")]
    pub merge: bool,

    /// Rank of the adapters [default: 8].
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Alpha: the update is scaled by alpha/rank [default: 8].
    #[arg(long, value_name = "X", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Probability of dropping an input of an adapter, in [0, 1) [default: 0].
    #[arg(long, value_name = "P", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Modules to adapt, by name: `query,value`, slices as `c_attn[q,v]`, `all-linear`, or with `regex:` before it a pattern of the whole path [default: as PEFT for the model: c_attn; query,value; in_proj; query_proj,value_proj].
    #[arg(long, value_name = "A,B", value_parser = split_targets, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetNames>,
    /// Modules to leave alone, by name.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        help_heading = "Adapter"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<String>>,
    /// Layers to adapt, by index from 0 [default: all].
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        help_heading = "Adapter"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<usize>>,
    /// Modules to train whole beside the adapters and to save with them; the head of a classifier always is.
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        help_heading = "Adapter"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modules_to_save: Option<Vec<String>>,
    /// Start head and pooler afresh, whatever checkpoint or --adapter has: for another task than theirs.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub fresh_head: bool,
    /// Scale by alpha/√rank (rank-stabilized LoRA).
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub rslora: bool,
    /// How the factors start: `kaiming-uniform`, `gaussian`, `orthogonal`, at the weight's own largest part with `pissa`, `pissa-niter-N` (faster) or `olora`, or `random` [default: kaiming-uniform].
    #[arg(long, value_name = "INIT", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<LoraInit>,
    /// Train the magnitude of the weights apart from their direction (DoRA).
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub dora: bool,
    /// Give the factor B a bias.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub lora_bias: bool,
    /// Biases of the model to train beside the adapters: `none`, `all` or `lora-only` [default: none].
    #[arg(long, value_name = "WHICH", value_parser = parse_bias, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<BiasTraining>,
    /// Train the biases and the head only, without adapters (BitFit).
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub bitfit: bool,
    /// Train the keys and values of this many virtual tokens before every text too (prefix tuning; GPT-2).
    #[arg(long, value_name = "N", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<usize>,
    /// Train the prefix alone, without adapters.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub prefix_only: bool,
    /// Other ranks by the end of the module's path; in a recipe a table.
    #[arg(skip)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas by the end of the module's path; in a recipe a table.
    #[arg(skip)]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Keep the frozen weights in 4 or 8 bits while adapters train in floats (QLoRA): nf4 or int8 [default: in floats].
    #[arg(long, value_name = "KIND", help_heading = "Adapter")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantize: Option<Quantization>,
    /// Train all weights instead of an adapter: the baseline.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub full: bool,
    /// With --full: start from random weights; the model directory then needs config.json and a tokenizer only.
    #[arg(long, help_heading = "Adapter")]
    #[serde(skip_serializing_if = "is_false")]
    pub from_scratch: bool,

    /// Highest learning rate [default: 2e-4].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// How many times as fast the factors B learn as the factors A: LoRA+, whose authors take 16 [default: 1].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loraplus_lr_ratio: Option<f64>,
    /// With it, the learning rate of adapters on embeddings [default: 1e-6, as in PEFT].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loraplus_lr_embedding: Option<f64>,
    /// Decoupled weight decay; never on biases and norms [default: 0.01].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Decay of the mean of the gradients [default: 0.9].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// Decay of the mean of the squared gradients [default: 0.999].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Added to the root of that [default: 1e-8].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Learning rate after the warm-up: linear to zero, cosine to zero, or constant [default: linear].
    #[arg(long, value_name = "KIND", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleKind>,
    /// Steps over which the learning rate rises from zero [default: 0].
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "warmup_ratio",
        help_heading = "Optimization (AdamW)"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<usize>,
    /// The same as a share of all steps, in [0, 1].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_ratio: Option<f64>,
    /// Largest norm of all gradients together; 0 switches clipping off [default: 1].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// Label smoothing in [0, 1) [default: 0].
    #[arg(long, value_name = "X", help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,

    /// How much each class counts in the loss: `balanced`, by one over its share of the labels, or a number for each [default: all alike].
    #[arg(long, value_name = "W,W", value_parser = parse_weights, help_heading = "Optimization (AdamW)")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeighting>,

    /// Examples in a forward pass [default: 8].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Most tokens in a forward pass, padding counted, in place of a number of examples.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "batch_size",
        help_heading = "Batches"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Put the examples of a batch one behind another in one row, so that nothing is padded; none sees another. For causal-lm.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub packing: bool,
    /// Forward passes in an optimizer step; the loss is averaged over the tokens of all [default: 1].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_accumulation: Option<usize>,
    /// Keep the inputs of blocks only, and compute the rest again in the backward pass: less memory, a third more time.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub checkpoint_activations: bool,
    /// Longest example in tokens, the rest is cut off [default: 512, at most the model's].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Times to go through the data [default: 3].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Optimizer steps to take, whatever the epochs.
    #[arg(long, value_name = "N", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<usize>,
    /// Take the examples in the order of the file.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub no_shuffle: bool,
    /// Shuffle without putting examples of like length together.
    #[arg(long, help_heading = "Batches")]
    #[serde(skip_serializing_if = "is_false")]
    pub no_group_by_length: bool,
    /// Seed of everything random [default: 42].
    #[arg(long, value_name = "N", help_heading = "Batches")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Names of the classes, by index [default: those of the data, sorted; GLUE's own].
    #[arg(long, value_name = "A,B", value_delimiter = ',', help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,

    /// How to read the data.
    #[command(flatten)]
    #[serde(flatten)]
    pub reading: ReadingOptions,

    /// Evaluate after this many steps [default: after each epoch].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_steps: Option<usize>,
    /// Examples in a forward pass of an evaluation [default: the batch size].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_batch_size: Option<usize>,
    /// Before and after training, generate for this many prompts of the evaluation data and score BLEU and ROUGE-L [default: 0].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_prompts: Option<usize>,
    /// Most tokens to generate for each [default: 64].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<usize>,
    /// Beams to generate with; 1 is greedy [default: 1].
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beams: Option<usize>,
    /// Stop after this many evaluations without a better one, and keep the best adapter.
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<usize>,
    /// The metric that says which evaluation is the best [default: the task's score; for causal-lm the loss].
    #[arg(long, value_name = "NAME", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Keep the adapter of the best evaluation instead of the last.
    #[arg(long, help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "is_false")]
    pub keep_best: bool,
    /// Write a checkpoint after this many steps [default: after each epoch]; 0 writes none.
    #[arg(long, value_name = "N", help_heading = "Evaluation and checkpoints")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save_steps: Option<usize>,

    /// Device to train on [default: auto].
    #[arg(long, value_name = "DEVICE", help_heading = "Device")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
}

/// Target modules as a user writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetNames {
    /// `"c_attn,c_proj"`, `"all-linear"` or `"regex:…"`.
    Text(String),
    /// `["c_attn", "c_proj"]`.
    List(Vec<String>),
}

/// Whether a model that is given in `folder` is meant by its name on the Hub: it is no directory there,
/// and looks like none.
fn is_name(model: &Path, folder: &Path) -> bool {
    let plain = model
        .components()
        .all(|component| matches!(component, std::path::Component::Normal(_)));
    plain && model.components().count() <= 2 && !folder.join(model).exists()
}

fn is_false(value: &bool) -> bool {
    !value
}

pub(crate) fn split_targets(text: &str) -> Result<TargetNames, std::convert::Infallible> {
    Ok(TargetNames::Text(text.into()))
}

/// Parses a word as serde would: the names are those of recipes.
fn parse_word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

fn parse_bias(text: &str) -> Result<BiasTraining, String> {
    parse_word(&text.replace('-', "_"))
}

/// No recipe is anywhere near this size.
const RECIPE_LIMIT: u64 = 1 << 20;

impl TrainOptions {
    /// Reads a recipe. Its paths are relative to its own directory.
    ///
    /// # Errors
    /// If it cannot be read, is no TOML or has an unknown key; the message names line and key.
    pub fn from_recipe(path: &Path) -> Result<Self, TrainError> {
        let malformed = |error: &dyn std::fmt::Display| {
            TrainError::config("recipe", format!("{}: {error}", path.display()))
        };
        let bytes = lora_core::files::read_bounded(path, RECIPE_LIMIT)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| malformed(&error))?;
        let mut options: Self = toml::from_str(text).map_err(|error| malformed(&error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let named = options.model.clone().filter(|model| is_name(model, folder));
        for file in options.paths() {
            if file.is_relative() {
                *file = folder.join(&file);
            }
        }
        if named.is_some() {
            options.model = named;
        }
        Ok(options)
    }

    /// Every path among the options.
    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [
            &mut self.model,
            &mut self.adapter,
            &mut self.data,
            &mut self.eval_data,
            &mut self.output,
        ]
        .into_iter()
        .flatten()
    }

    /// The same with absolute paths, so that it means the same from anywhere.
    ///
    /// # Errors
    /// If the working directory is gone.
    pub fn absolute(mut self) -> Result<Self, TrainError> {
        let named = self.model.clone();
        let named = named.filter(|model| is_name(model, Path::new("")));
        for path in self.paths() {
            *path = std::path::absolute(&path).map_err(TrainError::io(path.clone()))?;
        }
        if named.is_some() {
            self.model = named;
        }
        Ok(self)
    }

    /// Fills what is not given from a recipe.
    ///
    /// Options that exclude each other, such as the two kinds of warm-up, go together: one of them
    /// on the command line hides the recipe's.
    pub fn or(self, mut recipe: Self) -> Result<Self, TrainError> {
        if self.warmup_steps.is_some() || self.warmup_ratio.is_some() {
            recipe.warmup_steps = None;
            recipe.warmup_ratio = None;
        }
        if self.batch_size.is_some() || self.batch_tokens.is_some() {
            recipe.batch_size = None;
            recipe.batch_tokens = None;
        }
        // Both serialize what is given only: the command line's keys replace the recipe's.
        let as_table = |options: &Self| {
            toml::Table::try_from(options)
                .map_err(|error| TrainError::config("recipe", error.to_string()))
        };
        let resume = self.resume;
        let mut merged = as_table(&recipe)?;
        merged.extend(as_table(&self)?);
        let mut options: Self = merged
            .try_into()
            .map_err(|error: toml::de::Error| TrainError::config("recipe", error.to_string()))?;
        options.resume = resume;
        Ok(options)
    }

    /// As a recipe.
    ///
    /// # Errors
    /// If a path is not Unicode.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|error| TrainError::config("recipe", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_recipe_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        let recipe = "model = \"base\"\nrank = 4\nalpha = 32.0\ntargets = [\"c_attn[q,v]\"]\n\
                      warmup_steps = 500\nno_shuffle = true\n[rank_pattern]\nc_fc = 2\n";
        std::fs::write(&path, recipe).unwrap();
        // A model that is not there is meant by its name on the Hub.
        let named = TrainOptions::from_recipe(&path).unwrap();
        assert_eq!(named.model, Some("base".into()));
        std::fs::create_dir(dir.path().join("base")).unwrap();
        let recipe = TrainOptions::from_recipe(&path).unwrap();
        assert_eq!(recipe.model, Some(dir.path().join("base")));
        let flags = TrainOptions {
            rank: Some(16),
            warmup_ratio: Some(0.1),
            resume: true,
            ..TrainOptions::default()
        };
        let options = flags.or(recipe).unwrap();
        assert_eq!((options.rank, options.alpha), (Some(16), Some(32.0)));
        assert_eq!(
            (options.warmup_steps, options.warmup_ratio),
            (None, Some(0.1))
        );
        assert!(options.no_shuffle && options.resume);
        assert_eq!(options.rank_pattern["c_fc"], 2);
        let again: TrainOptions = toml::from_str(&options.to_toml().unwrap()).unwrap();
        assert_eq!(
            again,
            TrainOptions {
                resume: false,
                ..options
            }
        );
    }

    #[test]
    fn an_unknown_key_of_a_recipe_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recipe.toml");
        std::fs::write(&path, "rnak = 4\n").unwrap();
        let error = TrainOptions::from_recipe(&path).unwrap_err().to_string();
        assert!(error.contains("rnak"), "{error}");
    }
}
