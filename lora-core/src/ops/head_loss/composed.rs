//! Projection with cross entropy, composed of operations that every backend has.
//!
//! The target class of a row is selected by a one-hot product instead of gather and scatter: with Burn 0.22.1's kernel fusion,
//! a gather on WGPU returned wrong values when a scatter into another tensor of the same product followed it. The product is
//! arithmetic: a selection by `int_equal` and `mask_where` fused to a gradient that was off by 1 % on software Vulkan.

use super::{COMPOSED_BYTES, CrossEntropy, HeadGradients, rows_per_chunk};
use crate::ops::constants::{bool_dtype, steps, values};
use crate::ops::packed::{PackedLayout, PackedOps, operand};
use crate::ops::packed_composed::packed_part;
use crate::ops::precision::mixed;
use crate::ops::prelude::*;
use crate::ops::stages::{reduce_rows, stages};
use burn::tensor::{DType, IntDType, Shape, Slice};
use std::iter::once;
use std::ops::Range;

/// Loss, negative log-likelihoods, most likely classes, and the gradients of hidden states and weight.
pub(super) type Parts<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    IntTensor<B>,
    Option<FloatTensor<B>>,
    Option<FloatTensor<B>>,
);

/// Weight of the projection, `[d, classes]`.
pub(super) enum Head<B: PackedOps> {
    /// Floats.
    Dense(FloatTensor<B>),
    /// Packed values with their scales, which are unpacked part by part.
    Packed(IntTensor<B>, FloatTensor<B>, PackedLayout),
}

impl<B: PackedOps> Head<B> {
    fn classes(&self) -> usize {
        match self {
            Self::Dense(weight) => weight.shape()[1],
            Self::Packed(_, _, layout) => layout.d_out,
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Self::Dense(weight) => weight.dtype(),
            Self::Packed(_, scales, _) => scales.dtype(),
        }
    }

    /// Returns the weight in parts, with the classes of each.
    fn parts(&self) -> Vec<(Range<usize>, impl FnOnce() -> FloatTensor<B>)> {
        let parts = match self {
            Self::Dense(weight) => once(0..weight.shape()[1]).collect(),
            // Nothing is unpacked where the packed values are the operand.
            Self::Packed(_, _, layout) if is_operand(*layout) => once(0..layout.d_out).collect(),
            Self::Packed(_, _, layout) => layout.parts(),
        };
        let part = |classes: Range<usize>| {
            let range = classes.clone();
            let values = move || match self {
                Self::Dense(weight) => weight.clone(),
                Self::Packed(packed, scales, layout) => {
                    let (packed, layout) = packed_part::<B>(packed, *layout, &range);
                    operand::<B>(packed, scales.clone(), layout)
                }
            };
            (classes, values)
        };
        parts.into_iter().map(part).collect()
    }

    /// Returns `x W`.
    fn logits(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let products = self.parts().into_iter();
        let products = products.map(|(_, part)| B::multiply(x.clone(), part()));
        joined(products.collect(), |products| B::float_cat(products, 1))
    }

    /// Returns `g Wᵀ`.
    fn backward(&self, grad: FloatTensor<B>) -> FloatTensor<B> {
        let [rows, classes] = grad.shape().dims();
        let products = self.parts().into_iter().map(|(outputs, part)| {
            let grad = if outputs.len() == classes {
                grad.clone()
            } else {
                B::float_slice(grad.clone(), &[Slice::from(0..rows), Slice::from(outputs)])
            };
            B::multiply(grad, B::float_swap_dims(part(), 0, 1))
        });
        let sum = products.reduce(B::float_add);
        sum.expect("a weight has a part")
    }
}

/// Returns true if packed values are the operand of a product as they are.
fn is_operand(layout: PackedLayout) -> bool {
    mixed().is_some_and(|half| half.format() == layout.format)
}

/// Joins tensors, of which there is at least one.
fn joined<T>(mut tensors: Vec<T>, join: impl FnOnce(Vec<T>) -> T) -> T {
    if tensors.len() == 1 {
        tensors.remove(0)
    } else {
        join(tensors)
    }
}

