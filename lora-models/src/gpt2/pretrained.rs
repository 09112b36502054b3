//! GPT-2 from and to the files of Hugging Face.

use super::build::build;
use super::config_file;
use super::init::random;
use super::keys::{ENDS, POSITIONS, PREFIX, is_mask_buffer};
use super::{Gpt2Config, Gpt2LmHead};
use crate::checkpoint::{HostTensor, LoadReport};
use crate::error::ModelError;
use crate::generate::CausalModel;
use crate::lm::{LanguageModelFiles, without_tied_head};
use crate::pretrained::{FamilyConfig, LoadOptions, ModelInfo, ModelSizes, Pretrained};
use crate::weights::{Leftover, Parameters, Weights};
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::files::Directory;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Buffers of the causal mask in old files.
pub(crate) const MASK: Leftover = Leftover {
    reason: "buffer of the causal mask",
    is: is_mask_buffer,
    holds: Some(is_causal_mask),
};
/// Returns true for the values of the buffers: ones on and below the diagonal, and the number that masked scores become.
fn is_causal_mask(tensor: &HostTensor) -> bool {
    let values = &tensor.values;
    match tensor.shape.as_slice() {
        [.., rows, columns] if rows == columns => {
            let mut rows = values.chunks_exact((*columns).max(1)).enumerate();
            rows.all(|(row, values)| {
                let row = row % columns;
                let mut ones = values.iter().enumerate();
                ones.all(|(column, &value)| value == f32::from(u8::from(column <= row)))
            })
        }
        _ => values.iter().all(|&value| value <= -1e4),
    }
}

impl FamilyConfig for Gpt2Config {
    fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        config_file::parse(path, object)
    }

    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn sizes(&self) -> ModelSizes {
        ModelSizes {
            layers: self.n_layer,
            d_model: self.n_embd,
            heads: self.n_head,
            vocab_size: self.vocab_size,
            max_length: self.n_positions,
            tied_head: Some(self.tie_word_embeddings),
            widest: self.n_embd.saturating_mul(3).max(self.inner()),
            distance_scores: false,
        }
    }

    fn usual_targets(&self) -> Vec<&'static str> {
        vec![
            "c_attn",
            "c_attn[q,k,v]",
            "c_proj",
            "c_fc",
            "lm_head",
            "wte",
        ]
    }

    fn token_embedding(&self) -> String {
        ENDS.embedding.into()
    }

    fn layer_name(&self, layer: usize) -> String {
        format!("transformer.h.{layer}")
    }

    fn set_layers(&mut self, layers: usize) {
        self.n_layer = layers;
    }

    fn disable_dropout(&mut self) {
        self.resid_pdrop = 0.0;
        self.embd_pdrop = 0.0;
        self.attn_pdrop = 0.0;
    }
}

impl Pretrained for Gpt2LmHead {
    type Config = Gpt2Config;
    type Options = LoadOptions;

    fn unquantized_options(_options: &LoadOptions) -> LoadOptions {
        LoadOptions::default()
    }

    fn load_weights(
        config: Gpt2Config,
        dir: impl Into<Directory>,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let files = LanguageModelFiles {
            ends: ENDS,
            prefix: PREFIX,
            anchor: POSITIONS,
            leftovers: &[MASK],
        };
        let head = [config.vocab_size, config.n_embd];
        let random = &mut random(&config, 0);
        let tied = config.tie_word_embeddings;
        files.load(&dir.into(), tied, head, options, random, |tied, weights| {
            let config = Gpt2Config {
                tie_word_embeddings: tied,
                ..config.clone()
            };
            build(&config, device, weights)
        })
    }

    fn from_weights(
        config: &Gpt2Config,
        _options: &LoadOptions,
        device: &Device,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        config.validate()?;
        build(config, device, weights)
    }

    fn random_weights(config: &Gpt2Config, seed: u64) -> impl Weights {
        random(config, seed)
    }

    fn info(&self) -> ModelInfo {
        ModelInfo {
            vocab_size: self.config.vocab_size,
            max_length: self.max_positions(),
            eos_id: self.config.eos_token_ids.first().copied(),
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
        object.insert("architectures".into(), json!(["GPT2LMHeadModel"]));
        object.insert("tie_word_embeddings".into(), json!(tied));
        Ok(object)
    }
}
