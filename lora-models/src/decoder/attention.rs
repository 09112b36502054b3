//! Causal self-attention with rotary positions and heads that share keys.

use super::rope::Angles;
use super::shared::DecoderShared;
use crate::lm::Past;
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::ops::{ScaledDotProduct, rotary};
use lora_core::{Dropout, LoraLinear, RmsNorm};

/// Causal self-attention.
///
/// Consecutive heads of queries share a head of keys and values.
#[derive(Module, Debug)]
pub struct Attention {
    /// Projections of queries, keys and values.
    pub qkv: QueryKeyValue,
    /// Output projection, `[query_width, hidden_size]`.
    pub o_proj: LoraLinear,
    /// Norm of the queries.
    pub q_norm: Option<RmsNorm>,
    /// Norm of the keys.
    pub k_norm: Option<RmsNorm>,
    /// Dropout on the attention weights.
    pub attn_dropout: Dropout,
    #[module(skip)]
    pub(super) settings: AttentionSettings,
}

/// Projections of queries, keys and values. The variants' names are not part of paths in transformers.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A layer has one.
pub enum QueryKeyValue {
    /// A projection each.
    Separate(SeparateProjections),
    /// One projection, `[hidden_size, query_width + 2 · key_width]`.
    Fused(LoraLinear),
}

/// A projection each for queries, keys and values.
#[derive(Module, Debug)]
pub struct SeparateProjections {
    /// Queries, `[hidden_size, query_width]`.
    pub q_proj: LoraLinear,
    /// Keys, `[hidden_size, key_width]`.
    pub k_proj: LoraLinear,
    /// Values, `[hidden_size, key_width]`.
    pub v_proj: LoraLinear,
}

/// Sizes and options of the attention of one layer.
#[derive(Clone, Debug)]
pub(super) struct AttentionSettings {
    pub heads: usize,
    pub key_heads: usize,
    pub head_dim: usize,
    pub scale: f64,
    pub cap: Option<f64>,
    pub window: Option<usize>,
    /// Index of the angles among those that the layers share.
    pub rope: Option<usize>,
    /// True if the norms are over each head.
    pub norms_heads: bool,
}

impl Attention {
    /// Attends causally to the tokens of the prefix, the cache and `x`.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    /// - returns `[batch, seq, hidden_size]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        shared: &DecoderShared,
        past: Option<Past<'_>>,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let settings = &self.settings;
        let (query, keys) = self.project(x, settings.rope.map(|index| &shared.angles[index]));
        let (key, value) = match past {
            None => (keys.keys, keys.values),
            Some(past) => past.cache.append(past.layer, keys.keys, keys.values),
        };
        let (key, value) = match prefix {
            None => (key, value),
            Some(prefix) => prefix.before(key, value),
        };
        let attention = ScaledDotProduct::new(settings.scale)
            .causal()
            .with_window(settings.window)
            .with_cap(settings.cap)
            .with_bias(shared.mask.padding.clone())
            .within(shared.mask.segments.clone())
            .with_dropout(&self.attn_dropout);
        let output = attention.forward(query, key, value);
        let [batch, heads, seq, d] = output.dims();
        self.o_proj
            .forward(output.swap_dims(1, 2).reshape([batch, seq, heads * d]))
    }

    /// Computes the keys and values of normalized hidden states.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`
    pub(super) fn keys_and_values(&self, x: Tensor<3>, angles: &[Angles]) -> PrefixLayer {
        let (_, keys) = self.project(x, self.settings.rope.map(|index| &angles[index]));
        keys
    }

    /// Returns queries, `[batch, heads, seq, head_dim]`, and keys and values, `[batch, key_heads, seq, head_dim]`.
    fn project(&self, x: Tensor<3>, angles: Option<&Angles>) -> (Tensor<4>, PrefixLayer) {
        let AttentionSettings {
            heads, key_heads, ..
        } = self.settings;
        let d = self.settings.head_dim;
        let (query, key, value) = match &self.qkv {
            QueryKeyValue::Separate(all) => (
                all.q_proj.forward(x.clone()),
                all.k_proj.forward(x.clone()),
                all.v_proj.forward(x),
            ),
            QueryKeyValue::Fused(all) => {
                let fused = all.forward(x);
                let part =
                    |start: usize, heads: usize| fused.clone().narrow(2, start * d, heads * d);
                (
                    part(0, heads),
                    part(heads, key_heads),
                    part(heads + key_heads, key_heads),
                )
            }
        };
        let by_head = |all: Tensor<3>, heads: usize| {
            let [batch, seq, _] = all.dims();
            all.reshape([batch, seq, heads, d])
        };
        let normed = |all: Tensor<3>, heads: usize, norm: &Option<RmsNorm>| match norm {
            None => by_head(all, heads),
            Some(norm) if self.settings.norms_heads => norm.forward(by_head(all, heads)),
            Some(norm) => by_head(norm.forward(all), heads),
        };
        let turned = |all: Tensor<4>| match angles {
            None => all,
            Some(angles) => rotary(all, angles.cos.clone(), angles.sin.clone()),
        };
        let query = turned(normed(query, heads, &self.q_norm));
        let key = turned(normed(key, key_heads, &self.k_norm));
        let keys = PrefixLayer {
            keys: key.swap_dims(1, 2),
            values: by_head(value, key_heads).swap_dims(1, 2),
        };
        (query.swap_dims(1, 2), keys)
    }
}
