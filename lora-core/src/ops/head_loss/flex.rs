//! Projection with cross entropy on the CPU: one buffer of logits; each row's loss and gradient while the row is in the cache.

use super::composed::{self, Head};
use super::{CrossEntropy, HeadGradients, HeadLossOps, MOST_CHUNK_BYTES, rows_per_chunk};
use crate::ops::gemm::{Matrix, add_product, append_product};
use crate::ops::kernels::{dot, exp_in_place, largest, sum_map, tanh};
use crate::ops::packed::PackedLayout;
use crate::ops::packed_product::PackedMatrix;
use crate::ops::precision::mixed;
use burn::backend::{
    Flex,
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{DType, TensorData};
use pulp::Arch;
use rayon::prelude::*;

impl HeadLossOps for Flex {
    fn head_loss_and_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: CrossEntropy,
        requested: HeadGradients,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        IntTensor<Self>,
        Option<FloatTensor<Self>>,
        Option<FloatTensor<Self>>,
    ) {
        if [hidden.dtype(), weight.dtype()] != [DType::F32; 2] {
            let head = Head::<Self>::Dense(weight);
            return composed::head_loss(hidden, head, targets, &options, requested);
        }
        let w = Projection::Dense(Matrix::from_tensor(&weight));
        score_tensors(hidden, w, targets, &options, requested)
    }

    fn packed_head_loss_and_gradient(
        hidden: FloatTensor<Self>,
        packed: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
        targets: IntTensor<Self>,
        options: CrossEntropy,
        requested: HeadGradients,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        IntTensor<Self>,
        Option<FloatTensor<Self>>,
    ) {
        let (loss, nll, best, gradient, _) =
            if [hidden.dtype(), scales.dtype()] == [DType::F32; 2] && mixed().is_none() {
                let (packed, scales) = (packed.to_contiguous(), scales.to_contiguous());
                let (words, scales) = (packed.storage::<i32>(), scales.storage::<f32>());
                let w = Projection::Packed(PackedMatrix::new(words, scales, layout));
                score_tensors(hidden, w, targets, &options, requested)
            } else {
                let head = Head::<Self>::Packed(packed, scales, layout);
                composed::head_loss(hidden, head, targets, &options, requested)
            };
        (loss, nll, best, gradient)
    }
}

/// Computes loss and gradients of tensors.
fn score_tensors(
    hidden: FloatTensor<Flex>,
    w: Projection<'_>,
    targets: IntTensor<Flex>,
    options: &CrossEntropy,
    requested: HeadGradients,
) -> composed::Parts<Flex> {
    let int = targets.dtype();
    let classes: Vec<i64> = targets.into_data().iter::<i64>().collect();
    let x = Matrix::from_tensor(&hidden);
    let chunk_rows = rows_per_chunk(classes.len(), w.shape()[1], MOST_CHUNK_BYTES);
    let results = score_rows(x, w, &classes, options, requested, chunk_rows);
    let tensor = |values: Vec<f32>, shape: &[usize]| {
        FloatTensor::<Flex>::from_data(TensorData::new(values, shape))
    };
    let rows = classes.len();
    let best = TensorData::new(results.best, [rows]).convert_dtype(int);
    (
        tensor(vec![results.loss as f32], &[1]),
        tensor(results.nll, &[rows]),
        IntTensor::<Flex>::from_data(best),
        results.grad_hidden.map(|values| tensor(values, &x.shape())),
        results.grad_weight.map(|values| tensor(values, &w.shape())),
    )
}

/// Weight of the projection, `[d, classes]`, in host memory.
#[derive(Clone, Copy)]
enum Projection<'a> {
    Dense(Matrix<'a>),
    Packed(PackedMatrix<'a>),
}

impl Projection<'_> {
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(w) => w.shape(),
            Self::Packed(w) => w.shape(),
        }
    }

    /// Appends `x W`, and returns the appended values.
    fn append_logits<'o>(&self, out: &'o mut Vec<f32>, x: Matrix<'_>) -> &'o mut [f32] {
        match self {
            Self::Dense(w) => append_product(out, x, *w),
            Self::Packed(w) => w.append_product(out, x),
        }
    }

    /// Appends `g Wᵀ`.
    fn append_backward(&self, out: &mut Vec<f32>, g: Matrix<'_>) {
        match self {
            Self::Dense(w) => {
                append_product(out, g, w.transposed());
            }
            Self::Packed(w) => w.append_product_transposed(out, g),
        }
    }
}

#[derive(Default)]
struct HeadResults {
    loss: f64,
    nll: Vec<f32>,
    best: Vec<i64>,
    grad_hidden: Option<Vec<f32>>,
    grad_weight: Option<Vec<f32>>,
}

fn score_rows(
    x: Matrix<'_>,
    w: Projection<'_>,
    targets: &[i64],
    options: &CrossEntropy,
    requested: HeadGradients,
    chunk_rows: usize,
) -> HeadResults {
    let ([rows, d], [inner, classes]) = (x.shape(), w.shape());
    assert_eq!(d, inner, "hidden states of {d} features, a head of {inner}");
    assert_eq!(targets.len(), rows, "a target for each row");
    options.check(classes);
    let scorer = Scorer::new(options, classes, requested.hidden || requested.weight);
    let chunk_rows = chunk_rows.max(1);
    let mut results = HeadResults {
        grad_hidden: requested.hidden.then(|| Vec::with_capacity(rows * d)),
        grad_weight: requested.weight.then(|| vec![0.0; d * classes]),
        ..HeadResults::default()
    };
    let mut buffer: Vec<f32> = Vec::with_capacity(chunk_rows * classes);
    for (chunk, targets) in targets.chunks(chunk_rows).enumerate() {
        let x = x.rows(chunk * chunk_rows, targets.len());
        buffer.clear();
        let logits = w.append_logits(&mut buffer, x);
        let scores: Vec<Row> = (logits.par_chunks_mut(classes).zip(targets))
            .map(|(row, &target)| {
                Arch::new().dispatch(
                    #[inline(always)]
                    || scorer.score_capped(row, target),
                )
            })
            .collect();
        for row in scores {
            results.loss += row.loss;
            results.nll.push(row.nll);
            results.best.push(row.best);
        }
        let grad_logits = Matrix::new(logits, [targets.len(), classes]);
        if let Some(sum) = &mut results.grad_weight {
            add_product(sum, 1.0, x.transposed(), grad_logits);
        }
        if let Some(gradient) = &mut results.grad_hidden {
            w.append_backward(gradient, grad_logits);
        }
    }
    results
}

