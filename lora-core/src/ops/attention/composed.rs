//! By operations that every backend has.

use super::AttentionOptions;
use crate::ops::dropout_mask;
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{DType, Slice, TensorData};

/// What the forward pass had and found.
pub(super) struct Forward<B: Backend> {
    pub query: FloatTensor<B>,
    pub key: FloatTensor<B>,
    pub value: FloatTensor<B>,
    pub bias: FloatTensor<B>,
    pub output: FloatTensor<B>,
    pub statistics: FloatTensor<B>,
}

pub(super) fn forward<B: Backend>(
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
    let weights = match dropped::<B>(&weights, options) {
        None => weights,
        Some(mask) => B::float_mul(weights, mask),
    };
    let output = B::float_matmul(B::float_cast(weights, dtype.into()), value);
    (output, B::float_cat(vec![max, sum], 3))
}

pub(super) fn backward<B: Backend>(
    forward: Forward<B>,
    grad: FloatTensor<B>,
    options: &AttentionOptions,
    of_bias: bool,
) -> (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    Option<FloatTensor<B>>,
) {
    let Forward {
        query,
        key,
        value,
        bias,
        output,
        statistics,
    } = forward;
    let dtype = query.dtype();
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
    let mask = dropped::<B>(&weights, options);
    let masked = |tensor: FloatTensor<B>| match &mask {
        None => tensor,
        Some(mask) => B::float_mul(tensor, mask.clone()),
    };
    let narrow = |tensor: FloatTensor<B>| B::float_cast(tensor, dtype.into());
    let transposed = |tensor: FloatTensor<B>| B::float_swap_dims(tensor, 2, 3);

    let of_value = B::float_matmul(transposed(narrow(masked(weights.clone()))), grad.clone());
    let of_weights = B::float_matmul(grad.clone(), transposed(value));
    let of_weights = masked(B::float_cast(of_weights, wide.into()));
    let delta = B::float_mul(
        B::float_cast(grad, wide.into()),
        B::float_cast(output, wide.into()),
    );
    let delta = B::float_sum_dim(delta, 3);
    let of_scores = B::float_mul(weights, B::float_sub(of_weights, delta));
    let of_bias = of_bias.then(|| {
        let axes = (0..4).filter(|&axis| bias_shape[axis] == 1);
        let sum = axes.fold(of_scores.clone(), |sum, axis| B::float_sum_dim(sum, axis));
        B::float_cast(sum, bias.dtype().into())
    });
    let of_scores = narrow(B::float_mul_scalar(of_scores, options.scale.into()));
    let of_query = B::float_matmul(of_scores.clone(), key);
    let of_key = B::float_matmul(transposed(of_scores), query);
    (of_query, of_key, of_value, of_bias)
}

/// `s Q Kᵀ + bias`, in f32 at least, and negative infinity where a key is behind its query.
fn scores<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: &AttentionOptions,
) -> FloatTensor<B> {
    let wide = match query.dtype() {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    };
    let device = query.device();
    // Scaling the queries is cheaper than scaling the scores.
    let query = B::float_mul_scalar(query, options.scale.into());
    let scores = B::float_matmul(query, B::float_swap_dims(key, 2, 3));
    let scores = B::float_cast(scores, wide.into());
    let scores = B::float_add(scores, B::float_cast(bias, wide.into()));
    let [_, _, queries, keys] = scores.shape().dims();
    if !options.causal || queries == 1 {
        return scores;
    }
    assert!(keys >= queries, "{queries} causal queries of {keys} keys");
    // Infinite, so that a key behind its query stays below one that a bias of the least f32 hides; made on the host, since
    // zero times that is no number.
    let mut hidden = vec![0.0f32; queries * keys];
    for (query, row) in hidden.chunks_exact_mut(keys).enumerate() {
        row[keys - queries + query + 1..].fill(f32::NEG_INFINITY);
    }
    let hidden = B::float_from_data(TensorData::new(hidden, [1, 1, queries, keys]), &device);
    let hidden = B::float_cast(hidden, wide.into());
    B::float_add(scores, hidden)
}

/// The mask of dropout, where there is any, in the form of the weights.
fn dropped<B: Backend>(
    weights: &FloatTensor<B>,
    options: &AttentionOptions,
) -> Option<FloatTensor<B>> {
    if options.dropout == 0.0 {
        return None;
    }
    let shape = weights.shape();
    let mask = dropout_mask(shape.num_elements(), options.dropout, options.seed);
    let mask = B::float_from_data(TensorData::new(mask, shape), &weights.device());
    Some(B::float_cast(mask, weights.dtype().into()))
}
