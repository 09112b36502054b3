//! On the CPU: one buffer of logits, and a row's loss and gradient while the row is in the cache.

use super::{CrossEntropy, HeadGradients, HeadLossOps, composed, rows_at_once};
use crate::ops::gemm::{Matrix, add_product, product};
use crate::ops::kernels::{dot, exp_in_place, largest, sum_of};
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
        wanted: HeadGradients,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        IntTensor<Self>,
        Option<FloatTensor<Self>>,
        Option<FloatTensor<Self>>,
    ) {
        if [hidden.dtype(), weight.dtype()] != [DType::F32; 2] {
            return composed::head_loss::<Self>(hidden, weight, targets, &options, wanted);
        }
        let int = targets.dtype();
        let classes: Vec<i64> = targets.into_data().iter::<i64>().collect();
        let (x, w) = (Matrix::of(&hidden), Matrix::of(&weight));
        let at_once = rows_at_once(classes.len(), w.shape()[1]);
        let found = of_rows(x, w, &classes, &options, wanted, at_once);
        let tensor = |values: Vec<f32>, shape: &[usize]| {
            FloatTensor::<Self>::from_data(TensorData::new(values, shape))
        };
        let rows = classes.len();
        let best = TensorData::new(found.best, [rows]).convert_dtype(int);
        (
            tensor(vec![found.loss as f32], &[1]),
            tensor(found.nll, &[rows]),
            IntTensor::<Self>::from_data(best),
            found.of_hidden.map(|values| tensor(values, &x.shape())),
            found.of_weight.map(|values| tensor(values, &w.shape())),
        )
    }
}

#[derive(Default)]
struct Found {
    loss: f64,
    nll: Vec<f32>,
    best: Vec<i64>,
    of_hidden: Option<Vec<f32>>,
    of_weight: Option<Vec<f32>>,
}

fn of_rows(
    x: Matrix<'_>,
    w: Matrix<'_>,
    targets: &[i64],
    options: &CrossEntropy,
    wanted: HeadGradients,
    at_once: usize,
) -> Found {
    let ([rows, d], [inner, classes]) = (x.shape(), w.shape());
    assert_eq!(d, inner, "hidden states of {d} features, a head of {inner}");
    assert_eq!(targets.len(), rows, "a target for each row");
    options.check(classes);
    let scorer = Scorer::new(options, classes, wanted.hidden || wanted.weight);
    let at_once = at_once.max(1);
    let mut found = Found {
        of_hidden: wanted.hidden.then(|| Vec::with_capacity(rows * d)),
        of_weight: wanted.weight.then(|| vec![0.0; d * classes]),
        ..Found::default()
    };
    let mut buffer: Vec<f32> = Vec::with_capacity(at_once * classes);
    for (lot, targets) in targets.chunks(at_once).enumerate() {
        let x = x.rows(lot * at_once, targets.len());
        let room = &mut buffer.spare_capacity_mut()[..targets.len() * classes];
        let logits = product(room, x, w);
        let scores: Vec<Row> = (logits.par_chunks_mut(classes).zip(targets))
            .map(|(row, &target)| {
                Arch::new().dispatch(
                    #[inline(always)]
                    || scorer.score(row, target),
                )
            })
            .collect();
        for row in scores {
            found.loss += row.loss;
            found.nll.push(row.nll);
            found.best.push(row.best);
        }
        let of_logits = Matrix::new(logits, [targets.len(), classes]);
        if let Some(sum) = &mut found.of_weight {
            add_product(sum, 1.0, x.transposed(), of_logits);
        }
        if let Some(gradient) = &mut found.of_hidden {
            let (start, size) = (gradient.len(), targets.len() * d);
            let room = &mut gradient.spare_capacity_mut()[..size];
            product(room, of_logits, w.transposed());
            // SAFETY: `product` has written all of it.
            unsafe { gradient.set_len(start + size) };
        }
    }
    found
}

/// What the loss of every row has in common.
struct Scorer<'a> {
    /// `1 - ε`.
    hard: f64,
    /// `ε/K`.
    share: f64,
    weights: Option<&'a [f32]>,
    /// `Σ c`.
    total: f64,
    gradient: bool,
}

/// What is known of a row.
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
        }
    }

    /// Reads a row of logits, and leaves its gradient there if that is wanted.
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
        // Σ c_k z_k, from the largest z on.
        let spread = match (self.share > 0.0, self.weights) {
            (false, _) => 0.0,
            (true, None) => f64::from(sum_of(row, |z| z - max)),
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
    fn the_size_of_a_lot_changes_nothing() {
        let (rows, d, classes) = (11, 4, 37);
        let (x, w) = (values(rows * d, 0.1), values(d * classes, 0.2));
        let (x, w) = (Matrix::new(&x, [rows, d]), Matrix::new(&w, [d, classes]));
        let targets = [3, 36, -1, 0, 5, 5, 17, -1, 20, 1, 30];
        let options = CrossEntropy::new(0.1);
        let wanted = HeadGradients {
            hidden: true,
            weight: true,
        };
        let whole = of_rows(x, w, &targets, &options, wanted, rows);
        for at_once in [1, 4, 10] {
            let lots = of_rows(x, w, &targets, &options, wanted, at_once);
            assert!((lots.loss - whole.loss).abs() < 1e-5);
            assert_eq!(lots.best, whole.best);
            let pairs = [
                (&lots.nll, &whole.nll),
                (
                    lots.of_hidden.as_ref().unwrap(),
                    whole.of_hidden.as_ref().unwrap(),
                ),
                (
                    lots.of_weight.as_ref().unwrap(),
                    whole.of_weight.as_ref().unwrap(),
                ),
            ];
            for (lots, whole) in pairs {
                assert_eq!(lots.len(), whole.len());
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-5;
                assert!(lots.iter().zip(whole).all(near), "{at_once}");
            }
        }
    }
}