/// Options of the loss, prepared for the rows.
struct Scorer<'a> {
    /// `1 - ε`.
    hard: f64,
    /// `ε/K`.
    share: f64,
    weights: Option<&'a [f32]>,
    /// `Σ c`.
    total: f64,
    gradient: bool,
    cap: Option<f32>,
}

/// Results of one row.
struct Row {
    loss: f64,
    nll: f32,
    best: i64,
}

impl<'a> Scorer<'a> {
    fn new(options: &'a CrossEntropy, classes: usize, gradient: bool) -> Self {
        let weights = options.class_weights.as_deref();
        Self {
            hard: 1.0 - options.label_smoothing,
            share: options.label_smoothing / classes as f64,
            weights,
            total: match weights {
                None => classes as f64,
                Some(weights) => weights.iter().map(|&c| f64::from(c)).sum(),
            },
            gradient,
            cap: options.logit_cap.map(|cap| cap as f32),
        }
    }

    /// Caps a row of logits, computes its loss, and replaces the row by its gradient if requested.
    #[inline(always)]
    fn score_capped(&self, row: &mut [f32], target: i64) -> Row {
        let Some(cap) = self.cap else {
            return self.score(row, target);
        };
        let mut slopes = Vec::new();
        row.iter_mut().for_each(|z| *z = tanh(*z / cap));
        if self.gradient {
            slopes.extend(row.iter().map(|bounded| 1.0 - bounded * bounded));
        }
        row.iter_mut().for_each(|z| *z *= cap);
        let result = self.score(row, target);
        for (z, slope) in row.iter_mut().zip(slopes) {
            *z *= slope;
        }
        result
    }

    /// Computes the loss of a row of capped logits, and replaces the row by its gradient if requested.
    #[inline(always)]
    fn score(&self, row: &mut [f32], target: i64) -> Row {
        let max = largest(row);
        let best = row.iter().position(|&x| x == max).unwrap_or(0) as i64;
        let Ok(target) = usize::try_from(target) else {
            row.fill(0.0);
            return Row {
                loss: 0.0,
                nll: 0.0,
                best,
            };
        };
        let own = f64::from(row[target]) - f64::from(max);
        let weight = self
            .weights
            .map_or(1.0, |weights| f64::from(weights[target]));
        let hard = self.hard * weight;
        // Σ c_k (z_k - max).
        let spread = match (self.share > 0.0, self.weights) {
            (false, _) => 0.0,
            (true, None) => f64::from(sum_map(row, |z| z - max)),
            (true, Some(weights)) => f64::from(dot(row, weights)) - self.total * f64::from(max),
        };
        let sum = exp_in_place(row, max);
        let log_sum = sum.ln();
        if self.gradient {
            let factor = ((hard + self.share * self.total) / sum) as f32;
            let share = self.share as f32;
            match self.weights {
                None => row.iter_mut().for_each(|z| *z = *z * factor - share),
                Some(weights) => {
                    for (z, c) in row.iter_mut().zip(weights) {
                        *z = *z * factor - share * c;
                    }
                }
            }
            row[target] -= hard as f32;
        }
        Row {
            loss: hard * (log_sum - own) + self.share * (self.total * log_sum - spread),
            nll: (log_sum - own) as f32,
            best,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, salt: f32) -> Vec<f32> {
        let value = |i: usize| ((i as f32 + 1.0) * 0.7311 + salt).sin();
        (0..count).map(value).collect()
    }

    #[test]
    fn the_size_of_a_chunk_changes_nothing() {
        let (rows, d, classes) = (11, 4, 37);
        let (x, w) = (values(rows * d, 0.1), values(d * classes, 0.2));
        let x = Matrix::new(&x, [rows, d]);
        let w = Projection::Dense(Matrix::new(&w, [d, classes]));
        let targets = [3, 36, -1, 0, 5, 5, 17, -1, 20, 1, 30];
        let options = CrossEntropy::new(0.1);
        let requested = HeadGradients {
            hidden: true,
            weight: true,
        };
        let whole = score_rows(x, w, &targets, &options, requested, rows);
        for chunk_rows in [1, 4, 10] {
            let chunks = score_rows(x, w, &targets, &options, requested, chunk_rows);
            assert!((chunks.loss - whole.loss).abs() < 1e-5);
            assert_eq!(chunks.best, whole.best);
            let pairs = [
                (&chunks.nll, &whole.nll),
                (
                    chunks.grad_hidden.as_ref().unwrap(),
                    whole.grad_hidden.as_ref().unwrap(),
                ),
                (
                    chunks.grad_weight.as_ref().unwrap(),
                    whole.grad_weight.as_ref().unwrap(),
                ),
            ];
            for (chunks, whole) in pairs {
                assert_eq!(chunks.len(), whole.len());
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
                assert!(chunks.iter().zip(whole).all(near), "{chunk_rows}");
            }
        }
    }
}
