//! Inference with an adapter in an application, with `lora-models` alone, on any backend.

use burn::tensor::Device;
use lora_models::ModelError;
use lora_models::generate::{GenerationConfig, Generator};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::tokenizer::Tokenizer;
use lora_models::{LoadOptions, LoraModel, Pretrained};
use std::path::Path;

/// Text generator for descriptions of restaurants.
pub struct Writer {
    model: Gpt2LmHead,
    tokenizer: Tokenizer,
    device: Device,
}

impl Writer {
    /// Loads a model from its directory, and merges an adapter into it if one is given.
    ///
    /// # Errors
    /// Fails if a file is missing or malformed.
    pub fn open(model: &Path, adapter: Option<&Path>, device: Device) -> Result<Self, ModelError> {
        let (mut loaded, _) = Gpt2LmHead::load(model, &LoadOptions::default(), &device)?;
        if let Some(adapter) = adapter {
            let (adapted, _) = loaded.load_adapter(adapter)?.into_parts();
            loaded = lora_core::merge(adapted).into_module();
        }
        Ok(Self {
            model: loaded,
            tokenizer: Tokenizer::from_dir(model)?,
            device,
        })
    }

    /// Continues a prompt by at most `limit` tokens.
    ///
    /// # Errors
    /// Fails if the prompt is empty or too long.
    pub fn write(&self, prompt: &str, limit: usize) -> Result<String, ModelError> {
        let config = GenerationConfig::new(limit).with_stop_tokens(self.tokenizer.eos_id());
        let prompt = self.tokenizer.encode(prompt)?;
        let written = Generator::new(&self.model, config, &self.device).generate(&[prompt])?;
        let tokens = written
            .first()
            .map(|w| w.tokens.clone())
            .unwrap_or_default();
        self.tokenizer.decode(&tokens, true)
    }
}
