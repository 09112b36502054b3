//! Attention on tensors.

use super::composed::causal_mask;
use super::{AttentionOps, AttentionOptions, Segments};
use crate::ops::dropout_layer::Dropout;
use crate::ops::{is_on_host, softmax};
use burn::backend::Dispatch;
use burn::tensor::{Device, Tensor};

/// Scaled dot-product attention, `dropout(softmax(scale · Q Kᵀ + bias)) V`, that keeps no scores from the forward to the
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
    /// Creates attention between all queries and keys, with a factor on the scores.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            causal: false,
            bias: None,
            dropout: Dropout::new(0.0),
            segments: None,
        }
    }

    /// Enables the causal mask: each query sees the keys up to its own position. The last query sees all keys; surplus keys
    /// come before the queries.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// Sets a bias that is added to the scores, broadcastable to `[batch, heads, queries, keys]`. To mask keys, use a large
    /// negative number: with -∞, the output of a query whose keys are all masked is NaN.
    pub fn with_bias(mut self, bias: Option<Tensor<4>>) -> Self {
        self.bias = bias;
        self
    }

    /// Sets the dropout of the attention weights.
    pub fn with_dropout(mut self, dropout: &Dropout) -> Self {
        self.dropout = dropout.clone();
        self
    }

    /// Restricts attention to each of the texts packed into a row. Requires one row, as many keys as queries, and no bias.
    pub fn within(mut self, segments: Option<Segments>) -> Self {
        self.segments = segments;
        self
    }

    /// Computes the attention of queries to keys and values.
    ///
    /// # Shapes
    /// - `query`: `[batch, heads, queries, d]`
    /// - `key`: `[batch, heads, keys, d]`, `value`: `[batch, heads, keys, d_value]`
    /// - returns `[batch, heads, queries, d_value]`
    ///
    /// # Panics
    /// Panics on shapes that do not match, causal attention with fewer keys than queries, packed texts that do not fill exactly
    /// one row or that have a bias, and a backend whose feature of this crate is off.
    pub fn forward(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let ([batch, heads, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
        let bias = self.bias([batch, heads, queries, keys], &query);
        let Some(options) = self.options(&query.device()) else {
            return self.forward_composed(query, key, value, bias);
        };
        Tensor::from_dispatch(<Dispatch as AttentionOps>::attend(
            query.into_dispatch(),
            key.into_dispatch(),
            value.into_dispatch(),
            bias.into_dispatch(),
            options,
        ))
    }

    /// Computes self-attention from fused queries, keys and values, as one projection produces them. The backward pass writes
    /// their gradients fused as well.
    ///
    /// # Shapes
    /// - `fused`: `[batch, seq, 3 · heads · d]`
    /// - returns `[batch, seq, heads · d]`
    ///
    /// # Panics
    /// Panics in the cases of [`forward`](Self::forward).
    pub fn forward_fused(&self, fused: Tensor<3>, heads: usize) -> Tensor<3> {
        let [batch, seq, width] = fused.dims();
        let bias = self.bias([batch, heads, seq, seq], &fused);
        let Some(options) = self.options(&fused.device()) else {
            let all = fused.reshape([batch, seq, 3 * heads, width / 3 / heads]);
            let all = all.swap_dims(1, 2); // [batch, 3 * heads, seq, d]
            let part = |index: usize| all.clone().narrow(1, index * heads, heads);
            let output = self.forward_composed(part(0), part(1), part(2), bias);
            return output.swap_dims(1, 2).reshape([batch, seq, width / 3]);
        };
        Tensor::from_dispatch(<Dispatch as AttentionOps>::attend_fused(
            fused.into_dispatch(),
            bias.into_dispatch(),
            heads,
            options,
        ))
    }

    /// Returns the bias, or a single zero that stands for none.
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
            .all(|(&size, full)| size == full || size == 1);
        assert!(fits, "a bias of {:?} for scores of {scores:?}", bias.dims());
        bias.clone()
    }

    /// Returns the options of the operation; `None` if the device cannot generate a dropout mask by a seed.
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
        // On another device the seed would have to be read back, which waits for all pending work.
        is_on_host(device).then(|| AttentionOptions {
            dropout: self.dropout.probability(),
            seed: Dropout::seed(device),
            ..options
        })
    }

    /// Computes attention with Burn's operations, which keep the weights and the mask for the backward pass.
    fn forward_composed(
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
                alone.forward_composed(query, key, value, bias.clone())
            });
            return Tensor::cat(texts.collect(), 2);
        }
        let ([_, _, queries, _], [_, _, keys, _]) = (query.dims(), key.dims());
        let mut scores = (query * self.scale).matmul(key.swap_dims(2, 3)) + bias;
        if self.causal && queries > 1 {
            let mask = causal_mask(queries, keys, f32::MIN);
            scores = scores + Tensor::from_data(mask, &value.device());
        }
        self.dropout.forward(softmax(scores)).matmul(value)
    }
}
