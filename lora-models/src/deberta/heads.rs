//! Disentangled attention: from projections to the output of the heads.

use super::relative::{DebertaContext, skew};
use crate::encoder::EncoderConfig;
use crate::prefix::PrefixLayer;
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use lora_core::ops::ScaledDotProduct;
use lora_core::{Dropout, LoraLinear};

/// Attention after the projections of either version (He et al. 2020, equation 4): scores from content to content,
/// content to position and position to content.
#[derive(Module, Debug)]
pub struct DisentangledHeads {
    /// Dropout on the attention weights.
    pub dropout: Dropout,
    /// Dropout on the embeddings of distances.
    pub pos_dropout: Dropout,
    heads: usize,
    /// Divisor of the scores, the same for all terms.
    scale: f64,
}

/// Projections of the tokens, each `[batch, heads, seq, d_head]`.
pub(super) struct Content {
    pub query: Tensor<4>,
    pub key: Tensor<4>,
    pub value: Tensor<4>,
}

/// Projections of the embeddings of distances, for the enabled terms.
pub(super) struct DistanceProjections<'a> {
    /// Key projection, for the content-to-position term.
    pub key: Option<&'a LoraLinear>,
    /// Query projection, for the position-to-content term.
    pub query: Option<&'a LoraLinear>,
}

impl DisentangledHeads {
    pub(super) fn new(config: &EncoderConfig) -> Self {
        let terms = config.disentangled.as_ref().map(|options| options.terms);
        // The terms count even without embeddings of distances, as in transformers.
        let terms = 1 + terms.map_or(0, |terms| terms.count());
        Self {
            dropout: Dropout::new(config.attention_dropout),
            pos_dropout: Dropout::new(config.hidden_dropout),
            heads: config.num_attention_heads,
            scale: ((config.head_size() * terms) as f64).sqrt(),
        }
    }

    /// Splits the features among the heads.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, heads · d]`
    /// - returns `[batch, heads, seq, d]`
    pub(super) fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, seq, d] = x.dims();
        let parts = x.reshape([batch, seq, self.heads, d / self.heads]);
        parts.swap_dims(1, 2)
    }

    /// Computes the output of the heads.
    ///
    /// # Shapes
    /// - returns `[batch, seq, heads · d_head]`
    pub(super) fn forward(
        &self,
        content: Content,
        distances: DistanceProjections<'_>,
        context: &DebertaContext,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let Content { query, key, value } = content;
        let mut by_distance: Option<Tensor<4>> = None; // [batch, heads, seq, seq]
        let add = |sum: Option<Tensor<4>>, term: Tensor<4>| match sum {
            None => Some(term),
            Some(sum) => Some(term + sum),
        };
        if let Some(relative) = &context.relative {
            let embeddings = self.pos_dropout.forward(relative.embeddings.clone());
            if let Some(projection) = distances.key {
                let keys = projection.forward(embeddings.clone()) / self.scale;
                let keys = self.in_order(keys, &relative.key_order);
                by_distance = add(by_distance, skew(query.clone().matmul(keys)));
            }
            if let Some(projection) = distances.query {
                let queries = projection.forward(embeddings) / self.scale;
                let queries = self.in_order(queries, &relative.query_order);
                by_distance = add(
                    by_distance,
                    skew(key.clone().matmul(queries)).swap_dims(2, 3),
                );
            }
        }
        let (key, value) = match prefix {
            None => (key, value),
            Some(prefix) => prefix.before(key, value),
        };
        let mask = context.padding_mask.clone(); // [batch, 1, 1, keys]
        let bias = match by_distance {
            None => mask,
            Some(scores) => {
                let tokens = mask.dims()[3] - scores.dims()[3];
                before_keys(scores, tokens) + mask
            }
        };
        let attention = ScaledDotProduct::new(1.0 / self.scale)
            .with_bias(Some(bias))
            .with_dropout(&self.dropout);
        let output = attention.forward(query, key, value); // [batch, heads, seq, d_head]
        let [batch, heads, seq, d_head] = output.dims();
        output.swap_dims(1, 2).reshape([batch, seq, heads * d_head])
    }

    /// Arranges projections of distances as columns in the given order.
    ///
    /// # Shapes
    /// - `projected`: `[1 or batch, rows, heads · d_head]`, `order`: `[2 · seq]`
    /// - returns `[1 or batch, heads, d_head, 2 · seq]`
    fn in_order(&self, projected: Tensor<3>, order: &Tensor<1, Int>) -> Tensor<4> {
        let ordered = projected.select(1, order.clone()); // [1 or batch, 2 * seq, heads * d_head]
        let [examples, columns, d] = ordered.dims();
        let heads = ordered.reshape([examples, columns, self.heads, d / self.heads]);
        heads.permute([0, 2, 3, 1])
    }
}

/// Prepends zeros for keys without a distance, such as those of virtual tokens.
///
/// # Shapes
/// - `scores`: `[batch, heads, seq, keys]`
/// - returns `[batch, heads, seq, tokens + keys]`
fn before_keys(scores: Tensor<4>, tokens: usize) -> Tensor<4> {
    if tokens == 0 {
        return scores;
    }
    let [batch, heads, seq, _] = scores.dims();
    let options = (&scores.device(), scores.dtype());
    let zeros = Tensor::zeros([batch, heads, seq, tokens], options);
    Tensor::cat(vec![zeros, scores], 3)
}
