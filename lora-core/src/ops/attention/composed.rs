//! Attention composed of operations that every backend has.

use super::{AttentionOptions, AttentionState};
use crate::ops::dropout::mask_like;
use crate::ops::prelude::*;
use crate::ops::product::ProductOps;
use burn::tensor::{Slice, TensorData};

/// Gradients of queries, keys, values and bias.
pub(super) type Gradients<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    Option<FloatTensor<B>>,
);

pub(super) fn forward<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: &AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = query.dtype();
    let scores = scores::<B>(query, key, bias, options);
    let max = B::float_max_dim(scores.clone(), 3);
    let powers = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(powers.clone(), 3);
    let weights = B::float_div(powers, sum.clone());
    let weights = match dropout_mask_like::<B>(&weights, options) {
        None => weights,
        Some(mask) => B::float_mul(weights, mask),
    };
    let output = B::multiply(cast::<B>(weights, dtype), value);
    let output = cast::<B>(output, dtype);
    (output, B::float_cat(vec![max, sum], 3))
}

pub(super) fn backward<B: ProductOps>(
    state: AttentionState<B>,
    grad: FloatTensor<B>,
    options: &AttentionOptions,
    with_bias_grad: bool,
) -> Gradients<B> {
    let AttentionState {
        query,
        key,
        value,
        bias,
        output,
        statistics,
    } = state;
    let [dtype, key_dtype, value_dtype] = [&query, &key, &value].map(|input| input.dtype());
    let bias_shape = bias.shape();
    let scores = scores::<B>(query.clone(), key.clone(), bias.clone(), options);
    let wide = scores.dtype();
    let [batch, heads, queries, _] = scores.shape().dims();
    let statistic = |index: usize| {
        let slices = [0..batch, 0..heads, 0..queries, index..index + 1].map(Slice::from);
        B::float_slice(statistics.clone(), &slices)
    };
    let powers = B::float_exp(B::float_sub(scores, statistic(0)));
    let weights = B::float_div(powers, statistic(1));
    let mask = dropout_mask_like::<B>(&weights, options);
    let masked = |tensor: FloatTensor<B>| match &mask {
        None => tensor,
        Some(mask) => B::float_mul(tensor, mask.clone()),
    };
    let narrow = |tensor: FloatTensor<B>| B::float_cast(tensor, dtype.into());
    let transposed = |tensor: FloatTensor<B>| B::float_swap_dims(tensor, 2, 3);

    let grad_value = B::multiply(transposed(narrow(masked(weights.clone()))), grad.clone());
    let grad_weights = B::multiply(grad.clone(), transposed(value));
    let grad_weights = masked(B::float_cast(grad_weights, wide.into()));
    let delta = B::float_mul(
        B::float_cast(grad, wide.into()),
        B::float_cast(output, wide.into()),
    );
    let delta = B::float_sum_dim(delta, 3);
    let grad_scores = B::float_mul(weights, B::float_sub(grad_weights, delta));
    let grad_bias = with_bias_grad.then(|| {
        let axes = (0..4).filter(|&axis| bias_shape[axis] == 1);
        let sum = axes.fold(grad_scores.clone(), |sum, axis| B::float_sum_dim(sum, axis));
        B::float_cast(sum, bias.dtype().into())
    });
    let grad_scores = narrow(B::float_mul_scalar(grad_scores, options.scale.into()));
    let grad_query = B::multiply(grad_scores.clone(), key);
    let grad_key = B::multiply(transposed(grad_scores), query);
    (
        cast::<B>(grad_query, dtype),
        cast::<B>(grad_key, key_dtype),
        cast::<B>(grad_value, value_dtype),
        grad_bias,
    )
}

/// Computes `s Q Kᵀ + bias`, in f32 at least, with negative infinity where the causal mask hides a key.
fn scores<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: &AttentionOptions,
) -> FloatTensor<B> {
    let wide = accumulation_dtype(query.dtype());
    let device = query.device();
    // Scaling the queries is cheaper than scaling the scores.
    let query = B::float_mul_scalar(query, options.scale.into());
    let scores = B::multiply(query, B::float_swap_dims(key, 2, 3));
    let scores = B::float_cast(scores, wide.into());
    let scores = B::float_add(scores, B::float_cast(bias, wide.into()));
    let [_, _, queries, keys] = scores.shape().dims();
    if !options.causal || queries == 1 {
        return scores;
    }
    assert!(keys >= queries, "{queries} causal queries of {keys} keys");
    // Infinite, so that a masked key scores below one with a bias of f32's minimum. Built on the host, since zero times
    // infinity is NaN.
    let mask = B::float_from_data(causal_mask(queries, keys, f32::NEG_INFINITY), &device);
    let mask = B::float_cast(mask, wide.into());
    B::float_add(scores, mask)
}

/// Builds the causal mask, `[1, 1, queries, keys]`: `hidden` above the diagonal that ends in the last corner, else zero.
pub(super) fn causal_mask(queries: usize, keys: usize, hidden: f32) -> TensorData {
    let mut values = vec![0.0f32; queries * keys];
    for (query, row) in values.chunks_exact_mut(keys).enumerate() {
        row[keys - queries + query + 1..].fill(hidden);
    }
    TensorData::new(values, [1, 1, queries, keys])
}

/// Generates the dropout mask in the shape of the weights; `None` without dropout.
fn dropout_mask_like<B: Backend>(
    weights: &FloatTensor<B>,
    options: &AttentionOptions,
) -> Option<FloatTensor<B>> {
    (options.dropout > 0.0).then(|| mask_like::<B>(weights, options.dropout, options.seed))
}
