//! Workload of a measurement: model and batch.

use crate::TrainError;
use crate::data::{Example, Origin, Target};
use crate::device::DeviceName;
use crate::jobs::adapter::{adapter_layers_config, lora_config, prefix_config};
use crate::jobs::ranges::at_least_one;
use crate::options::{Method, MethodPart, Precision, TargetNames, TrainOptions, split_targets};
use clap::Args;
use lora_core::{BaseDType, LoraConfig, LoraInit, Quantization};
use lora_models::adapter_layers::AdapterLayersConfig;
use lora_models::encoder::Labels;
use lora_models::prefix::PrefixConfig;
use lora_models::{LoraModel, ModelConfig, Preset};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Model and size of a batch.
#[derive(Args, Clone, Debug, Default)]
pub struct Shape {
    /// Directory with the config.json of the model; the weights are random.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    pub model: Option<PathBuf>,
    /// Shape of a published model: gpt2, gpt2-medium, roberta-base, deberta-v3-base, minilm, smollm2-135m, qwen3-0.6b or
    /// llama-3.2-1b [default: gpt2].
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// Number of examples in a batch [default: 8; for inference 1].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Number of tokens in an example [default: 128].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Method, as in `lora train` [default: lora].
    #[arg(long, value_name = "METHOD")]
    pub method: Option<Method>,
    /// Number of virtual tokens, for the methods prompt, prefix and prefix-layer.
    #[arg(long, value_name = "N")]
    pub virtual_tokens: Option<usize>,
    /// Width of adapter layers [default: a sixteenth of the model's].
    #[arg(long, value_name = "N")]
    pub adapter_size: Option<usize>,
    /// Number of layers, from the first, without adapter layers [default: 0].
    #[arg(long, value_name = "N")]
    pub adapter_drop: Option<usize>,
    /// Rank of the adapters [default: 8].
    #[arg(long, value_name = "N")]
    pub rank: Option<usize>,
    /// Modules to adapt, as in `lora train` [default: those of PEFT for the model].
    #[arg(long, value_name = "A,B", value_parser = split_targets)]
    pub targets: Option<TargetNames>,
    /// Use weight-decomposed adapters (DoRA).
    #[arg(long)]
    pub dora: bool,
    /// Quantize the frozen weights: nf4 or int8.
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Float type of the other frozen weights of linear layers and embeddings: f32, f16 or bf16 [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub base_dtype: Option<BaseDType>,
    /// Precision of products with frozen weights: f32, or mixed on GPUs [default: f32].
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Keep the model's dropout, which is off by default: random draws differ between programs.
    #[arg(long)]
    pub model_dropout: bool,
    /// Device to run on [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
}

/// Batch and length of a measurement, `32x512`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSize {
    /// Number of texts.
    pub batch: usize,
    /// Number of tokens in each.
    pub length: usize,
}

impl BatchSize {
    /// Sizes of the paper's table 1.
    pub const PAPER: [Self; 3] = [
        Self {
            batch: 32,
            length: 512,
        },
        Self {
            batch: 16,
            length: 256,
        },
        Self {
            batch: 1,
            length: 128,
        },
    ];
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("is `{text}`, expected a batch and a length such as 32x512");
        let (batch, length) = text.split_once('x').ok_or_else(expected)?;
        let number = |text: &str| text.trim().parse().ok().filter(|&n: &usize| n > 0);
        let (batch, length) = number(batch).zip(number(length)).ok_or_else(expected)?;
        Ok(Self { batch, length })
    }
}

/// Training of a measurement.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Training {
    /// Train all weights.
    #[arg(long, conflicts_with_all = ["method", "rank", "targets", "dora", "quantize", "base_dtype", "precision"])]
    pub full: bool,
    /// Keep only the inputs of blocks, and recompute other activations in the backward pass.
    #[arg(long)]
    pub checkpoint_activations: bool,
}

