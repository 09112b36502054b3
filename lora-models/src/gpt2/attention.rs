//! Causal self-attention.

use crate::generate::KvCache;
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::ops::softmax;
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
    /// - `mask`: broadcasts to `[batch, n_head, seq, past + seq]`, added to the scores
    /// - `prefix`: keys and values that every token sees, before those of the text
    /// - returns `[batch, seq, d_model]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<&Tensor<4>>,
        past: Option<Past<'_>>,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let d_head = d_model / self.n_head;
        // One layout for all three parts, each then a range of heads, copies nothing where the
        // backend has views, and its backward pass writes whole rows.
        let fused = self.c_attn.forward(x); // [batch, seq, 3 * d_model]
        let heads = fused
            .reshape([batch, seq, 3 * self.n_head, d_head])
            .swap_dims(1, 2); // [batch, 3 * n_head, seq, d_head]
        let part = |index: usize| heads.clone().narrow(1, index * self.n_head, self.n_head);
        let (query, key, value) = (part(0), part(1), part(2)); // [batch, n_head, seq, d_head]
        let (key, value) = match past {
            None => (key, value),
            Some(past) => past.cache.append(past.layer, key, value),
        };

        // Scaling the queries is cheaper than scaling the scores.
        let query = query * self.scale;
        let scores = query.clone().matmul(key.swap_dims(2, 3)); // [batch, n_head, seq, keys]
        let scores = match mask {
            None => scores,
            Some(mask) => scores + mask.clone(),
        };
        // One softmax over the prefix and the text, which are nowhere copied together: all rows and
        // beams share the one, and the other is a view of the cache.
        let scores = match prefix {
            None => scores,
            Some(prefix) => {
                let before = query.matmul(prefix.keys.clone().swap_dims(2, 3));
                Tensor::cat(vec![before, scores], 3) // [batch, n_head, seq, tokens + keys]
            }
        };
        let weights = self.attn_dropout.forward(softmax(scores));
        let output = match prefix {
            None => weights.matmul(value), // [batch, n_head, seq, d_head]
            Some(prefix) => {
                let ([_, _, tokens, _], [_, _, keys, _]) = (prefix.values.dims(), value.dims());
                let before = weights.clone().narrow(3, 0, tokens);
                let text = weights.narrow(3, tokens, keys);
                before.matmul(prefix.values.clone()) + text.matmul(value)
            }
        };
        let joined = output.swap_dims(1, 2).reshape([batch, seq, d_model]);
        self.resid_dropout.forward(self.c_proj.forward(joined))
    }
}
