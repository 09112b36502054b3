//! How each kind of model is opened.

use super::open::{Opens, Traits};
use crate::TrainError;
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::encoder::EncoderConfig;
use lora_models::generate::CausalModel;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead, Gpt2Options};
use std::path::Path;

impl Opens for Gpt2LmHead {
    type How = Gpt2Options;

    fn in_floats(_how: &Gpt2Options) -> Gpt2Options {
        Gpt2Options::default()
    }

    fn open(dir: &Path, how: &Gpt2Options, device: &Device) -> Result<(Self, String), TrainError> {
        let (model, report) = Self::load_with(dir, how, device)?;
        Ok((model, report.to_string()))
    }

    fn random(
        dir: &Path,
        _how: &Gpt2Options,
        seed: u64,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Ok(Self::init(&Gpt2Config::from_dir(dir)?, seed, device)?)
    }

    fn weight_shapes(
        dir: &Path,
        _how: &Gpt2Options,
        device: &Device,
    ) -> Result<Vec<(String, Vec<usize>)>, TrainError> {
        Ok(Self::weight_shapes(&Gpt2Config::from_dir(dir)?, device)?)
    }

    fn traits(&self) -> Traits {
        let config = self.config();
        Traits {
            vocab_size: config.vocab_size,
            max_length: self.max_positions(),
            eos_id: config.eos_token_ids.first().copied(),
            pad_id: None,
        }
    }

    fn outputs(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Bool>,
        _type_ids: Tensor<2, Int>,
    ) -> Tensor<2> {
        let logits = self.forward(ids, Some(mask));
        let [batch, seq, vocabulary] = logits.dims();
        logits.reshape([batch * seq, vocabulary])
    }
}

impl Opens for Classifier {
    type How = ClassifierOptions;

    fn trained(how: &ClassifierOptions) -> ClassifierOptions {
        ClassifierOptions {
            fresh_head: false,
            ..how.clone()
        }
    }

    fn in_floats(how: &ClassifierOptions) -> ClassifierOptions {
        ClassifierOptions {
            quantize: None,
            ..how.clone()
        }
    }

    fn open(
        dir: &Path,
        how: &ClassifierOptions,
        device: &Device,
    ) -> Result<(Self, String), TrainError> {
        let (model, report) = Self::load(dir, how, device)?;
        let mut summary = format!("{}: {report}", model.config().family);
        if !model.fresh().is_empty() {
            summary.push_str(&format!(
                "\n          not in the checkpoint, at random unless an adapter brings it: {}",
                model.fresh().join(", ")
            ));
        }
        Ok((model, summary))
    }

    fn random(
        dir: &Path,
        how: &ClassifierOptions,
        seed: u64,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let config = config_with_labels(dir, how)?;
        Ok(Self::init(&config, how.head, seed, device)?)
    }

    fn weight_shapes(
        dir: &Path,
        how: &ClassifierOptions,
        device: &Device,
    ) -> Result<Vec<(String, Vec<usize>)>, TrainError> {
        let config = config_with_labels(dir, how)?;
        Ok(Self::weight_shapes(&config, how.head, device)?)
    }

    fn traits(&self) -> Traits {
        let config = self.config();
        Traits {
            vocab_size: config.vocab_size,
            max_length: config.max_length(),
            eos_id: None,
            pad_id: Some(config.pad_token_id),
        }
    }

    fn outputs(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Bool>,
        type_ids: Tensor<2, Int>,
    ) -> Tensor<2> {
        self.forward(ids, &mask, Some(type_ids))
    }

    fn random_modules(&self) -> &[String] {
        self.fresh()
    }
}

fn config_with_labels(dir: &Path, how: &ClassifierOptions) -> Result<EncoderConfig, TrainError> {
    let mut config = EncoderConfig::from_dir(dir)?;
    if let Some(labels) = &how.labels {
        config.labels = labels.clone();
    }
    Ok(config)
}
