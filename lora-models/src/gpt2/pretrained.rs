//! GPT-2 from and to the files of Hugging Face.

use super::build::build;
use super::config_file;
use super::init::random;
use super::keys::{EMBEDDING, EMBEDDING_MODULE, HEAD, POSITIONS, PREFIX, is_mask_buffer};
use super::{Gpt2Config, Gpt2LmHead};
use crate::checkpoint::{Checkpoint, HostTensor, LoadReport};
use crate::error::ModelError;
use crate::generate::CausalModel;
use crate::pretrained::{FamilyConfig, LoadOptions, ModelInfo, ModelSizes, Pretrained};
use crate::weights::{Expectation, Leftover, Parameters, Weights, open_model, plan, read_model};
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
/// An output layer that is the token embedding.
const TIED: Leftover = Leftover {
    reason: "tied to the token embedding",
    is: |name| name == HEAD,
    holds: None,
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

/// Compares the output layer of a checkpoint with the token embedding that the configuration ties it to. Where they differ,
/// transformers 5 does not tie them.
///
/// # Errors
/// If a tensor cannot be read.
fn tie_is_wrong(checkpoint: &Checkpoint) -> Result<bool, ModelError> {
    let bare = EMBEDDING.strip_prefix(PREFIX).unwrap_or(EMBEDDING);
    let mut names = [EMBEDDING, bare].into_iter();
    let (Some(embedding), true) = (
        names.find(|name| checkpoint.contains(name)),
        checkpoint.contains(HEAD),
    ) else {
        return Ok(false);
    };
    if checkpoint.shape(embedding) != checkpoint.shape(HEAD) {
        return Ok(false); // An error that names the shapes follows.
    }
    if let (Some(embedding), Some(head)) = (
        checkpoint.mapped_f32(embedding)?,
        checkpoint.mapped_f32(HEAD)?,
    ) && embedding == head
    {
        return Ok(false);
    }
    Ok(checkpoint.read_f32(embedding)?.values != checkpoint.read_f32(HEAD)?.values)
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
        EMBEDDING_MODULE.into()
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
        mut config: Gpt2Config,
        dir: impl Into<Directory>,
        options: &LoadOptions,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let checkpoint = open_model(&dir.into(), POSITIONS, PREFIX)?;
        let untied = config.tie_word_embeddings && tie_is_wrong(&checkpoint)?;
        config.tie_word_embeddings &= !untied;
        let head = [(HEAD.to_string(), vec![config.vocab_size, config.n_embd])];
        let expectation = Expectation {
            wanted: plan(|weights| build(&config, device, weights))?,
            prefix: PREFIX,
            anchor: POSITIONS,
            may_be_fresh: &[],
            force_fresh: false,
            brought: &[],
            optional: &head,
            quantize: options.quantize(),
            floats: options.floats(),
            leftovers: if config.tie_word_embeddings {
                &[MASK, TIED]
            } else {
                &[MASK]
            },
            // `safetensors.torch.save_model` keeps the first of two tied tensors by name: the output layer.
            tied: if config.tie_word_embeddings {
                &[(EMBEDDING, HEAD)]
            } else {
                &[]
            },
        };
        let random = &mut random(&config, 0);
        let build = |weights: &mut dyn Weights| build(&config, device, weights);
        let (model, mut report, _) = read_model(&checkpoint, &expectation, random, build)?;
        if untied {
            report.notes.push(format!(
                "`{HEAD}` differs from `{EMBEDDING}`, to which `tie_word_embeddings` ties it: both are used as they are, as in \
                 transformers 5"
            ));
        }
        Ok((model, report))
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
        let tied = !parameters.has(HEAD)
            || (config.tie_word_embeddings
                && parameters.values(HEAD)? == parameters.values(EMBEDDING)?);
        if tied {
            parameters.remove(HEAD);
        }
        let mut object = config.to_json();
        object.insert("architectures".into(), json!(["GPT2LMHeadModel"]));
        object.insert("tie_word_embeddings".into(), json!(tied));
        Ok(object)
    }
}