pub(super) fn head_loss<B: PackedOps>(
    hidden: FloatTensor<B>,
    head: Head<B>,
    targets: IntTensor<B>,
    options: &CrossEntropy,
    requested: HeadGradients,
) -> Parts<B> {
    let [rows, d] = hidden.shape().dims();
    let classes = head.classes();
    options.check(classes);
    let device = hidden.device();
    let wide = accumulation_dtype(hidden.dtype());
    let scorer = Scorer::<B>::new(options, &hidden);
    let chunk_rows = rows_per_chunk(rows, classes, COMPOSED_BYTES);
    let (mut losses, mut nlls, mut bests, mut grad_hidden) = (vec![], vec![], vec![], vec![]);
    let mut grad_weight: Option<FloatTensor<B>> = None;
    for start in (0..rows).step_by(chunk_rows.max(1)) {
        let chunk = Slice::from(start..rows.min(start + chunk_rows));
        let x = B::float_slice(hidden.clone(), &[chunk, Slice::from(0..d)]);
        let logits = head.logits(x.clone()); // [chunk, classes]
        // The wider of the two types.
        let dtype = logits.dtype();
        let chunk_targets = B::int_slice(targets.clone(), &[chunk]);
        let scored = scorer.score(logits, chunk_targets, requested.hidden || requested.weight);
        losses.push(scored.loss);
        nlls.push(scored.nll);
        bests.push(scored.best);
        let Some(grad_logits) = scored.grad_logits else {
            continue;
        };
        let grad_logits = cast::<B>(grad_logits, dtype);
        if requested.weight {
            let part = B::multiply(B::float_swap_dims(x, 0, 1), grad_logits.clone());
            grad_weight = Some(match grad_weight.take() {
                None => part,
                Some(sum) => B::float_add(sum, part),
            });
        }
        if requested.hidden {
            let part = head.backward(grad_logits);
            grad_hidden.push(cast::<B>(part, hidden.dtype()));
        }
    }
    if losses.is_empty() {
        let zeros = |shape: Shape, dtype: DType| B::float_zeros(shape, &device, dtype.into());
        return (
            zeros([1].into(), wide),
            zeros([0].into(), wide),
            targets,
            requested
                .hidden
                .then(|| zeros([0, d].into(), hidden.dtype())),
            requested
                .weight
                .then(|| zeros([d, classes].into(), head.dtype())),
        );
    }
    let column = |parts| B::float_reshape(B::float_cat(parts, 0), [rows].into());
    (
        B::float_sum(B::float_cat(losses, 0)),
        column(nlls),
        B::int_reshape(B::int_cat(bests, 0), [rows].into()),
        requested.hidden.then(|| B::float_cat(grad_hidden, 0)),
        grad_weight.map(|sum| cast::<B>(sum, head.dtype())),
    )
}

#[allow(clippy::type_complexity)] // The results of `HeadLossOps::score_logits`.
pub(super) fn score_logits<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    options: &CrossEntropy,
    gradient: bool,
) -> (
    FloatTensor<B>,
    FloatTensor<B>,
    IntTensor<B>,
    Option<FloatTensor<B>>,
) {
    let [rows, classes] = logits.shape().dims();
    options.check(classes);
    let scored = Scorer::<B>::new(options, &logits).score(logits, targets, gradient);
    (
        B::float_sum(scored.loss),
        B::float_reshape(scored.nll, [rows].into()),
        B::int_reshape(scored.best, [rows].into()),
        scored.grad_logits,
    )
}

/// Returns the class with the highest logit in each row, `[rows, 1]`; the first of several.
fn best_classes<B: Backend>(logits: &FloatTensor<B>, int: IntDType) -> IntTensor<B> {
    let [rows, classes] = logits.shape().dims();
    if stages(classes).count() < 2 {
        return B::float_argmax(logits.clone(), 1, int);
    }
    let bools = bool_dtype::<B>(&logits.device());
    let part = |classes: Range<usize>| {
        let range = [Slice::from(0..rows), Slice::from(classes.clone())];
        let part = B::float_slice(logits.clone(), &range);
        let best = B::int_add_scalar(
            B::float_argmax(part.clone(), 1, int),
            (classes.start as i64).into(),
        );
        (B::float_max_dim(part, 1), best)
    };
    let parts = stages(classes).map(part);
    let found = parts.reduce(|(highest, best), (value, index)| {
        let higher = B::float_greater(value.clone(), highest.clone(), bools);
        (
            B::float_mask_where(highest, higher.clone(), value),
            B::int_mask_where(best, higher, index),
        )
    });
    found.expect("there is a class").1
}

struct Scorer<B: Backend> {
    smoothing: f64,
    /// `[1, classes]`.
    class_weights: Option<FloatTensor<B>>,
    wide: DType,
}

/// Results of a chunk of rows, `[rows, 1]` each except the last.
struct Scored<B: Backend> {
    loss: FloatTensor<B>,
    nll: FloatTensor<B>,
    best: IntTensor<B>,
    /// `[rows, classes]`.
    grad_logits: Option<FloatTensor<B>>,
}

