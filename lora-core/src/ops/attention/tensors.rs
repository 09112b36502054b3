//! The same on tensors.

use super::{AttentionOps, AttentionOptions, Segments};
use crate::ops::dropout_layer::Dropout;
use crate::ops::{is_on_host, softmax};
use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor, TensorData};

/// Scaled dot-product attention, `dropout(softmax(scale · Q Kᵀ + bias)) V`, that keeps no score from the forward to the
/// backward pass.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::ScaledDotProduct;
///
/// let device = Device::flex();
/// let query = Tensor::<4>::zeros([1, 1, 2, 3], &device);
/// let value = Tensor::<4>::from_floats([[[[2.0], [4.0]]]], &device);
/// let attention = ScaledDotProduct::new(1.0).causal();
/// let output = attention.forward(query.clone(), query, value);
/// // Equal scores: the first query sees the first value, the second the mean of both.
/// assert_eq!(output.into_data().to_vec::<f32>().unwrap(), [2.0, 3.0]);
/// ```
#[derive(Clone, Debug)]
pub struct ScaledDotProduct {
    scale: f64,
    causal: bool,
    bias: Option<Tensor<4>>,
    dropout: Dropout,
    segments: Option<Segments>,
}

impl ScaledDotProduct {
    /// Between all queries and keys, with this factor on the scores.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            causal: false,
            bias: None,
            dropout: Dropout::new(0.0),
            segments: None,
        }
    }

    /// Each query sees the keys up to its own place; the last one sees all, so that what there is of keys beyond the
    /// queries lies before them.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// What is added to the scores, if anything, each axis that of the scores `[batch, heads, queries, keys]` or 1. To hide keys,
    /// a large negative number: with -∞, a query of which all keys are hidden has no output.
    pub fn with_bias(mut self, bias: Option<Tensor<4>>) -> Self {
        self.bias = bias;
        self
    }

    /// Dropout of the weights.
    pub fn with_dropout(mut self, dropout: &Dropout) -> Self {
        self.dropout = dropout.clone();
        self
    }

    /// Within each of the texts that a row is packed of, if it is: then there is one row, as many keys as queries, and no bias.
    pub fn within(mut self, segments: Option<Segments>) -> Self {
        self.segments = segments;
        self
    }

    /// # Shapes
    /// - `query`: `[batch, heads, queries, d]`
    /// - `key`: `[batch, heads, keys, d]`, `value`: `[batch, heads, keys, d_value]`
    /// - returns `[batch, heads, queries, d_value]`
    ///
    /// # Panics
    /// On shapes that do not fit, causal attention with fewer keys than queries, texts that do not fill the one row that they
    /// are packed into or that have a bias, and a backend whose feature of this crate is off.
    pub fn forward(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let ([batch, heads, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
        let bias = self.bias([batch, heads, queries, keys], &query);
        let Some(options) = self.options(&query.device()) else {
            return self.forward_keeping_weights(query, key, value, bias);
        };
        Tensor::from_dispatch(<Dispatch as AttentionOps>::attend(
            query.into_dispatch(),
            key.into_dispatch(),
            value.into_dispatch(),
            bias.into_dispatch(),
            options,
        ))
    }

    /// Attention of a sequence to itself, of queries, keys and values that one projection has made side by side; its
    /// backward pass writes their gradients side by side.
    ///
    /// # Shapes
    /// - `fused`: `[batch, seq, 3 · heads · d]`
    /// - returns `[batch, seq, heads · d]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_fused(&self, fused: Tensor<3>, heads: usize) -> Tensor<3> {
        let [batch, seq, width] = fused.dims();
        let bias = self.bias([batch, heads, seq, seq], &fused);
        let Some(options) = self.options(&fused.device()) else {
            let all = fused.reshape([batch, seq, 3 * heads, width / 3 / heads]);
            let all = all.swap_dims(1, 2); // [batch, 3 * heads, seq, d]
            let part = |index: usize| all.clone().narrow(1, index * heads, heads);
            let output = self.forward_keeping_weights(part(0), part(1), part(2), bias);
            return output.swap_dims(1, 2).reshape([batch, seq, width / 3]);
        };
        Tensor::from_dispatch(<Dispatch as AttentionOps>::attend_fused(
            fused.into_dispatch(),
            bias.into_dispatch(),
            heads,
            options,
        ))
    }

    /// The bias, or one number that stands for none.
    fn bias<const D: usize>(&self, scores: [usize; 4], like: &Tensor<D>) -> Tensor<4> {
        if self.causal {
            let [_, _, queries, keys] = scores;
            assert!(keys >= queries, "{queries} causal queries of {keys} keys");
        }
        if let Some(segments) = &self.segments {
            let [batch, _, queries, keys] = scores;
            let tokens = segments.tokens();
            assert!(
                batch == 1 && queries == tokens && keys == tokens && self.bias.is_none(),
                "texts of {:?} tokens are packed into one row without a bias, not {batch} of {queries} queries and {keys} keys{}",
                segments.lengths(),
                if self.bias.is_some() { " with one" } else { "" },
            );
        }
        let Some(bias) = &self.bias else {
            return Tensor::zeros([1; 4], (&like.device(), like.dtype()));
        };
        let fits = bias
            .dims()
            .iter()
            .zip(scores)
            .all(|(&size, of_scores)| size == of_scores || size == 1);
        assert!(fits, "a bias of {:?} for scores of {scores:?}", bias.dims());
        bias.clone()
    }

    /// What the operation is asked for; `None` where it cannot draw what is dropped.
    fn options(&self, device: &Device) -> Option<AttentionOptions> {
        let options = AttentionOptions {
            scale: self.scale,
            causal: self.causal,
            dropout: 0.0,
            seed: 0,
            segments: self.segments.clone(),
        };
        if !self.dropout.is_active_on(device) {
            return Some(options);
        }
        // A seed would have to be read back from another device, and that would wait for all it has still to do.
        is_on_host(device).then(|| AttentionOptions {
            dropout: self.dropout.probability(),
            seed: Dropout::seed(device),
            ..options
        })
    }

    /// With Burn's operations, which keep the weights and the mask for the backward pass.
    fn forward_keeping_weights(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        bias: Tensor<4>,
    ) -> Tensor<4> {
        if let Some(segments) = &self.segments {
            let alone = self.clone().within(None);
            let texts = segments.ranges().map(|range| {
                let [query, key, value] = [&query, &key, &value]
                    .map(|all| all.clone().narrow(2, range.start, range.len()));
                alone.forward_keeping_weights(query, key, value, bias.clone())
            });
            return Tensor::cat(texts.collect(), 2);
        }
        let ([_, _, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
        let mut scores = (query * self.scale).matmul(key.swap_dims(2, 3)) + bias;
        if self.causal && queries > 1 {
            scores = scores + hidden_behind(queries, keys, &value.device());
        }
        self.dropout.forward(softmax(scores)).matmul(value)
    }
}

/// The least number above the diagonal that ends in the last corner, `[1, 1, queries, keys]`.
fn hidden_behind(queries: usize, keys: usize, device: &Device) -> Tensor<4> {
    let mut values = vec![0.0f32; queries * keys];
    for (query, row) in values.chunks_exact_mut(keys).enumerate() {
        row[keys - queries + query + 1..].fill(f32::MIN);
    }
    Tensor::from_data(TensorData::new(values, [1, 1, queries, keys]), device)
}
