//! Generating text: greedily, at random, or by beam search.
//!
//! - [`generate`]: continues a batch of prompts; [`generate_with`] also reports each token at once
//! - [`GenerationConfig`], [`Strategy`]: how
//! - [`CausalModel`]: what a model must be able to do for it
//! - [`KvCache`]: keys and values of past tokens, so that a step computes one token
//!
//! Beam search and the order of the sampling filters are those of transformers 5; a difference is
//! that padding takes no part in the rule on repeated sequences.

mod beam;
mod beam_search;
mod cache;
mod config;
mod decoder;
mod model;
mod ngram;
mod sample;
mod stepwise;

pub use cache::KvCache;
pub use config::{BeamSearch, EarlyStopping, GenerationConfig, Sampling, Strategy};
pub use model::CausalModel;

use crate::ModelError;
use burn::tensor::Device;

/// What was generated for one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The tokens after the prompt, the stop token among them if there is one.
    pub tokens: Vec<u32>,
    /// Whether it ended with a stop token; otherwise it was cut at the longest length.
    pub finished_by_stop: bool,
    /// For beam search: the sum of the tokens' log-probabilities, over their number to the power of
    /// the length penalty.
    pub score: Option<f64>,
}

/// Continues prompts.
///
/// The model must be on a device without autodiff: training leaves dropout on and keeps every
/// step. `model.valid()` and `device.inner()` are such.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_models::generate::{GenerationConfig, generate};
/// use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
///
/// let device = Device::flex();
/// let config = Gpt2Config { n_layer: 2, n_embd: 32, n_head: 2, vocab_size: 50, ..Gpt2Config::default() };
/// let model = Gpt2LmHead::init(&config, 0, &device)?;
/// let prompts = [vec![4, 8, 15], vec![16]];
/// let texts = generate(&model, &prompts, &GenerationConfig::new(5), &device)?;
/// assert_eq!(texts.len(), 2);
/// assert_eq!(texts[1].tokens.len(), 5);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
///
/// # Errors
/// [`ModelError::Generation`] where an option is out of its range, a prompt is empty, holds a token
/// that the model does not know, or leaves no room for `max_new_tokens`; and where the device is
/// one with autodiff.
pub fn generate<M: CausalModel>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    device: &Device,
) -> Result<Vec<Generated>, ModelError> {
    generate_with(model, prompts, config, device, |_, _| {})
}

/// [`generate`], with a call for each token: the prompt's index and the token.
///
/// Greedy choice and sampling report a token as soon as it is chosen, so that it can be shown; beam
/// search reports the tokens of a prompt once they are certain, at the end.
///
/// # Errors
/// As [`generate`].
pub fn generate_with<M: CausalModel>(
    model: &M,
    prompts: &[Vec<u32>],
    config: &GenerationConfig,
    device: &Device,
    mut on_token: impl FnMut(usize, u32),
) -> Result<Vec<Generated>, ModelError> {
    config.validate_for(model, prompts)?;
    if device.is_autodiff() {
        return Err(ModelError::Generation {
            message: "the device is one for training; use `model.valid()` and `device.inner()`"
                .into(),
        });
    }
    if prompts.is_empty() {
        return Ok(Vec::new());
    }
    let Strategy::Beam(search) = config.strategy else {
        return stepwise::generate(model, prompts, config, device, &mut on_token);
    };
    let texts = beam_search::generate(model, prompts, config, search, device)?;
    for (index, text) in texts.iter().enumerate() {
        text.tokens.iter().for_each(|&token| on_token(index, token));
    }
    Ok(texts)
}
