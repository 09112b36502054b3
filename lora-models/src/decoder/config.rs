//! Configuration of a decoder: sizes, and what each layer does.

use super::family::{DecoderFamily, HeadNorm, NormPlacement, ProjectionLayout};
use super::rope::Rope;
use crate::ModelError;
use crate::activation::Activation;
use crate::config_keys::{Require, check_dropouts, check_sizes};
use lora_core::RmsScale;
use serde_json::{Map, Value, json};
use std::num::Saturating;
use std::path::Path;

/// Limit for the number of layers.
pub(super) const MAX_LAYERS: usize = 4096;
/// Limit for ids, positions and widths: they are 32-bit integers on most devices.
const MAX_INDEX: usize = i32::MAX as usize;
/// Limit for the number of parameters, a quarter of a trillion.
const MAX_PARAMETERS: u64 = 1 << 38;

/// Configuration of a decoder of any [`DecoderFamily`], read from `config.json`.
///
/// # Example
/// ```
/// use lora_models::FamilyConfig;
/// use lora_models::decoder::DecoderConfig;
///
/// let object = serde_json::json!({
///     "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
///     "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 100, "head_dim": 32,
/// });
/// let config = DecoderConfig::from_json("config.json".as_ref(), object.as_object().unwrap().clone())?;
/// // The heads together are wider than the hidden states.
/// assert_eq!((config.query_width(), config.key_width()), (128, 64));
/// assert!(config.layers.iter().all(|layer| layer.window.is_none()));
/// # Ok::<(), lora_models::ModelError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Family.
    pub family: DecoderFamily,
    /// Number of tokens that have an embedding.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of heads of queries in a layer.
    pub num_attention_heads: usize,
    /// Number of heads of keys and values in a layer, a divisor of that of queries.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Options of each layer.
    pub layers: Vec<DecoderLayer>,
    /// Rotary position embeddings that the layers refer to.
    pub ropes: Vec<Rope>,
    /// Activation of the gate in the MLP.
    pub activation: Activation,
    /// Epsilon, added to the mean square in norms.
    pub norm_epsilon: f64,
    /// Scale of the features in norms.
    pub norm: RmsScale,
    /// Place of the norms in a layer.
    pub placement: NormPlacement,
    /// Norm of queries and keys.
    pub head_norm: HeadNorm,
    /// Layout of the projections.
    pub layout: ProjectionLayout,
    /// Projections with a bias.
    pub biases: DecoderBiases,
    /// Factor on the scores of attention.
    pub scale: f64,
    /// Soft cap of the scores of attention.
    pub score_cap: Option<f64>,
    /// Soft cap of the logits.
    pub logit_cap: Option<f64>,
    /// Factors on hidden states.
    pub multipliers: Multipliers,
    /// Dropout probability on the attention weights.
    pub attention_dropout: f64,
    /// Dropout probability on the output of attention and MLP, before the residual addition.
    pub residual_dropout: f64,
    /// Standard deviation of randomly initialized weights.
    pub initializer_range: f64,
    /// Uses the transposed token embedding as the output layer.
    pub tie_word_embeddings: bool,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
    /// Keys of the file that the configuration was read from; an export writes them back.
    pub(super) object: Map<String, Value>,
}

/// Options of one layer of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLayer {
    /// Number of keys that a query sees, its own position included. `None` for all.
    pub window: Option<usize>,
    /// Index of the rotary position embedding. `None` for a layer without positions.
    pub rope: Option<usize>,
}

/// Projections with a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderBiases {
    /// Queries, keys and values.
    pub query_key_value: bool,
    /// Output of the attention.
    pub output: bool,
    /// MLP.
    pub mlp: bool,
}

/// Factors on hidden states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Factor on the embeddings.
    pub embedding: f64,
    /// Factor on the output of attention and MLP, before the residual addition.
    pub residual: f64,
    /// Divisor of the logits.
    pub logits: f64,
}

