//! Configuration of a GPT-2, read from and written to `config.json`.

use crate::ModelError;
use crate::activation::Activation;
use crate::config_keys::{Require, check_dropouts, check_sizes};
use serde_json::{Map, Value};
use std::num::Saturating;
use std::path::Path;

/// Limit for the number of layers; GPT-3 has 96.
const MAX_LAYERS: usize = 4096;
/// Limit for ids, positions and widths: they are 32-bit integers on most devices.
const MAX_INDEX: usize = i32::MAX as usize;
/// Limit for the number of parameters, a quarter of a trillion; GPT-3 has 175 billion.
const MAX_PARAMETERS: u64 = 1 << 38;

/// Configuration of a GPT-2. The defaults are those of transformers: GPT-2 small.
///
/// # Example
/// ```
/// use lora_models::gpt2::Gpt2Config;
///
/// let config = Gpt2Config { n_layer: 2, n_embd: 64, n_head: 4, ..Gpt2Config::default() };
/// assert_eq!(config.inner(), 256);
/// assert_eq!(Gpt2Config::default().parameters(), Some(124_439_808));
/// # config.validate()?;
/// # Ok::<(), lora_models::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Number of tokens that have an embedding. Default 50257.
    pub vocab_size: usize,
    /// Longest sequence, in tokens. Default 1024.
    pub n_positions: usize,
    /// Width of the hidden states, `d_model`. Default 768.
    pub n_embd: usize,
    /// Number of blocks. Default 12.
    pub n_layer: usize,
    /// Number of attention heads, a divisor of `n_embd`. Default 12.
    pub n_head: usize,
    /// Width inside the MLP. Default 4 · `n_embd`.
    pub n_inner: Option<usize>,
    /// Activation inside the MLP. Default GELU by tanh.
    pub activation_function: Activation,
    /// Dropout probability on the output of attention and MLP, before the residual addition. Default 0.1.
    pub resid_pdrop: f64,
    /// Dropout probability on the embeddings. Default 0.1.
    pub embd_pdrop: f64,
    /// Dropout probability on the attention weights. Default 0.1.
    pub attn_pdrop: f64,
    /// Epsilon, added to the variance in layer norms. Default 1e-5.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of randomly initialized weights. Default 0.02.
    pub initializer_range: f64,
    /// Divides attention scores by the square root of the head's width. Default true.
    pub scale_attn_weights: bool,
    /// Divides attention scores by the number of the block, counted from 1. Default false.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Uses the transposed token embedding as the output layer. Default true.
    pub tie_word_embeddings: bool,
    /// Token that begins a text. Default 50256.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text. Default 50256.
    pub eos_token_ids: Vec<u32>,
    /// Padding token. Default none.
    pub pad_token_id: Option<u32>,
    /// Other keys of the file that the configuration was read from; an export writes them back.
    pub other: Map<String, Value>,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: Activation::GeluTanh,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: Some(50256),
            eos_token_ids: vec![50256],
            pad_token_id: None,
            other: Map::new(),
        }
    }
}

impl Gpt2Config {
    /// Returns GPT-2 medium: 355 million parameters.
    pub fn medium() -> Self {
        Self::with_size(24, 1024, 16)
    }

    /// Returns GPT-2 large: 774 million parameters.
    pub fn large() -> Self {
        Self::with_size(36, 1280, 20)
    }

    /// Returns GPT-2 XL: 1.56 billion parameters.
    pub fn xl() -> Self {
        Self::with_size(48, 1600, 25)
    }

    fn with_size(n_layer: usize, n_embd: usize, n_head: usize) -> Self {
        Self {
            n_layer,
            n_embd,
            n_head,
            ..Self::default()
        }
    }

    /// Returns the width inside the MLP.
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    /// Returns the number of parameters, with a tied output layer counted once; `None` if it exceeds 64 bits.
    pub fn parameters(&self) -> Option<u64> {
        let [vocab, positions, d, layers, inner] = [
            self.vocab_size,
            self.n_positions,
            self.n_embd,
            self.n_layer,
            self.inner(),
        ]
        .map(|size| Saturating(size as u64));
        let linear = |d_in, d_out| (d_in + Saturating(1)) * d_out;
        let norm = d + d;
        let attention = linear(d, d * Saturating(3)) + linear(d, d);
        let block = norm + attention + norm + linear(d, inner) + linear(inner, d);
        let tables = Saturating(if self.tie_word_embeddings { 1 } else { 2 });
        let Saturating(all) = vocab * d * tables + positions * d + block * layers + norm;
        (all < u64::MAX).then_some(all)
    }

