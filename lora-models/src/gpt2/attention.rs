//! Causal self-attention.

use crate::lm::{Past, TextMask};
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::ops::ScaledDotProduct;
use lora_core::{Dropout, LoraLinear};

/// Causal multi-head self-attention with a fused query, key and value projection, `c_attn`.
#[derive(Module, Debug)]
pub struct Attention {
    /// Fused query, key and value projection, `[d_model, 3 · d_model]`.
    pub c_attn: LoraLinear,
    /// Output projection, `[d_model, d_model]`.
    pub c_proj: LoraLinear,
    /// Dropout on the attention weights.
    pub attn_dropout: Dropout,
    /// Dropout on the output.
    pub resid_dropout: Dropout,
    pub(super) n_head: usize,
    /// Factor of the scores, usually `1 / √d_head`.
    pub(super) scale: f64,
}

impl Attention {
    /// Attends causally to the tokens of the prefix, the cache and `x`.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - `mask`: padding mask that broadcasts to `[batch, n_head, seq, tokens + past + seq]`; the causal mask is not part
    ///   of it
    /// - `prefix`: keys and values of the virtual tokens, which precede every text
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mask: &TextMask,
        past: Option<Past<'_>>,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let fused = self.c_attn.forward(x); // [batch, seq, 3 * d_model]
        let attention = ScaledDotProduct::new(self.scale)
            .causal()
            .with_bias(mask.padding.clone())
            .within(mask.segments.clone())
            .with_dropout(&self.attn_dropout);
        let joined = match (past, prefix) {
            (None, None) => attention.forward_fused(fused, self.n_head),
            (past, prefix) => {
                let heads = self.heads(fused);
                let part = |index: usize| heads.clone().narrow(1, index * self.n_head, self.n_head);
                let (key, value) = match past {
                    None => (part(1), part(2)),
                    Some(past) => past.cache.append(past.layer, part(1), part(2)),
                };
                let (key, value) = match prefix {
                    None => (key, value),
                    Some(prefix) => prefix.before(key, value),
                };
                let output = attention.forward(part(0), key, value);
                output.swap_dims(1, 2).reshape([batch, seq, d_model])
            }
        };
        self.resid_dropout.forward(self.c_proj.forward(joined))
    }

    /// Computes the keys and values of normalized hidden states.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    pub(super) fn keys_and_values(&self, x: Tensor<3>) -> PrefixLayer {
        let heads = self.heads(self.c_attn.forward(x));
        PrefixLayer {
            keys: heads.clone().narrow(1, self.n_head, self.n_head),
            values: heads.narrow(1, 2 * self.n_head, self.n_head),
        }
    }

    /// Splits queries, keys and values among the heads.
    ///
    /// # Shapes
    /// - `fused`: `[batch, seq, 3 · d_model]`
    /// - returns `[batch, 3 · n_head, seq, d_head]`
    fn heads(&self, fused: Tensor<3>) -> Tensor<4> {
        let [batch, seq, width] = fused.dims();
        let heads = 3 * self.n_head;
        fused
            .reshape([batch, seq, heads, width / heads])
            .swap_dims(1, 2)
    }
}
