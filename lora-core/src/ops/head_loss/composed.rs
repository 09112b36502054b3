//! Projection with cross entropy, composed of operations that every backend has.
//!
//! The target class of a row is selected by a one-hot product instead of gather and scatter: with Burn 0.22.1's kernel fusion,
//! a gather on WGPU returned wrong values when a scatter into another tensor of the same product followed it.

use super::{CrossEntropy, HeadGradients, rows_per_chunk};
use crate::ops::prelude::*;
use burn::tensor::{DType, Shape, Slice, TensorData};

type Parts<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    IntTensor<B>,
    Option<FloatTensor<B>>,
    Option<FloatTensor<B>>,
);

pub(super) fn head_loss<B: Backend>(
    hidden: FloatTensor<B>,
    weight: FloatTensor<B>,
    targets: IntTensor<B>,
    options: &CrossEntropy,
    requested: HeadGradients,
) -> Parts<B> {
    let [rows, d] = hidden.shape().dims();
    let [_, classes] = weight.shape().dims();
    options.check(classes);
    let device = hidden.device();
    let wide = accumulation_dtype(hidden.dtype());
    let scorer = Scorer::<B>::new(options, &hidden);
    let chunk_rows = rows_per_chunk(rows, classes);
    let (mut losses, mut nlls, mut bests, mut grad_hidden) = (vec![], vec![], vec![], vec![]);
    let mut grad_weight: Option<FloatTensor<B>> = None;
    for start in (0..rows).step_by(chunk_rows.max(1)) {
        let chunk = Slice::from(start..rows.min(start + chunk_rows));
        let x = B::float_slice(hidden.clone(), &[chunk, Slice::from(0..d)]);
        let logits = B::float_matmul(x.clone(), weight.clone()); // [chunk, classes]
        let chunk_targets = B::int_slice(targets.clone(), &[chunk]);
        let scored = scorer.score(logits, chunk_targets, requested.hidden || requested.weight);
        losses.push(scored.loss);
        nlls.push(scored.nll);
        bests.push(scored.best);
        let Some(grad_logits) = scored.grad_logits else {
            continue;
        };
        let grad_logits = B::float_cast(grad_logits, weight.dtype().into());
        if requested.weight {
            let part = B::float_matmul(B::float_swap_dims(x, 0, 1), grad_logits.clone());
            grad_weight = Some(match grad_weight.take() {
                None => part,
                Some(sum) => B::float_add(sum, part),
            });
        }
        if requested.hidden {
            let transposed = B::float_swap_dims(weight.clone(), 0, 1);
            grad_hidden.push(B::float_matmul(grad_logits, transposed));
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
                .then(|| zeros([d, classes].into(), weight.dtype())),
        );
    }
    let column = |parts| B::float_reshape(B::float_cat(parts, 0), [rows].into());
    (
        B::float_sum(B::float_cat(losses, 0)),
        column(nlls),
        B::int_reshape(B::int_cat(bests, 0), [rows].into()),
        requested.hidden.then(|| B::float_cat(grad_hidden, 0)),
        grad_weight,
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
        let class_weights = options.class_weights.as_ref().map(|weights| {
            let data = TensorData::new(weights.clone(), [1, weights.len()]);
            B::float_cast(B::float_from_data(data, &like.device()), wide.into())
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
        let int = targets.dtype().into();
        let targets = B::int_reshape(targets, [rows, 1].into());
        let device = logits.device();
        // 1 for rows with a target, else 0.
        let counts = B::int_add_scalar(targets.clone(), 1.into());
        let counts = B::int_into_float(B::int_clamp(counts, 0.into(), 1.into()), self.wide.into());
        // 1 at the target class of a row, else 0; `counts` masks rows without a target.
        let classes_in_order = B::int_arange(0..classes as i64, &device, int);
        let classes_in_order = B::int_reshape(classes_in_order, [1, classes].into());
        let distance = B::int_abs(B::int_sub(
            B::int_expand(classes_in_order, [rows, classes].into()),
            B::int_expand(targets, [rows, classes].into()),
        ));
        let other = B::int_into_float(B::int_clamp_max(distance, 1.into()), self.wide.into());
        let one_hot = B::float_add_scalar(B::float_neg(other), 1.0.into());
        let at_target = |all| B::float_sum_dim(B::float_mul(all, one_hot.clone()), 1);

        let best = B::float_argmax(logits.clone(), 1, int);
        let shifted = B::float_sub(logits.clone(), B::float_max_dim(logits, 1));
        let powers = B::float_exp(shifted.clone());
        let sum = B::float_sum_dim(powers.clone(), 1);
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
        let mut loss = B::float_mul(nll.clone(), hard.clone());
        let share = self.smoothing / classes as f64;
        if self.smoothing > 0.0 {
            let all = self.weighted(B::float_sub(log_sum, shifted)); // -log p
            let soft = B::float_mul(B::float_sum_dim(all, 1), counts.clone());
            loss = B::float_add(loss, B::float_mul_scalar(soft, share.into()));
        }
        let grad_logits = gradient.then(|| {
            let mut factor = hard.clone();
            if self.smoothing > 0.0 {
                let total = match &self.class_weights {
                    None => B::float_mul_scalar(counts.clone(), self.smoothing.into()),
                    Some(weights) => {
                        let total = B::float_sum_dim(weights.clone(), 1); // [1, 1]
                        let total = B::float_mul_scalar(total, share.into());
                        B::float_mul(counts.clone(), total)
                    }
                };
                factor = B::float_add(factor, total);
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
