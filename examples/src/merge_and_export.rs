//! An adapter merged into its model for deployment: checked, written in two precisions as transformers has it, read back,
//! and taken off again.

use crate::fine_tune::{self, folder};
use burn::tensor::{Device, Int, Tensor, TensorData};
use lora_models::checkpoint::ExportDType;
use lora_models::generate::{GenerationConfig, Generator};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::tokenizer::Tokenizer;
use lora_models::{LoadOptions, LoraModel, ModelError, Pretrained};
use lora_train::TrainError;
use lora_train::device::{self, DeviceName};
use lora_train::jobs::{MergeCheck, MergeOptions, VerifyOptions, merge};
use lora_train::progress::Screen;
use std::path::{Path, PathBuf};

/// What the models are asked to go on with.
pub const PROMPTS: [&str; 2] = [
    "name[Aromi], eatType[coffee shop] ||",
    "name[The Punter], food[Indian], priceRange[cheap] ||",
];
const NEW_TOKENS: usize = 24;

/// A model that was written with the adapter in its weights, and read back.
#[derive(Debug)]
pub struct Exported {
    /// Where it lies; `AutoModelForCausalLM.from_pretrained` loads it.
    pub dir: PathBuf,
    /// What was measured before it got its name.
    pub check: MergeCheck,
    /// What it writes.
    pub texts: Vec<String>,
    /// The largest difference of a logit from the base with its adapter, on the prompts.
    pub difference: f32,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What the base writes.
    pub base: Vec<String>,
    /// What it writes with the adapter.
    pub adapted: Vec<String>,
    /// The merged model in f32.
    pub full: Exported,
    /// The merged model in bf16, half the size.
    pub half: Exported,
    /// Whether unmerging gave the base's weights back, bit for bit.
    pub unmerged: bool,
}

/// What models are asked with.
struct Questions {
    tokenizer: Tokenizer,
    device: Device,
}

impl Questions {
    /// What a model writes.
    fn texts(&self, model: &Gpt2LmHead) -> Result<Vec<String>, ModelError> {
        let config = GenerationConfig::new(NEW_TOKENS).with_stop_tokens(self.tokenizer.eos_id());
        let prompts = PROMPTS.iter().map(|prompt| self.tokenizer.encode(prompt));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let written = Generator::new(model, config, &self.device).generate(&prompts)?;
        let texts = written.iter();
        texts
            .map(|text| self.tokenizer.decode(&text.tokens, true))
            .collect()
    }

    /// The logits of every token of a prompt, `[1, seq, vocab_size]`.
    fn logits(&self, model: &Gpt2LmHead, prompt: &str) -> Result<Tensor<3>, ModelError> {
        let ids = self.tokenizer.encode(prompt)?.into_iter().map(i64::from);
        let ids: Vec<i64> = ids.collect();
        let shape = [1, ids.len()];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &self.device);
        Ok(model.forward(ids, None))
    }

    /// The largest difference of a logit between two models.
    fn difference(&self, one: &Gpt2LmHead, other: &Gpt2LmHead) -> Result<f32, ModelError> {
        let mut largest = 0.0f32;
        for prompt in PROMPTS {
            let difference = self.logits(one, prompt)? - self.logits(other, prompt)?;
            largest = largest.max(difference.abs().max().into_scalar::<f32>());
        }
        Ok(largest)
    }
}

/// Trains a little, merges and exports.
///
/// # Errors
/// If a file cannot be read or written, or a merged model is not what the base with its adapter is.
pub fn run(output: &Path, steps: usize, screen: &mut Screen) -> Result<Outcome, TrainError> {
    let adapter = fine_tune::run(&output.join("run"), steps, screen)?.weights;

    let dir = folder().join("models/wiki-gpt2");
    let device = device::open(DeviceName::Auto)?;
    let questions = Questions {
        tokenizer: Tokenizer::from_dir(&dir)?,
        device: device.clone(),
    };
    let (base, _) = Gpt2LmHead::load(&dir, &LoadOptions::default(), &device)?;
    let (adapted, _) = base.clone().load_adapter(&adapter)?.into_parts();

    // As `lora merge --verify` does: what differs by more than its type explains is not written.
    let export = |name: &str, dtype: ExportDType| {
        let merged = merge(&MergeOptions {
            model: dir.clone(),
            adapter: Some(adapter.clone()),
            output: output.join(name),
            dtype,
            verify: VerifyOptions {
                verify: true,
                ..VerifyOptions::default()
            },
            overwrite: true,
            ..MergeOptions::default()
        })?;
        screen.line(&merged.to_string());
        let (model, _) = Gpt2LmHead::load(&merged.output, &LoadOptions::default(), &device)?;
        Ok::<_, TrainError>(Exported {
            texts: questions.texts(&model)?,
            difference: questions.difference(&model, &adapted)?,
            dir: merged.output,
            check: merged.check.unwrap_or_default(),
        })
    };
    let full = export("merged", ExportDType::F32)?;
    let half = export("merged-bf16", ExportDType::BF16)?;

    // In memory: merging keeps the weights from before, and unmerging gives them back.
    let merged = lora_core::merge(adapted.clone());
    let weights = |model: &Gpt2LmHead| {
        let layers = model.transformer.h.iter();
        let weights = layers.map(|layer| layer.attn.c_attn.weight.base().into_data());
        weights.collect::<Vec<_>>()
    };
    let changed = weights(merged.module()) != weights(&base);
    let unmerged = changed && weights(&merged.unmerge()) == weights(&base);
    Ok(Outcome {
        base: questions.texts(&base)?,
        adapted: questions.texts(&adapted)?,
        full,
        half,
        unmerged,
    })
}
