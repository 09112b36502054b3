//! Reading a model from a Hugging Face directory.

use super::build::build;
use super::init::random;
use super::keys::{EMBEDDING, HEAD, PREFIX, is_mask_buffer};
use super::{Gpt2Config, Gpt2LmHead};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, LoadReport};
use crate::weights::{Expectation, Leftover, ParamSpec, meta_init, plan, read_model};
use burn::tensor::Device;
use lora_core::QuantizeConfig;
use std::path::Path;

/// Buffers of the causal mask in old files.
const MASK: Leftover = Leftover {
    reason: "buffer of the causal mask",
    is: is_mask_buffer,
};
/// A head that is the embedding.
const TIED: Leftover = Leftover {
    reason: "tied to the token embedding",
    is: |name| name == HEAD,
};

/// How a GPT-2 is loaded.
#[derive(Clone, Debug, Default)]
pub struct Gpt2Options {
    /// Quantises the frozen weights of linear layers as they are read, so that the model is never whole in floats.
    pub quantize: Option<QuantizeConfig>,
}

impl Gpt2LmHead {
    /// Names and shapes, as in a file with a head, of the weights of a model of this configuration.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn weight_shapes(
        config: &Gpt2Config,
        device: &Device,
    ) -> Result<Vec<(String, Vec<usize>)>, ModelError> {
        let wanted = plan(|weights| build(config, device, weights))?;
        Ok(wanted.iter().map(ParamSpec::in_file).collect())
    }

    /// A model without values, to count its parameters and see where adapters would go.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] where the configuration makes no model.
    pub fn outline(config: &Gpt2Config, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        meta_init(|weights| build(config, device, weights))
    }

    /// Loads a model from a directory with `config.json` and weights in any form that
    /// [`Checkpoint`] reads, saved with a head or without.
    ///
    /// Every tensor that the configuration calls for must be there in its shape, and nothing else:
    /// only the buffers of the causal mask, and a head that is tied to the embedding, are passed
    /// over. Names and shapes are compared before anything is read; then each tensor is read,
    /// converted to f32 and given to the device, one after another. On the CPU, f32 weights may stay in the
    /// pages of their file: see [`Checkpoint::open`].
    ///
    /// # Errors
    /// As [`Gpt2Config::from_dir`] and [`Checkpoint::open`]; [`ModelError::TensorMissing`],
    /// [`ModelError::TensorUnexpected`], [`ModelError::TensorShape`] or
    /// [`ModelError::TensorDtype`] where the weights are not those of the configuration.
    pub fn load(dir: impl AsRef<Path>, device: &Device) -> Result<(Self, LoadReport), ModelError> {
        Self::load_with(dir, &Gpt2Options::default(), device)
    }

    /// [`load`](Self::load) with options.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`LoraError::UnsupportedTarget`](lora_core::LoraError::UnsupportedTarget) inside
    /// [`ModelError::Lora`] for a weight to quantise that is not finite.
    pub fn load_with(
        dir: impl AsRef<Path>,
        options: &Gpt2Options,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let dir = dir.as_ref();
        let config = Gpt2Config::from_dir(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let head = [(HEAD.to_string(), vec![config.vocab_size, config.n_embd])];
        let expectation = Expectation {
            wanted: plan(|weights| build(&config, device, weights))?,
            prefix: PREFIX,
            anchor: EMBEDDING,
            may_be_fresh: &[],
            force_fresh: false,
            optional: &head,
            quantize: options.quantize.as_ref(),
            leftovers: match config.tie_word_embeddings {
                true => &[MASK, TIED],
                false => &[MASK],
            },
        };
        let (model, report, _) = read_model(
            &checkpoint,
            &expectation,
            &mut random(&config, 0),
            |weights| build(&config, device, weights),
        )?;
        Ok((model, report))
    }
}
