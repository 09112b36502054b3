//! Text generation: greedy, sampled, or by beam search.
//!
//! - [`Generator`]: continues a batch of prompts, and reports tokens as they are chosen
//! - [`GenerationConfig`], [`Strategy`], [`TokenRules`]: length, choice of tokens, stop tokens
//! - [`CausalModel`]: models that predict the next token
//! - [`KvCache`]: keys and values of past tokens, so that a step computes one token
//!
//! | concept | file |
//! | --- | --- |
//! | options; models to generate with | `config.rs`, `model.rs` |
//! | a batch continued step by step, with its keys and values | `decoder.rs`, `cache.rs` |
//! | greedy choice and sampling | `stepwise.rs`, `sample.rs` |
//! | [`TextStream`]: text as it comes | `stream.rs` |
//! | beam search over a batch; beams of a prompt | `beam_search.rs`, `beam.rs` |
//! | rules on the choice of tokens, and the one on repeated n-grams | `rules.rs`, `ngram.rs` |
//! | [`GenerationSettings`] that come with a model, and their [`GenerationFile`] | `settings.rs`, `settings_file.rs` |
//!
//! Beam search and the order of the sampling filters are those of transformers 5, except that padding is not part of the
//! history in the rule on repeated n-grams.

mod beam;
mod beam_search;
mod cache;
mod config;
mod decoder;
mod model;
mod ngram;
mod rules;
mod sample;
mod settings;
mod settings_file;
mod stepwise;
mod stream;

pub use cache::KvCache;
pub use config::{BeamSearch, EarlyStopping, GenerationConfig, Sampling, Strategy};
pub use model::CausalModel;
pub use rules::TokenRules;
pub use settings::GenerationSettings;
pub use settings_file::GenerationFile;
pub use stream::TextStream;

use crate::ModelError;
use burn::tensor::Device;

/// Continuation of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Tokens after the prompt, the stop token included.
    pub tokens: Vec<u32>,
    /// True if the text ended with a stop token, false if it reached the maximum length.
    pub finished_by_stop: bool,
    /// For beam search: the sum of the tokens' log-probabilities, divided by their number to the power of the length
    /// penalty.
    pub score: Option<f64>,
}

/// Continues prompts with a model.
///
/// The model must be on a device without autodiff: training keeps dropout on and records every step.
/// `model.valid()` and `device.inner()` are without it.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_models::generate::{GenerationConfig, Generator};
/// use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
///
/// let device = Device::flex();
/// let config = Gpt2Config { n_layer: 2, n_embd: 32, n_head: 2, vocab_size: 50, ..Gpt2Config::default() };
/// let model = Gpt2LmHead::init(&config, 0, &device)?;
/// let prompts = [vec![4, 8, 15], vec![16]];
/// let texts = Generator::new(&model, GenerationConfig::new(5), &device).generate(&prompts)?;
/// assert_eq!(texts.len(), 2);
/// assert_eq!(texts[1].tokens.len(), 5);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub struct Generator<'a, M> {
    model: &'a M,
    config: GenerationConfig,
    device: &'a Device,
    first: usize,
    on_token: Box<dyn FnMut(usize, u32) + 'a>,
}

impl<'a, M: CausalModel> Generator<'a, M> {
    /// Creates a generator for a model on `device`.
    pub fn new(model: &'a M, config: GenerationConfig, device: &'a Device) -> Self {
        Self {
            model,
            config,
            device,
            first: 0,
            on_token: Box::new(|_, _| {}),
        }
    }

    /// Sets the index of the first prompt, for its random draws: prompts in several batches draw as in one.
    pub fn with_first(mut self, index: usize) -> Self {
        self.first = index;
        self
    }

    /// Sets a function that is called with the prompt's index and each token.
    ///
    /// Greedy choice and sampling report a token as soon as it is chosen, so that it can be shown; beam search reports
    /// the tokens of a prompt at the end, when they are certain.
    pub fn on_token(mut self, report: impl FnMut(usize, u32) + 'a) -> Self {
        self.on_token = Box::new(report);
        self
    }

    /// Generates a continuation of each prompt.
    ///
    /// # Errors
    /// [`ModelError::Generation`] if an option is out of range; if a prompt is empty, has a token outside the
    /// vocabulary, or leaves no room for `max_new_tokens`; and on a device with autodiff.
    pub fn generate(&mut self, prompts: &[Vec<u32>]) -> Result<Vec<Generated>, ModelError> {
        let mut on_token = std::mem::replace(&mut self.on_token, Box::new(|_, _| {}));
        let generated = self.generate_with(prompts, &mut *on_token);
        self.on_token = on_token;
        generated
    }

    /// Generates as [`generate`](Self::generate), and reports the tokens to a function.
    fn generate_with(
        &self,
        prompts: &[Vec<u32>],
        on_token: &mut dyn FnMut(usize, u32),
    ) -> Result<Vec<Generated>, ModelError> {
        let Self {
            model,
            config,
            device,
            first,
            ..
        } = self;
        config.validate_for(*model, prompts)?;
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
            return stepwise::generate(*model, prompts, config, *first, device, on_token);
        };
        let texts = beam_search::generate(*model, prompts, config, search, device)?;
        for (index, text) in texts.iter().enumerate() {
            text.tokens.iter().for_each(|&token| on_token(index, token));
        }
        Ok(texts)
    }
}