impl<B: Backend> Scorer<B> {
    /// Creates a scorer with device and type for `like`.
    fn new(options: &CrossEntropy, like: &FloatTensor<B>) -> Self {
        let wide = accumulation_dtype(like.dtype());
        let class_weights = options.class_weights.as_ref();
        let class_weights = class_weights.map(|weights| {
            let shape = Shape::new([1, weights.len()]);
            values::<B>(weights, shape, wide, &like.device())
        });
        Self {
            smoothing: options.label_smoothing,
            class_weights,
            wide,
        }
    }

    /// Multiplies by the class weights, if there are any.
    fn weighted(&self, all: FloatTensor<B>) -> FloatTensor<B> {
        match &self.class_weights {
            None => all,
            Some(weights) => B::float_mul(all, weights.clone()),
        }
    }

    fn score(&self, logits: FloatTensor<B>, targets: IntTensor<B>, gradient: bool) -> Scored<B> {
        let [rows, classes] = logits.shape().dims();
        let logits = B::float_cast(logits, self.wide.into());
        let int: IntDType = targets.dtype().into();
        let targets = B::int_reshape(targets, [rows, 1].into());
        let device = logits.device();
        // 1 for rows with a target, else 0.
        let counts = B::int_add_scalar(targets.clone(), 1.into());
        let counts = B::int_into_float(B::int_clamp(counts, 0.into(), 1.into()), self.wide.into());
        // 1 at the target class of a row, else 0; `counts` masks rows without a target.
        let classes_in_order = steps::<B>(Shape::new([1, classes]), 0, 1, int, &device);
        let distance = B::int_abs(B::int_sub(
            B::int_expand(classes_in_order, [rows, classes].into()),
            B::int_expand(targets, [rows, classes].into()),
        ));
        let other = B::int_into_float(B::int_clamp_max(distance, 1.into()), self.wide.into());
        let one_hot = B::float_add_scalar(B::float_neg(other), 1.0.into());
        let sum_rows = |all| reduce_rows::<B>(all, |part| B::float_sum_dim(part, 1));
        let at_target = |all| sum_rows(B::float_mul(all, one_hot.clone()));

        let best = best_classes::<B>(&logits, int);
        let highest = reduce_rows::<B>(logits.clone(), |part| B::float_max_dim(part, 1));
        let shifted = B::float_sub(logits, highest);
        let powers = B::float_exp(shifted.clone());
        let sum = sum_rows(powers.clone());
        let log_sum = B::float_log(sum.clone());
        let own = at_target(shifted.clone());
        let nll = B::float_mul(B::float_sub(log_sum.clone(), own), counts.clone());

        // (1 - ε) c_y, zero for rows without a target.
        let hard = 1.0 - self.smoothing;
        let hard = match &self.class_weights {
            None => B::float_mul_scalar(counts.clone(), hard.into()),
            Some(weights) => {
                let all = B::float_expand(weights.clone(), [rows, classes].into());
                B::float_mul_scalar(B::float_mul(at_target(all), counts.clone()), hard.into())
            }
        };
        // Σ c, or its scalar without class weights.
        let times_total = |column: FloatTensor<B>| match &self.class_weights {
            None => B::float_mul_scalar(column, (classes as f64).into()),
            Some(weights) => B::float_mul(column, sum_rows(weights.clone())), // [1, 1]
        };
        let share = self.smoothing / classes as f64;
        let mut loss = B::float_mul(nll.clone(), hard.clone());
        if self.smoothing > 0.0 {
            // Σ c (-log p) from two sums: kernel fusion computed the sum of the differences wrong.
            let all = sum_rows(self.weighted(shifted));
            let all = B::float_sub(times_total(log_sum), all);
            let soft = B::float_mul(all, counts.clone());
            loss = B::float_add(loss, B::float_mul_scalar(soft, share.into()));
        }
        let grad_logits = gradient.then(|| {
            let mut factor = hard.clone();
            if self.smoothing > 0.0 {
                let total = B::float_mul_scalar(counts.clone(), share.into());
                factor = B::float_add(factor, times_total(total));
            }
            let mut gradient = B::float_mul(powers, B::float_div(factor, sum));
            if self.smoothing > 0.0 {
                let spread = self.weighted(B::float_mul_scalar(counts, share.into()));
                gradient = B::float_sub(gradient, spread);
            }
            B::float_sub(gradient, B::float_mul(one_hot, hard))
        });
        Scored {
            loss,
            nll,
            best,
            grad_logits,
        }
    }
}