impl Shape {
    /// Returns the model's name and configuration.
    pub(in crate::tools) fn model(&self) -> Result<(String, ModelConfig), TrainError> {
        let (name, config) = match (&self.model, self.preset) {
            (Some(dir), _) => (dir.display().to_string(), ModelConfig::from_dir(dir)?),
            (None, preset) => {
                let preset = preset.unwrap_or_default();
                (preset.to_string(), preset.config()?)
            }
        };
        let config = if self.model_dropout {
            config
        } else {
            config.without_dropout()
        };
        // Two classes, whatever labels a checkpoint has.
        Ok((name, config.with_labels(Labels::default())))
    }

    /// Returns the number of examples in a batch, and of tokens in an example.
    pub(in crate::tools) fn size(
        &self,
        standard_batch: usize,
        config: &ModelConfig,
    ) -> Result<[usize; 2], TrainError> {
        let batch = at_least_one("batch_size", self.batch_size.unwrap_or(standard_batch))?;
        let most = config.sizes().max_length;
        let length = self.max_length.unwrap_or(most.min(128));
        if !(2..=most).contains(&length) {
            let message = format!("is {length}, expected 2 to {most} tokens, the model's maximum");
            return Err(TrainError::config("max_length", message));
        }
        Ok([batch, length])
    }

    /// Returns the options of a run with this method.
    fn options(&self) -> TrainOptions {
        TrainOptions {
            method: self.method.clone(),
            virtual_tokens: self.virtual_tokens,
            adapter_size: self.adapter_size,
            adapter_drop: self.adapter_drop,
            rank: self.rank,
            targets: self.targets.clone(),
            dora: self.dora,
            ..TrainOptions::default()
        }
    }

    /// Returns the method.
    pub(in crate::tools) fn trained(&self) -> Result<Method, TrainError> {
        self.options().method()
    }

    /// Returns the configuration of what is trained of a model's own parameters; `None` if there is nothing but a head. Neither
    /// factor is zero, as in a trained adapter.
    pub(in crate::tools) fn lora<M: LoraModel>(
        &self,
        model: &M,
    ) -> Result<Option<LoraConfig>, TrainError> {
        let method = self.trained()?;
        let Some(mut lora) = lora_config(&self.options(), &method)? else {
            return Ok(None);
        };
        if method.has(MethodPart::Lora) {
            lora.init = LoraInit::Random;
            if self.targets.is_none() {
                lora.targets = model.default_targets();
            }
        }
        if method.has(MethodPart::Top2) {
            let layers = model.layer_names().layers;
            lora.modules_to_save = layers.into_iter().rev().take(2).collect();
        }
        Ok(Some(lora))
    }

    /// Returns the configuration of the virtual tokens.
    pub(in crate::tools) fn prefix(&self) -> Result<Option<PrefixConfig>, TrainError> {
        prefix_config(&self.options(), &self.trained()?)
    }

    /// Returns the configuration of the adapter layers.
    pub(in crate::tools) fn adapter_layers(
        &self,
    ) -> Result<Option<AdapterLayersConfig>, TrainError> {
        adapter_layers_config(&self.options(), &self.trained()?)
    }

    /// Describes a method with its sizes.
    pub(in crate::tools) fn describe(&self, method: &Method) -> String {
        let mut text = method.to_string();
        let sizes = [
            (self.rank, "rank"),
            (self.adapter_size, "size"),
            (self.virtual_tokens, "virtual tokens"),
            (self.adapter_drop, "layers dropped"),
        ];
        for (size, what) in sizes {
            if let Some(size) = size {
                text.push_str(&format!(", {what} {size}"));
            }
        }
        text
    }