impl DecoderConfig {
    /// Returns the width of all heads of queries together.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.head_dim)
    }

    /// Returns the width of all heads of keys together.
    pub fn key_width(&self) -> usize {
        self.num_key_value_heads.saturating_mul(self.head_dim)
    }

    /// Returns the number of layers.
    pub fn num_hidden_layers(&self) -> usize {
        self.layers.len()
    }

    /// Returns the object of `config.json`.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = self.object.clone();
        object.insert("model_type".into(), json!(self.family.model_type()));
        object.insert("vocab_size".into(), json!(self.vocab_size));
        object.insert("num_hidden_layers".into(), json!(self.layers.len()));
        let keeps_padding = match object.get("pad_token_id") {
            None => self.family.defaults().get("pad_token_id") == Some(&json!(self.pad_token_id)),
            Some(padding) => *padding == json!(self.pad_token_id),
        };
        if !keeps_padding {
            object.insert("pad_token_id".into(), json!(self.pad_token_id));
        }
        object.insert(
            "tie_word_embeddings".into(),
            json!(self.tie_word_embeddings),
        );
        for key in ["layer_types", "no_rope_layers"] {
            if let Some(Value::Array(all)) = object.get_mut(key)
                && !all.is_empty()
            {
                *all = all
                    .iter()
                    .cycle()
                    .take(self.layers.len())
                    .cloned()
                    .collect();
            }
        }
        object
    }

    /// Returns the number of parameters, with a tied output layer counted once; `None` if it exceeds 64 bits.
    pub fn parameters(&self) -> Option<u64> {
        let [vocab, d, inner, layers, q, k, head] = [
            self.vocab_size,
            self.hidden_size,
            self.intermediate_size,
            self.layers.len(),
            self.query_width(),
            self.key_width(),
            self.head_dim,
        ]
        .map(|size| Saturating(size as u64));
        let count = |counts: bool, size: Saturating<u64>| if counts { size } else { Saturating(0) };
        let two = Saturating(2);
        let DecoderBiases {
            query_key_value,
            output,
            mlp,
        } = self.biases;
        let attention =
            d * (q + k * two) + q * d + count(query_key_value, q + k * two) + count(output, d);
        let feed_forward = d * inner * Saturating(3) + count(mlp, inner * two + d);
        let norms = match self.placement {
            NormPlacement::Around => d * Saturating(4),
            NormPlacement::Before | NormPlacement::After => d * two,
        };
        let head_norms = match self.head_norm {
            HeadNorm::None => Saturating(0),
            HeadNorm::Head => head * two,
            HeadNorm::Whole => q + k,
        };
        let tables = Saturating(if self.tie_word_embeddings { 1 } else { 2 });
        let layer = attention + feed_forward + norms + head_norms;
        let Saturating(all) = vocab * d * tables + layer * layers + d;
        (all < u64::MAX).then_some(all)
    }

    /// Checks that the values describe a possible model.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] with the key.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.validate_at(Path::new("DecoderConfig"))
    }

    pub(super) fn validate_at(&self, path: &Path) -> Result<(), ModelError> {
        let (heads, key_heads) = (self.num_attention_heads, self.num_key_value_heads);
        check_sizes(
            path,
            &[
                ("vocab_size", self.vocab_size, MAX_INDEX),
                ("hidden_size", self.hidden_size, MAX_INDEX),
                ("intermediate_size", self.intermediate_size, MAX_INDEX / 2),
                ("num_hidden_layers", self.layers.len(), MAX_LAYERS),
                ("num_attention_heads", heads, MAX_INDEX),
                ("num_key_value_heads", key_heads, MAX_INDEX),
                ("head_dim", self.head_dim, MAX_INDEX),
                (
                    "max_position_embeddings",
                    self.max_position_embeddings,
                    MAX_INDEX,
                ),
            ],
        )?;
        let require = Require { path };
        require.that(
            heads.is_multiple_of(key_heads),
            "num_key_value_heads",
            key_heads,
            || format!("a divisor of num_attention_heads, {heads}"),
        )?;
        let width = self
            .query_width()
            .saturating_add(self.key_width().saturating_mul(2));
        require.that(width <= MAX_INDEX, "head_dim", self.head_dim, || {
            format!("at most {MAX_INDEX} features of all heads together")
        })?;
        let fits = self
            .parameters()
            .is_some_and(|count| count <= MAX_PARAMETERS);
        require.that(fits, "hidden_size", self.hidden_size, || {
            format!("at most {MAX_PARAMETERS} parameters in all")
        })?;
        check_dropouts(
            path,
            &[
                ("attention_dropout", self.attention_dropout),
                ("resid_pdrop", self.residual_dropout),
            ],
        )?;
        for (key, value) in [
            ("rms_norm_eps", Some(self.norm_epsilon)),
            ("attn_logit_softcapping", self.score_cap),
            ("final_logit_softcapping", self.logit_cap),
            ("logits_scaling", Some(self.multipliers.logits)),
            ("query_pre_attn_scalar", Some(self.scale)),
        ] {
            let value = value.unwrap_or(1.0);
            let fits = value.is_finite() && value > 0.0;
            require.that(fits, key, value, || "a positive number".into())?;
        }
        for (key, value) in [
            ("embedding_multiplier", self.multipliers.embedding),
            ("residual_multiplier", self.multipliers.residual),
        ] {
            require.that(value.is_finite(), key, value, || "a number".into())?;
        }
        let deviation = self.initializer_range;
        let fits = deviation.is_finite() && deviation >= 0.0;
        require.that(fits, "initializer_range", deviation, || {
            "a number of at least 0".into()
        })
    }
}
