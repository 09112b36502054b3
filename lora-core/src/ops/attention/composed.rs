//! Attention composed of operations that every backend has.

use super::{AttentionOptions, AttentionState, Gradients};
use crate::ops::constants::{bool_dtype, steps};
use crate::ops::dropout::composed as drop_by_mask;
use crate::ops::prelude::*;
use crate::ops::product::ProductOps;
use crate::ops::seeded_mask::SeededMask;
use crate::ops::statistics::columns;
use burn::tensor::{IntDType, Shape};

/// Computes the output, and the maximum and the sum of exponentials of each row of scores. The first weight has the index
/// `first` in the dropout mask.
pub(super) fn forward<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: &AttentionOptions,
    first: usize,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let dtype = query.dtype();
    let scores = scores::<B>(query, key, options);
    let scores = masked::<B>(scores, bias, options);
    let maximum = B::float_max_dim(scores.clone(), 3);
    let powers = B::float_exp(B::float_sub(scores, maximum.clone()));
    let sum = B::float_sum_dim(powers.clone(), 3);
    let weights = dropped::<B>(B::float_div(powers, sum.clone()), options, first);
    let output = B::multiply(cast::<B>(weights, dtype), value);
    (cast::<B>(output, dtype), maximum, sum)
}

/// Computes the gradients. With a mask M, `∂S = (P ∘ M) ∘ (G Vᵀ) - P δ`, so that M is generated once.
pub(super) fn backward<B: ProductOps>(
    state: AttentionState<B>,
    grad: FloatTensor<B>,
    options: &AttentionOptions,
    with_bias_grad: bool,
    first: usize,
) -> Gradients<B> {
    let AttentionState {
        query,
        key,
        value,
        bias,
        maximum,
        sum,
    } = state;
    let [dtype, key_dtype, value_dtype] = [&query, &key, &value].map(|input| input.dtype());
    let bias_shape = bias.shape();
    let bias_dtype = bias.dtype();
    let transposed = |tensor: FloatTensor<B>| B::float_swap_dims(tensor, 2, 3);

    let scores = scores::<B>(query.clone(), key.clone(), options);
    let slope = options.cap.map(|cap| {
        let share = B::float_div_scalar(scores.clone(), cap.into());
        let square = B::float_mul(share.clone(), share);
        B::float_add_scalar(B::float_neg(square), 1.0.into())
    });
    let scores = masked::<B>(scores, bias, options);
    let wide = scores.dtype();
    let grad_weights = B::multiply(grad.clone(), transposed(value));
    let grad_weights = cast::<B>(grad_weights, wide);
    let [maximum, sum] = columns::<B>(maximum, sum);
    let weights = B::float_div(B::float_exp(B::float_sub(scores, maximum)), sum);
    let kept = dropped::<B>(weights.clone(), options, first);
    let through = B::float_mul(kept.clone(), grad_weights);
    let delta = B::float_sum_dim(through.clone(), 3);
    let grad_scores = B::float_sub(through, B::float_mul(weights, delta));
    let grad_bias = with_bias_grad.then(|| {
        let axes = (0..4).filter(|&axis| bias_shape[axis] == 1);
        let sum = axes.fold(grad_scores.clone(), |sum, axis| B::float_sum_dim(sum, axis));
        cast::<B>(sum, bias_dtype)
    });
    let grad_scores = match slope {
        None => grad_scores,
        Some(slope) => B::float_mul(grad_scores, slope),
    };
    let grad_scores = B::float_mul_scalar(grad_scores, options.scale.into());
    let grad_scores = cast::<B>(grad_scores, dtype);
    let grad_value = B::multiply(transposed(cast::<B>(kept, dtype)), grad);
    let grad_query = B::multiply(grad_scores.clone(), key);
    let grad_key = B::multiply(transposed(grad_scores), query);
    (
        cast::<B>(grad_query, dtype),
        cast::<B>(grad_key, key_dtype),
        cast::<B>(grad_value, value_dtype),
        grad_bias,
    )
}

/// Applies the dropout of the weights.
fn dropped<B: Backend>(
    weights: FloatTensor<B>,
    options: &AttentionOptions,
    first: usize,
) -> FloatTensor<B> {
    if options.dropout == 0.0 {
        return weights;
    }
    let mask = SeededMask::new(options.dropout, options.seed);
    drop_by_mask::<B>(weights, mask, first)
}

/// Computes `s Q Kᵀ`, capped, in f32 at least.
fn scores<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    options: &AttentionOptions,
) -> FloatTensor<B> {
    let dtype = query.dtype();
    let wide = accumulation_dtype(dtype);
    // Half precision overflows before the scores do. Otherwise, a factor on the product joins what follows it.
    let (before, after) = if dtype == wide {
        (1.0, options.scale)
    } else {
        (options.scale, 1.0)
    };
    let scaled = |tensor, factor: f64| {
        if factor == 1.0 {
            return tensor;
        }
        B::float_mul_scalar(tensor, factor.into())
    };
    let key = B::float_swap_dims(key, 2, 3);
    let scores = B::multiply(scaled(query, before), key);
    let scores = scaled(cast::<B>(scores, wide), after);
    match options.cap {
        None => scores,
        Some(cap) => {
            let share = B::float_tanh(B::float_div_scalar(scores, cap.into()));
            B::float_mul_scalar(share, cap.into())
        }
    }
}

/// Adds the bias to scores, and sets those to negative infinity whose key the causal mask or the window hides.
fn masked<B: Backend>(
    mut scores: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: &AttentionOptions,
) -> FloatTensor<B> {
    let (wide, device) = (scores.dtype(), scores.device());
    if bias.shape().num_elements() > 1 {
        scores = B::float_add(scores, cast::<B>(bias, wide));
    }
    let [_, _, queries, keys] = scores.shape().dims();
    if !options.causal {
        return scores;
    }
    assert!(keys >= queries, "{queries} causal queries of {keys} keys");
    let index = |shape, first| steps::<B>(Shape::new(shape), first, 1, IntDType::I32, &device);
    // Infinite, so that a masked key scores below one with a bias of f32's minimum.
    let hide = |scores, hidden| B::float_mask_fill(scores, hidden, f32::NEG_INFINITY.into());
    if queries > 1 {
        let last_seen = index([1, 1, queries, 1], keys - queries);
        let positions = index([1, 1, 1, keys], 0);
        let hidden = B::int_greater(positions, last_seen, bool_dtype::<B>(&device));
        scores = hide(scores, hidden);
    }
    match options.window {
        Some(window) if window < keys => {
            // Key j is hidden from query i if j + window <= i: compared as j + window < i + 1.
            let position = index([1, 1, queries, 1], keys - queries + 1);
            let end = index([1, 1, 1, keys], window);
            let hidden = B::int_lower(end, position, bool_dtype::<B>(&device));
            hide(scores, hidden)
        }
        _ => scores,
    }
}