    /// Describes the method in words.
    pub(in crate::tools) fn describe_with(&self, training: Training) -> String {
        let checkpointed = if training.checkpoint_activations {
            ", activations checkpointed"
        } else {
            ""
        };
        if training.full {
            return format!("full{checkpointed}");
        }
        if let Some(method) = self
            .method
            .as_ref()
            .filter(|method| **method != Method::default())
        {
            return format!("{}{checkpointed}", self.describe(method));
        }
        let targets = match &self.targets {
            None => "the default targets".into(),
            Some(TargetNames::Text(text)) => text.clone(),
            Some(TargetNames::List(names)) => names.join(","),
        };
        let kind = if self.dora { "DoRA" } else { "LoRA" };
        let half = self.base_dtype.filter(|dtype| dtype.half(None).is_some());
        let base = match (self.quantize, half) {
            (None, None) => String::new(),
            (Some(kind), None) => format!(" over {kind}"),
            (None, Some(dtype)) => format!(" over {dtype}"),
            (Some(kind), Some(dtype)) => format!(" over {kind} and {dtype}"),
        };
        let rank = self.rank.unwrap_or(LoraConfig::default().rank);
        let mixed = match self.precision.unwrap_or_default() {
            Precision::F32 => "",
            Precision::Mixed => ", mixed precision",
        };
        format!("{kind} r={rank} on {targets}{base}{mixed}{checkpointed}")
    }
}

/// Returns scattered tokens, equal in every run, without the first few ids, which are often special.
pub(super) fn tokens(row: usize, length: usize, vocab: usize) -> Vec<u32> {
    const SPECIAL: usize = 5;
    let from = SPECIAL.min(vocab - 1);
    (0..length)
        .map(|i| (from + ((row * length + i) * 7919 + 13) % (vocab - from)) as u32)
        .collect()
}

fn origin() -> Origin {
    Origin::new(Path::new("random"), 1)
}

/// Returns texts with a label at every token except the first.
pub(in crate::tools) fn texts([batch, length]: [usize; 2], vocab: usize) -> Vec<Example> {
    (0..batch)
        .map(|row| Example::new(row, tokens(row, length, vocab), 1, origin()))
        .collect()
}

/// Returns texts of two classes.
pub(in crate::tools) fn labelled([batch, length]: [usize; 2], vocab: usize) -> Vec<Example> {
    (0..batch)
        .map(|row| {
            let tokens = tokens(row, length, vocab);
            Example::with_target(row, tokens, Target::Class(row % 2), origin())
                .with_type_ids(vec![0; length])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_no_model_takes_are_refused() {
        let shape = |batch, length| Shape {
            batch_size: Some(batch),
            max_length: Some(length),
            ..Shape::default()
        };
        let (name, config) = Shape::default().model().unwrap();
        assert_eq!(name, "gpt2");
        assert_eq!(Shape::default().size(8, &config).unwrap(), [8, 128]);
        assert_eq!(shape(3, 1024).size(8, &config).unwrap(), [3, 1024]);
        for (shape, option) in [
            (shape(0, 9), "batch_size"),
            (shape(1, 1), "max_length"),
            (shape(1, 1025), "max_length"),
        ] {
            let error = shape.size(8, &config).unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
    }

    #[test]
    fn tokens_are_the_models_and_not_special() {
        let all = texts([3, 50], 40);
        assert_eq!(all.len(), 3);
        assert!(
            all.iter()
                .all(|e| e.tokens().iter().all(|id| (5..40).contains(id)))
        );
        assert_ne!(all[0].tokens(), all[1].tokens());
        assert_eq!(labelled([2, 4], 3)[1].target(), &Target::Class(1));
    }

    #[test]
    fn the_method_says_what_is_done() {
        let shape = Shape {
            rank: Some(4),
            targets: Some(TargetNames::Text("all-linear".into())),
            quantize: Some(Quantization::Nf4),
            ..Shape::default()
        };
        let standard = Training::default();
        assert_eq!(
            shape.describe_with(standard),
            "LoRA r=4 on all-linear over nf4"
        );
        let training = Training {
            full: true,
            checkpoint_activations: true,
        };
        assert_eq!(
            shape.describe_with(training),
            "full, activations checkpointed"
        );
    }
}
