//! Causal self-attention.

use super::mask::Visible;
use crate::generate::KvCache;
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::ops::ScaledDotProduct;
use lora_core::{Dropout, LoraLinear};

/// Multi-head self-attention whose query, key and value projections are one matrix, `c_attn`.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys and values side by side: `[d_model, 3 · d_model]`.
    pub c_attn: LoraLinear,
    /// Of the heads' outputs: `[d_model, d_model]`.
    pub c_proj: LoraLinear,
    /// On the attention's weights.
    pub attn_dropout: Dropout,
    /// On the output.
    pub resid_dropout: Dropout,
    pub(super) n_head: usize,
    /// What the scores are multiplied by.
    pub(super) scale: f64,
}

/// The past of one layer, and which one it is.
pub(super) struct Past<'a> {
    pub(super) cache: &'a mut KvCache,
    pub(super) layer: usize,
}

impl Attention {
    /// # Shapes
    /// - `x`: `[batch, seq, d_model]`
    /// - `visible`: its padding broadcasts to `[batch, n_head, seq, tokens + past + seq]`; what is behind a token is hidden from
    ///   it in any case
    /// - `prefix`: keys and values that every token sees, before those of the text
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        visible: &Visible,
        past: Option<Past<'_>>,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let d_head = d_model / self.n_head;
        let fused = self.c_attn.forward(x); // [batch, seq, 3 * d_model]
        let attention = ScaledDotProduct::new(self.scale)
            .causal()
            .with_bias(visible.padding.clone())
            .within(visible.segments.clone())
            .with_dropout(&self.attn_dropout);
        let joined = match (past, prefix) {
            (None, None) => attention.forward_fused(fused, self.n_head),
            (past, prefix) => {
                let heads = fused
                    .reshape([batch, seq, 3 * self.n_head, d_head])
                    .swap_dims(1, 2); // [batch, 3 * n_head, seq, d_head]
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
}
