//! Decoders from and to the files of Hugging Face.

use super::build::{build, random};
use super::config::DecoderConfig;
use super::config_file;
use super::family::ProjectionLayout;
use super::model::DecoderLm;
use super::names::{ENDS, NORM, PREFIX, is_frequency};
use crate::checkpoint::LoadReport;
use crate::error::ModelError;
use crate::generate::CausalModel;
use crate::lm::{LanguageModelFiles, without_tied_head};
use crate::pretrained::{FamilyConfig, LoadOptions, ModelInfo, ModelSizes, Pretrained};
use crate::weights::{Leftover, Parameters, Weights};
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::files::Directory;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Frequencies in old files.
pub(crate) const FREQUENCIES: Leftover = Leftover {
    reason: "frequencies of the rotary embedding",
    is: is_frequency,
    holds: None,
};

impl FamilyConfig for DecoderConfig {
    fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        config_file::parse(path, object)
    }

    fn model_type(&self) -> &'static str {
        self.family.model_type()
    }

    fn sizes(&self) -> ModelSizes {
        let inner = match self.layout {
            ProjectionLayout::Separate => self.intermediate_size,
            ProjectionLayout::Fused => self.intermediate_size.saturating_mul(2),
        };
        ModelSizes {
            layers: self.layers.len(),
            d_model: self.hidden_size,
            heads: self.num_attention_heads,
            vocab_size: self.vocab_size,
            max_length: self.max_position_embeddings,
            tied_head: Some(self.tie_word_embeddings),
            widest: inner.max(self.query_width()).max(self.hidden_size),
            distance_scores: false,
        }
    }

    fn usual_targets(&self) -> Vec<&'static str> {
        let mut targets = match self.layout {
            ProjectionLayout::Separate => {
                vec![
                    "q_proj",
                    "k_proj",
                    "v_proj",
                    "o_proj",
                    "gate_proj",
                    "up_proj",
                ]
            }
            ProjectionLayout::Fused => {
                vec!["qkv_proj", "qkv_proj[q,k,v]", "o_proj", "gate_up_proj"]
            }
        };
        targets.extend(["down_proj", "lm_head", "embed_tokens"]);
        targets
    }

    fn token_embedding(&self) -> String {
        ENDS.embedding.into()
    }

    fn layer_name(&self, layer: usize) -> String {
        format!("model.layers.{layer}")
    }

    fn set_layers(&mut self, layers: usize) {
        self.layers = self.layers.iter().cycle().take(layers).copied().collect();
    }

    fn disable_dropout(&mut self) {
        self.attention_dropout = 0.0;
        self.residual_dropout = 0.0;
    }
}

impl DecoderLm {
    /// Creates a model with random weights, initialized as in transformers.
    ///
    /// The values are drawn on the host and depend only on `seed` and the parameters' paths, so they are equal on every
    /// device.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration out of range.
    pub fn init(config: &DecoderConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::init_random(config, &LoadOptions::default(), seed, device)
    }
}

impl Pretrained for DecoderLm {
    type Config = DecoderConfig;
    type Options = LoadOptions;

    fn unquantized_options(_options: &LoadOptions) -> LoadOptions {
        LoadOptions::default()
    }

    fn load_weights(
        config: DecoderConfig,
        dir: impl Into<Directory>,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let files = LanguageModelFiles {
            ends: ENDS,
            prefix: PREFIX,
            anchor: NORM,
            leftovers: &[FREQUENCIES],
        };
        let head = [config.vocab_size, config.hidden_size];
        let random = &mut random(&config, 0);
        let tied = config.tie_word_embeddings;
        files.load(&dir.into(), tied, head, options, random, |tied, weights| {
            let config = DecoderConfig {
                tie_word_embeddings: tied,
                ..config.clone()
            };
            build(&config, device, weights)
        })
    }

    fn from_weights(
        config: &DecoderConfig,
        _options: &LoadOptions,
        device: &Device,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        build(config, device, weights)
    }

    fn random_weights(config: &DecoderConfig, seed: u64) -> impl Weights {
        random(config, seed)
    }

    fn info(&self) -> ModelInfo {
        let config = self.config();
        ModelInfo {
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
        self.forward(ids, Some(mask)).flatten(0, 1)
    }

    /// Leaves out the output layer if it equals the token embedding; `tie_word_embeddings` says so.
    fn export_config(
        &self,
        parameters: &mut Parameters<'_>,
    ) -> Result<Map<String, Value>, ModelError> {
        let config = self.config();
        let tied = without_tied_head(parameters, &ENDS, config.tie_word_embeddings)?;
        let mut object = config.to_json();
        object.insert("architectures".into(), json!([config.family.class()]));
        object.insert("tie_word_embeddings".into(), json!(tied));
        Ok(object)
    }
}
