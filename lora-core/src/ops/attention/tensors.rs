//! Attention on tensors.

use super::{AttentionOps, AttentionOptions, Segments};
use crate::ops::constants;
use crate::ops::dropout_layer::Dropout;
use crate::ops::limits::max_buffer_bytes;
use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Shape, Tensor};

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
    window: Option<usize>,
    cap: Option<f64>,
    bias: Option<Tensor<4>>,
    dropout: Dropout,
    segments: Option<Segments>,
    max_scores_bytes: Option<u64>,
}

/// Largest size of the scores that are computed at a time, in bytes, on a device that binds buffers of any size: large enough to
/// keep a GPU busy.
const MAX_SCORES_BYTES: u64 = 256 << 20;

impl ScaledDotProduct {
    /// Creates attention between all queries and keys, with a factor on the scores.
    pub fn new(scale: f64) -> Self {
        Self {
            scale,
            causal: false,
            window: None,
            cap: None,
            bias: None,
            dropout: Dropout::new(0.0),
            segments: None,
            max_scores_bytes: None,
        }
    }

    /// Enables the causal mask: each query sees the keys up to its own position. The last query sees all keys; surplus keys
    /// come before the queries.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// Sets a sliding window: each query sees the last `window` keys up to its own position. Requires the causal mask.
    pub fn with_window(mut self, window: Option<usize>) -> Self {
        self.window = window;
        self
    }

    /// Sets a soft cap `c`: a score becomes `c tanh(score / c)` before the bias is added.
    pub fn with_cap(mut self, cap: Option<f64>) -> Self {
        self.cap = cap;
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

    /// Sets the largest size of the scores that a GPU computes at a time, in bytes. By default, half of what the device binds
    /// as one buffer, and at most 256 MiB.
    pub fn with_max_scores_bytes(mut self, bytes: u64) -> Self {
        self.max_scores_bytes = Some(bytes);
        self
    }

    /// Computes the attention of queries to keys and values.
    ///
    /// # Shapes
    /// - `query`: `[batch, heads, queries, d]`
    /// - `key`: `[batch, key_heads, keys, d]`, `value`: `[batch, key_heads, keys, d_value]`; `heads` is a multiple of
    ///   `key_heads`, and consecutive heads share one
    /// - returns `[batch, heads, queries, d_value]`
    ///
    /// # Panics
    /// Panics on shapes that do not match, causal attention with fewer keys than queries, packed texts that do not fill exactly
    /// one row or that have a bias, and a backend whose feature of this crate is off.
    pub fn forward(&self, query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
        let [batch, heads, queries, d] = query.dims();
        let [_, key_heads, keys, _] = key.dims();
        let [value_batch, value_heads, value_keys, _] = value.dims();
        assert!(
            key.dims() == [batch, key_heads, keys, d]
                && [value_batch, value_heads, value_keys] == [batch, key_heads, keys],
            "queries {:?}, keys {:?} and values {:?}",
            query.dims(),
            key.dims(),
            value.dims()
        );
        assert!(
            key_heads > 0 && heads.is_multiple_of(key_heads),
            "{heads} heads of queries for {key_heads} of keys"
        );
        let bias = self.bias([batch, heads, queries, keys], &query);
        let options = self.options(&query.device());
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
        let [batch, seq, _] = fused.dims();
        let bias = self.bias([batch, heads, seq, seq], &fused);
        let options = self.options(&fused.device());
        Tensor::from_dispatch(<Dispatch as AttentionOps>::attend_fused(
            fused.into_dispatch(),
            bias.into_dispatch(),
            heads,
            options,
        ))
    }

    /// Returns the bias, or a single zero that stands for none.
    fn bias<const D: usize>(&self, scores: [usize; 4], like: &Tensor<D>) -> Tensor<4> {
        assert!(
            self.window.is_none_or(|window| self.causal && window > 0),
            "a window of {:?} keys without the causal mask",
            self.window
        );
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
            let device = like.device().inner();
            let none = constants::values::<Dispatch>(
                &[0.0],
                Shape::new([1; 4]),
                DType::F32,
                device.as_dispatch(),
            );
            return Tensor::from_dispatch(none);
        };
        let fits = bias
            .dims()
            .iter()
            .zip(scores)
            .all(|(&size, full)| size == full || size == 1);
        assert!(fits, "a bias of {:?} for scores of {scores:?}", bias.dims());
        bias.clone()
    }

    /// Returns the options of the operation.
    fn options(&self, device: &Device) -> AttentionOptions {
        let half = || {
            let bound = max_buffer_bytes(device)?;
            Some((bound / 2).min(MAX_SCORES_BYTES))
        };
        let (dropout, seed) = if self.dropout.is_active_on(device) {
            (self.dropout.probability(), Dropout::draw_seed(device))
        } else {
            (0.0, 0)
        };
        AttentionOptions {
            scale: self.scale,
            causal: self.causal,
            window: self.window,
            cap: self.cap,
            dropout,
            seed,
            segments: self.segments.clone(),
            max_scores_bytes: self.max_scores_bytes.or_else(half),
        }
    }
}
