//! Disentangled attention: from projections to what the heads say.

use super::relative::{DebertaContext, skew};
use crate::encoder::EncoderConfig;
use crate::weights::dropout;
use burn::module::Module;
use burn::tensor::{Int, Tensor};
use lora_core::ops::ScaledDotProduct;
use lora_core::{Dropout, LoraLinear};

/// The attention behind the projections of either version (He et al. 2020, equation 4): scores of content
/// against content, content against distance and distance against content.
#[derive(Module, Debug)]
pub struct DisentangledHeads {
    /// On the weights.
    pub dropout: Dropout,
    /// On the embeddings of distances.
    pub pos_dropout: Dropout,
    heads: usize,
    /// What scores are divided by, each of the terms alike.
    scale: f64,
}

/// Projections of the tokens, each `[batch, heads, seq, d_head]`.
pub(super) struct Content {
    pub query: Tensor<4>,
    pub key: Tensor<4>,
    pub value: Tensor<4>,
}

/// Projections of the embeddings of distances, where there is the term that they are for.
pub(super) struct OfDistances<'a> {
    /// Content against distance.
    pub key: Option<&'a LoraLinear>,
    /// Distance against content.
    pub query: Option<&'a LoraLinear>,
}

impl DisentangledHeads {
    pub(super) fn new(config: &EncoderConfig) -> Self {
        let terms = config.disentangled.as_ref().map(|options| options.terms);
        // The terms count even where there are no embeddings of distances, as in transformers.
        let terms = 1 + terms.map_or(0, |terms| terms.count());
        Self {
            dropout: dropout(config.attention_dropout),
            pos_dropout: dropout(config.hidden_dropout),
            heads: config.num_attention_heads,
            scale: ((config.head_size() * terms) as f64).sqrt(),
        }
    }

    /// Gives each head its part of the features.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, heads · d]`
    /// - returns `[batch, heads, seq, d]`
    pub(super) fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, seq, d] = x.dims();
        let parts = x.reshape([batch, seq, self.heads, d / self.heads]);
        parts.swap_dims(1, 2)
    }

    /// # Shapes
    /// Returns `[batch, seq, heads · d_head]`.
    pub(super) fn forward(
        &self,
        content: Content,
        distances: OfDistances<'_>,
        context: &DebertaContext,
    ) -> Tensor<3> {
        let Content { query, key, value } = content;
        let mut bias = context.hidden.clone();
        if let Some(relative) = &context.relative {
            let embeddings = self.pos_dropout.forward(relative.embeddings.clone());
            if let Some(projection) = distances.key {
                let keys = projection.forward(embeddings.clone()) / self.scale;
                let keys = self.in_order(keys, &relative.of_keys);
                bias = skew(query.clone().matmul(keys)) + bias; // [batch, heads, seq, seq]
            }
            if let Some(projection) = distances.query {
                let queries = projection.forward(embeddings) / self.scale;
                let queries = self.in_order(queries, &relative.of_queries);
                bias = skew(key.clone().matmul(queries)).swap_dims(2, 3) + bias;
            }
        }
        let attention = ScaledDotProduct::new(1.0 / self.scale)
            .with_bias(Some(bias))
            .with_dropout(&self.dropout);
        let output = attention.forward(query, key, value); // [batch, heads, seq, d_head]
        let [batch, heads, seq, d_head] = output.dims();
        output.swap_dims(1, 2).reshape([batch, seq, heads * d_head])
    }

    /// Projections of distances as columns in the order that is asked for.
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
