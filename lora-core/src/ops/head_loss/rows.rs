//! Cross entropy of logits row by row, composed of operations that every backend has.

use super::SCORES;
use crate::ops::constants::steps;
use crate::ops::prelude::*;
use burn::tensor::{IntDType, Shape, Slice};

/// Computes the scores of each row and its most likely class: see [`HeadLossOps::score_rows`](super::HeadLossOps::score_rows).
pub(super) fn score_rows<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    smoothing: f64,
) -> (FloatTensor<B>, IntTensor<B>) {
    let [_, classes] = logits.shape().dims();
    let one_hot = one_hot::<B>(&logits, targets.clone());
    let counts = counts::<B>(&logits, targets.clone());
    let at_target = |all| B::float_sum_dim(B::float_mul(all, one_hot.clone()), 1);

    let best = B::float_argmax(logits.clone(), 1, targets.dtype().into());
    let highest = B::float_max_dim(logits.clone(), 1);
    let shifted = B::float_sub(logits, highest.clone());
    let sum = B::float_sum_dim(B::float_exp(shifted.clone()), 1);
    let log_sum = B::float_log(sum.clone());
    let nll = B::float_sub(log_sum.clone(), at_target(shifted.clone()));
    let nll = B::float_mul(nll, counts.clone());

    let all_weights = B::float_expand(weights, shifted.shape());
    // (1 - ε) c_y, zero for rows without a target.
    let own = B::float_mul(at_target(all_weights.clone()), counts.clone());
    let hard = B::float_mul_scalar(own, (1.0 - smoothing).into());
    let share = B::float_mul_scalar(counts.clone(), (smoothing / classes as f64).into());
    let mut loss = B::float_mul(nll.clone(), hard.clone());
    let mut factor = hard.clone();
    if smoothing > 0.0 {
        let total = B::float_sum_dim(all_weights.clone(), 1);
        let spread = B::float_sum_dim(B::float_mul(shifted, all_weights), 1);
        let all = B::float_sub(B::float_mul(total.clone(), log_sum), spread);
        loss = B::float_add(loss, B::float_mul(all, share.clone()));
        factor = B::float_add(factor, B::float_mul(total, share.clone()));
    }
    let factor = B::float_div(factor, sum);
    let scores = B::float_cat(vec![loss, nll, highest, factor, hard, share], 1);
    (scores, best)
}

/// Computes the gradient of the logits: see [`HeadLossOps::differentiate_rows`](super::HeadLossOps::differentiate_rows).
pub(super) fn differentiate_rows<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    scores: FloatTensor<B>,
) -> FloatTensor<B> {
    let one_hot = one_hot::<B>(&logits, targets);
    let [highest, factor, hard, share] = [2, 3, 4, 5].map(|index| column::<B>(&scores, index));
    let powers = B::float_exp(B::float_sub(logits, highest));
    let gradient = B::float_mul(powers, factor);
    let gradient = B::float_sub(gradient, B::float_mul(share, weights));
    B::float_sub(gradient, B::float_mul(one_hot, hard))
}

/// Returns a column of the scores, `[rows, 1]`.
pub(super) fn column<B: Backend>(scores: &FloatTensor<B>, index: usize) -> FloatTensor<B> {
    let [rows, found] = scores.shape().dims();
    debug_assert_eq!(found, SCORES);
    let slices = [Slice::from(0..rows), Slice::from(index..index + 1)];
    B::float_slice(scores.clone(), &slices)
}

/// Returns 1 for rows with a target, else 0, `[rows, 1]`.
fn counts<B: Backend>(logits: &FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B> {
    let [rows, _] = logits.shape().dims();
    let targets = B::int_reshape(targets, [rows, 1].into());
    let counts = B::int_clamp(B::int_add_scalar(targets, 1.into()), 0.into(), 1.into());
    B::int_into_float(counts, logits.dtype().into())
}

/// Returns 1 at the target class of a row, else 0, in the shape of the logits. A row without a target has no 1.
fn one_hot<B: Backend>(logits: &FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B> {
    let [rows, classes] = logits.shape().dims();
    let int: IntDType = targets.dtype().into();
    let targets = B::int_reshape(targets, [rows, 1].into());
    let in_order = steps::<B>(Shape::new([1, classes]), 0, 1, int, &logits.device());
    let distance = B::int_abs(B::int_sub(
        B::int_expand(in_order, [rows, classes].into()),
        B::int_expand(targets, [rows, classes].into()),
    ));
    let other = B::int_into_float(B::int_clamp_max(distance, 1.into()), logits.dtype().into());
    B::float_add_scalar(B::float_neg(other), 1.0.into())
}