    /// Checks that the values describe a possible model.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] with the key.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.validate_at(Path::new("Gpt2Config"))
    }

    pub(super) fn validate_at(&self, path: &Path) -> Result<(), ModelError> {
        check_sizes(
            path,
            &[
                ("vocab_size", self.vocab_size, MAX_INDEX),
                ("n_positions", self.n_positions, MAX_INDEX),
                ("n_embd", self.n_embd, MAX_INDEX),
                ("n_layer", self.n_layer, MAX_LAYERS),
                ("n_head", self.n_head, MAX_INDEX),
                ("n_inner", self.inner(), MAX_INDEX),
            ],
        )?;
        let require = Require { path };
        let (d, heads) = (self.n_embd, self.n_head);
        require.that(d.is_multiple_of(heads), "n_head", heads, || {
            format!("a divisor of n_embd, {d}")
        })?;
        let fits = self
            .parameters()
            .is_some_and(|count| count <= MAX_PARAMETERS);
        let sizes = format!(
            "{d} with vocab_size {}, n_positions {}, n_layer {} and n_inner {}",
            self.vocab_size,
            self.n_positions,
            self.n_layer,
            self.inner()
        );
        require.that(fits, "n_embd", sizes, || {
            format!("at most {MAX_PARAMETERS} parameters in all")
        })?;
        check_dropouts(
            path,
            &[
                ("resid_pdrop", self.resid_pdrop),
                ("embd_pdrop", self.embd_pdrop),
                ("attn_pdrop", self.attn_pdrop),
            ],
        )?;
        let epsilon = self.layer_norm_epsilon;
        let fits = epsilon.is_finite() && epsilon > 0.0;
        require.that(fits, "layer_norm_epsilon", epsilon, || {
            "a positive number".into()
        })?;
        let deviation = self.initializer_range;
        let fits = deviation.is_finite() && deviation >= 0.0;
        require.that(fits, "initializer_range", deviation, || {
            "a number of at least 0".into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(config: &Gpt2Config) -> String {
        match config.validate() {
            Err(ModelError::UnsupportedConfig { key, .. }) => key,
            other => panic!("{config:?}: {other:?}"),
        }
    }

    #[test]
    fn published_sizes_have_their_published_counts() {
        let count = |config: Gpt2Config| config.parameters().unwrap();
        assert_eq!(count(Gpt2Config::default()), 124_439_808);
        assert_eq!(count(Gpt2Config::medium()), 354_823_168);
        assert_eq!(count(Gpt2Config::large()), 774_030_080);
        assert_eq!(count(Gpt2Config::xl()), 1_557_611_200);
    }

    #[test]
    fn values_that_make_no_model_are_refused_by_name() {
        let of = |change: fn(&mut Gpt2Config)| {
            let mut config = Gpt2Config::default();
            change(&mut config);
            key_of(&config)
        };
        assert_eq!(of(|c| c.n_head = 7), "n_head");
        assert_eq!(of(|c| c.n_head = 0), "n_head");
        assert_eq!(of(|c| c.n_layer = 0), "n_layer");
        assert_eq!(of(|c| c.n_layer = usize::MAX), "n_layer");
        assert_eq!(of(|c| c.vocab_size = 0), "vocab_size");
        assert_eq!(of(|c| c.n_positions = 0), "n_positions");
        assert_eq!(of(|c| c.n_inner = Some(0)), "n_inner");
        assert_eq!(of(|c| c.attn_pdrop = 1.0), "attn_pdrop");
        assert_eq!(of(|c| c.resid_pdrop = -0.1), "resid_pdrop");
        assert_eq!(of(|c| c.embd_pdrop = f64::NAN), "embd_pdrop");
        assert_eq!(of(|c| c.layer_norm_epsilon = 0.0), "layer_norm_epsilon");
        assert_eq!(
            of(|c| c.initializer_range = f64::INFINITY),
            "initializer_range"
        );
        // Each size is allowed, their product is not.
        assert_eq!(
            of(|c| {
                c.vocab_size = MAX_INDEX;
                c.n_embd = MAX_INDEX - 1;
                c.n_head = 1;
                c.n_inner = Some(1);
            }),
            "n_embd"
        );
    }
}
