//! Projection with cross entropy in chunks of rows, composed of products and the operations on the rows of logits.

use super::rows::column;
use super::{CrossEntropy, HeadGradients, HeadLossOps, chunk_bytes, rows_per_chunk};
use crate::ops::constants::values;
use crate::ops::packed::{PackedLayout, PackedOps, operand};
use crate::ops::packed_composed::packed_part;
use crate::ops::precision::mixed;
use crate::ops::prelude::*;
use burn::tensor::{DType, Shape, Slice};
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
                    let (packed, scales, layout) =
                        packed_part::<B>(packed, scales, *layout, &range);
                    operand::<B>(packed, scales, layout)
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

pub(super) fn head_loss<B: HeadLossOps>(
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
    let chunk_rows = rows_per_chunk(rows, classes, chunk_bytes(rows, d));
    let (mut losses, mut nlls, mut bests, mut grad_hidden) = (vec![], vec![], vec![], vec![]);
    let mut grad_weight: Option<FloatTensor<B>> = None;
    for start in (0..rows).step_by(chunk_rows.max(1)) {
        let chunk = Slice::from(start..rows.min(start + chunk_rows));
        let x = B::float_slice(hidden.clone(), &[chunk, Slice::from(0..d)]);
        let logits = head.logits(x.clone()); // [chunk, classes]
        // The wider of the two types.
        let dtype = logits.dtype();
        let chunk_targets = B::int_slice(targets.clone(), &[chunk]);
        let gradient = requested.hidden || requested.weight;
        let scored = score::<B>(logits, chunk_targets, options, gradient);
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
pub(super) fn score_logits<B: HeadLossOps>(
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
    let scored = score::<B>(logits, targets, options, gradient);
    (
        B::float_sum(scored.loss),
        B::float_reshape(scored.nll, [rows].into()),
        B::int_reshape(scored.best, [rows].into()),
        scored.grad_logits,
    )
}

/// Results of a chunk of rows, `[rows, 1]` each except the last.
struct Scored<B: Backend> {
    loss: FloatTensor<B>,
    nll: FloatTensor<B>,
    best: IntTensor<B>,
    /// `[rows, classes]`.
    grad_logits: Option<FloatTensor<B>>,
}

/// Scores rows of logits, in f32 at least.
fn score<B: HeadLossOps>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    options: &CrossEntropy,
    gradient: bool,
) -> Scored<B> {
    let wide = accumulation_dtype(logits.dtype());
    let logits = cast::<B>(logits, wide);
    let logits = match options.logit_cap {
        None => logits,
        Some(cap) => {
            let bounded = B::float_tanh(B::float_div_scalar(logits, cap.into()));
            B::float_mul_scalar(bounded, cap.into())
        }
    };
    // The gradient of the logits takes their place, unless somebody else holds them.
    let capped = options.logit_cap.map(|cap| (cap, logits.clone()));
    let weights = options.class_weights.as_deref().unwrap_or(&[1.0]);
    let shape = Shape::new([1, weights.len()]);
    let weights = values::<B>(weights, shape, wide, &logits.device());
    let smoothing = options.label_smoothing;
    let (scores, best) = B::score_rows(logits.clone(), targets.clone(), weights.clone(), smoothing);
    let [loss, nll] = [0, 1].map(|index| column::<B>(&scores, index));
    let grad_logits = gradient.then(|| {
        let grad = B::differentiate_rows(logits, targets, weights, scores);
        match capped {
            None => grad,
            Some((cap, capped)) => {
                let bounded = B::float_div_scalar(capped, cap.into());
                let square = B::float_mul(bounded.clone(), bounded);
                let slope = B::float_add_scalar(B::float_neg(square), 1.0.into());
                B::float_mul(grad, slope)
            }
        }
    });
    Scored {
        loss,
        nll,
        best,
        grad_logits,
    }
}
