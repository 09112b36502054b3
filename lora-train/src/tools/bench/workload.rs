//! The shape of the work.

use crate::TrainError;
use crate::data::{Example, Origin, Target};
use crate::device::DeviceName;
use crate::jobs::adapter::lora_config;
use crate::jobs::ranges::at_least_one;
use crate::options::{TargetNames, TrainOptions, split_targets};
use clap::Args;
use lora_core::{LoraConfig, LoraInit, Quantization};
use lora_models::encoder::Labels;
use lora_models::{ModelConfig, Preset};
use std::path::{Path, PathBuf};

/// Of which model, and how much of it at once.
#[derive(Args, Clone, Debug, Default)]
pub struct Shape {
    /// Directory whose config.json says the model's shape; its weights are random.
    #[arg(long, value_name = "DIR", conflicts_with = "preset")]
    pub model: Option<PathBuf>,
    /// Shape of a published model: gpt2, gpt2-medium, roberta-base, deberta-v3-base or minilm [default: gpt2].
    #[arg(long, value_name = "NAME")]
    pub preset: Option<Preset>,
    /// Examples at once [default: 8; for inference 1].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Tokens of each [default: 128].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Rank of the adapters [default: 8].
    #[arg(long, value_name = "N")]
    pub rank: Option<usize>,
    /// Modules to adapt, as `lora train` takes them [default: as PEFT for the model].
    #[arg(long, value_name = "A,B", value_parser = split_targets)]
    pub targets: Option<TargetNames>,
    /// Weight-decomposed adapters (DoRA).
    #[arg(long)]
    pub dora: bool,
    /// Pack the frozen weights: nf4 or int8.
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Keep the model's own dropout, which is off otherwise: no two programs draw alike.
    #[arg(long)]
    pub model_dropout: bool,
    /// Device to run on [default: auto].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceName>,
}

/// What trains, and how.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Training {
    /// Train all weights.
    #[arg(long, conflicts_with_all = ["rank", "targets", "dora", "quantize"])]
    pub full: bool,
    /// Keep the inputs of blocks only, and compute the rest again in the backward pass.
    #[arg(long)]
    pub checkpoint_activations: bool,
}

impl Shape {
    /// The model's name, and what it is made of.
    pub(in crate::tools) fn model(&self) -> Result<(String, ModelConfig), TrainError> {
        let (name, config) = match (&self.model, self.preset) {
            (Some(dir), _) => (dir.display().to_string(), ModelConfig::from_dir(dir)?),
            (None, preset) => {
                let preset = preset.unwrap_or(Preset::Gpt2);
                (preset.to_string(), preset.config()?)
            }
        };
        let config = match self.model_dropout {
            true => config,
            false => config.without_dropout(),
        };
        // Two classes, whatever the labels of a checkpoint are called.
        let config = match config {
            ModelConfig::Encoder(mut config) => {
                config.labels = Labels::default();
                ModelConfig::Encoder(config)
            }
            gpt2 => gpt2,
        };
        Ok((name, config))
    }

    /// Examples at once, and tokens of each.
    pub(in crate::tools) fn size(
        &self,
        standard_batch: usize,
        config: &ModelConfig,
    ) -> Result<[usize; 2], TrainError> {
        let batch = at_least_one("batch_size", self.batch_size.unwrap_or(standard_batch))?;
        let most = config.max_length();
        let length = self.max_length.unwrap_or(most.min(128));
        if !(2..=most).contains(&length) {
            return Err(TrainError::config(
                "max_length",
                format!("is {length}, expected from 2 to the {most} tokens that the model takes"),
            ));
        }
        Ok([batch, length])
    }

    /// The adapter, with neither factor zero: what is measured is the work of a trained one.
    pub(in crate::tools) fn lora(&self) -> Result<LoraConfig, TrainError> {
        lora_config(&TrainOptions {
            rank: self.rank,
            targets: self.targets.clone(),
            dora: self.dora,
            init: Some(LoraInit::Random),
            ..TrainOptions::default()
        })
    }

    /// What is done, in words.
    pub(in crate::tools) fn method(&self, training: Training) -> String {
        let again = match training.checkpoint_activations {
            true => ", activations checkpointed",
            false => "",
        };
        if training.full {
            return format!("full{again}");
        }
        let targets = match &self.targets {
            None => "the default targets".into(),
            Some(TargetNames::Text(text)) => text.clone(),
            Some(TargetNames::List(names)) => names.join(","),
        };
        let kind = if self.dora { "DoRA" } else { "LoRA" };
        let base = match self.quantize {
            None => String::new(),
            Some(kind) => format!(" over {kind}"),
        };
        let rank = self.rank.unwrap_or(LoraConfig::default().rank);
        format!("{kind} r={rank} on {targets}{base}{again}")
    }
}

/// Tokens in no order, the same in every run; none of the first few, which are often special.
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

/// Texts of which every token but the first is learned.
pub(super) fn texts([batch, length]: [usize; 2], vocab: usize) -> Vec<Example> {
    (0..batch)
        .map(|row| Example::new(row, tokens(row, length, vocab), 1, origin()))
        .collect()
}

/// Texts of two classes.
pub(super) fn labelled([batch, length]: [usize; 2], vocab: usize) -> Vec<Example> {
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
        assert_eq!(shape.method(standard), "LoRA r=4 on all-linear over nf4");
        let training = Training {
            full: true,
            checkpoint_activations: true,
        };
        assert_eq!(shape.method(training), "full, activations checkpointed");
    }
}
