//! Attention of one head of one text, in blocks of queries.

#![expect(
    unsafe_code,
    reason = "products that are written to tiles of shared memory"
)]

use super::AttentionOptions;
use crate::ops::gemm::{Matrix, MatrixMut};
use crate::ops::kernels::{dot, exp_in_place, exp_nonpositive, largest, tanh};
use crate::ops::seeded_mask::SeededMask;
use pulp::Arch;
use std::ops::Range;

/// Number of queries in a block. Smaller with a causal mask, since a block computes some masked scores.
const QUERIES: usize = 128;
const CAUSAL_QUERIES: usize = 64;

/// Sizes and options of the attention of one head.
pub(super) struct HeadAttention {
    scale: f32,
    queries: usize,
    keys: usize,
    causal: bool,
    window: Option<usize>,
    cap: Option<f32>,
    dropout: Option<SeededMask>,
}

/// Inputs of one head: `[queries, d]`, `[keys, d]`, `[keys, d_value]`, `[queries, keys]`.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub query: Matrix<'a>,
    pub key: Matrix<'a>,
    pub value: Matrix<'a>,
    pub bias: Option<Matrix<'a>>,
    /// Index of the head among the heads of all rows.
    pub index: usize,
}

/// Output and statistics of the forward pass, and the gradient of the output: `[queries, d_value]`, `[queries, 2]`.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub output: Matrix<'a>,
    pub grad: Matrix<'a>,
    pub statistics: Matrix<'a>,
}

/// Memory for the gradients of one head of queries.
pub(super) struct QueryGradients<'a> {
    pub query: MatrixMut<'a>,
    /// `[queries, keys]`.
    pub bias: Option<MatrixMut<'a>>,
}

/// Memory for the gradients of a head of keys and values, which several heads of queries may share.
pub(super) struct KeyGradients<'a> {
    pub key: MatrixMut<'a>,
    pub value: MatrixMut<'a>,
}

/// Scratch memory for scores and their gradients, reused between blocks.
#[derive(Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    grad_scores: Vec<f32>,
}

/// Computes `factor · lhs · rhs` in scratch memory, which grows if needed.
fn scaled_product<'a>(
    factor: f32,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    scratch: &'a mut Vec<f32>,
) -> &'a mut [f32] {
    let shape = [lhs.shape()[0], rhs.shape()[1]];
    let size = shape[0] * shape[1];
    if scratch.len() < size {
        scratch.resize(size, 0.0);
    }
    let out = &mut scratch[..size];
    // SAFETY: the rows cover `out`, which is initialized.
    unsafe { MatrixMut::strided(out.as_mut_ptr(), shape, shape[1]) }.write(factor, lhs, rhs);
    out
}

/// Consecutive queries, and the keys from the first that the first of them sees to the last that the last of them sees.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    count: usize,
    first_key: usize,
    keys: usize,
}

impl HeadAttention {
    /// Creates the attention of `queries` to `keys`.
    ///
    /// # Panics
    /// Panics if causal attention has fewer keys than queries.
    pub(super) fn new(options: &AttentionOptions, queries: usize, keys: usize) -> Self {
        assert!(
            !options.causal || keys >= queries,
            "{queries} causal queries of {keys} keys"
        );
        Self {
            scale: options.scale as f32,
            queries,
            keys,
            causal: options.causal,
            window: options.window,
            cap: options.cap.map(|cap| cap as f32),
            dropout: (options.dropout > 0.0)
                .then(|| SeededMask::new(options.dropout, options.seed)),
        }
    }

    /// Returns the range of keys that a query sees.
    fn visible(&self, query: usize) -> Range<usize> {
        let end = if self.causal {
            self.keys - self.queries + query + 1
        } else {
            self.keys
        };
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = Block> {
        let most = if self.causal { CAUSAL_QUERIES } else { QUERIES };
        (0..self.queries.div_ceil(most)).map(move |index| {
            let start = index * most;
            let count = most.min(self.queries - start);
            let first_key = self.visible(start).start;
            Block {
                start,
                count,
                first_key,
                keys: self.visible(start + count - 1).end - first_key,
            }
        })
    }

    /// Returns the index of a query's first weight among all weights, for dropout.
    fn first_weight(&self, head: usize, query: usize) -> u32 {
        ((head * self.queries + query) * self.keys) as u32
    }

    /// Splits a row of a block into the keys before those that a query sees, those, and the keys behind them.
    fn split<'r>(&self, block: Block, query: usize, row: &'r mut [f32]) -> [&'r mut [f32]; 3] {
        let visible = self.visible(query);
        let (row, behind) = row.split_at_mut(visible.end - block.first_key);
        let (before, seen) = row.split_at_mut(visible.start - block.first_key);
        [before, seen, behind]
    }

    /// Computes `s Q Kᵀ` of a block, capped.
    fn scores<'a>(
        &self,
        inputs: &Inputs<'_>,
        block: Block,
        scratch: &'a mut Vec<f32>,
    ) -> &'a mut [f32] {
        let query = inputs.query.rows(block.start, block.count);
        let key = inputs.key.rows(block.first_key, block.keys);
        let scores = scaled_product(self.scale, query, key.transposed(), scratch);
        if let Some(cap) = self.cap {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    scores
                        .iter_mut()
                        .for_each(|score| *score = cap * tanh(*score / cap))
                },
            );
        }
        scores
    }

    /// Writes the output `[queries, d_value]` and the statistics, two values per query.
    pub(super) fn forward(
        &self,
        inputs: Inputs<'_>,
        mut output: MatrixMut<'_>,
        statistics: &mut [f32],
        scratch: &mut Scratch,
    ) {
        for block in self.blocks() {
            let scores = self.scores(&inputs, block, &mut scratch.scores);
            let statistics = &mut statistics[2 * block.start..2 * (block.start + block.count)];
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let rows = scores.chunks_exact_mut(block.keys);
                    let rows = rows.zip(statistics.as_chunks_mut::<2>().0);
                    for (offset, (row, statistics)) in rows.enumerate() {
                        *statistics = self.softmax_row(&inputs, block, block.start + offset, row);
                    }
                },
            );
            let scores = Matrix::new(scores, [block.count, block.keys]);
            let mut output = output.rows(block.start, block.count);
            output.write(1.0, scores, inputs.value.rows(block.first_key, block.keys));
            for offset in 0..block.count {
                let share = 1.0 / statistics[2 * offset + 1];
                // SAFETY: the product has written the row.
                let row = unsafe { output.row(offset) };
                row.iter_mut().for_each(|value| *value *= share);
            }
        }
    }

    /// Replaces a row of scores by `exp(score - maximum)` after dropout, and by zero where masked. Returns the maximum and
    /// the sum before dropout.
    #[inline(always)]
    fn softmax_row(
        &self,
        inputs: &Inputs<'_>,
        block: Block,
        query: usize,
        row: &mut [f32],
    ) -> [f32; 2] {
        let [before, visible, behind] = self.split(block, query, row);
        let first_key = self.visible(query).start;
        if let Some(bias) = inputs.bias {
            add(visible, &bias.row(query)[first_key..]);
        }
        let max = largest(visible);
        let sum = exp_in_place(visible, max);
        before.fill(0.0);
        behind.fill(0.0);
        if let Some(dropout) = self.dropout {
            let first = self.first_weight(inputs.index, query);
            let first = first.wrapping_add(first_key as u32);
            for (offset, weight) in visible.iter_mut().enumerate() {
                *weight *= dropout.factor(first.wrapping_add(offset as u32));
            }
        }
        [max, sum as f32]
    }

    /// Writes the gradients of a head of queries, and writes or adds those of its keys and values.
    ///
    /// # Safety
    /// If `add`, the gradients of keys and values have been written.
    pub(super) unsafe fn backward(
        &self,
        inputs: Inputs<'_>,
        saved: Saved<'_>,
        mut gradients: QueryGradients<'_>,
        of_keys: &mut KeyGradients<'_>,
        add: bool,
        scratch: &mut Scratch,
    ) {
        let is_partial = self.window.is_some();
        if is_partial && !add {
            for key in 0..self.keys {
                of_keys.key.rows(key, 1).fill(&[]);
                of_keys.value.rows(key, 1).fill(&[]);
            }
        }
        // Backwards: without a window, the last block sees all keys and initializes the gradients that the others add to.
        for (index, block) in self.blocks().rev().enumerate() {
            let scores = self.scores(&inputs, block, &mut scratch.scores);
            let shape = [block.count, block.keys];
            let block_grad = saved.grad.rows(block.start, block.count);
            let value = inputs.value.rows(block.first_key, block.keys);
            let grad_scores = scaled_product(
                1.0,
                block_grad,
                value.transposed(),
                &mut scratch.grad_scores,
            );
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let rows = scores.chunks_exact_mut(block.keys);
                    let rows = rows.zip(grad_scores.chunks_exact_mut(block.keys));
                    for (offset, (weights, gradient)) in rows.enumerate() {
                        let query = block.start + offset;
                        let delta = dot(saved.output.row(query), saved.grad.row(query));
                        let statistics = saved.statistics.row(query);
                        let statistics = [statistics[0], statistics[1]];
                        let row = [weights, gradient];
                        self.backward_row(&inputs, block, query, statistics, delta, row);
                    }
                },
            );
            if let Some(bias) = &mut gradients.bias {
                for (offset, gradient) in grad_scores.chunks_exact(block.keys).enumerate() {
                    bias.rows(block.start + offset, 1).fill(gradient);
                }
            }
            let (weights, grad_scores) =
                (Matrix::new(scores, shape), Matrix::new(grad_scores, shape));
            let key = inputs.key.rows(block.first_key, block.keys);
            let query = inputs.query.rows(block.start, block.count);
            let mut grad_query = gradients.query.rows(block.start, block.count);
            grad_query.write(self.scale, grad_scores, key);
            let mut grad_key = of_keys.key.rows(block.first_key, block.keys);
            let mut grad_value = of_keys.value.rows(block.first_key, block.keys);
            let add = add || is_partial || index > 0;
            let (weights, grad_scores) = (weights.transposed(), grad_scores.transposed());
            // SAFETY: the caller, the zeros or the first block have written all keys.
            unsafe { grad_key.multiply(add, self.scale, grad_scores, query, 1) };
            // SAFETY: as for the keys.
            unsafe { grad_value.multiply(add, 1.0, weights, block_grad, 1) };
        }
    }

    /// Replaces a row of scores by its weights after dropout, and the gradient of those weights by that of the scores.
    #[inline(always)]
    fn backward_row(
        &self,
        inputs: &Inputs<'_>,
        block: Block,
        query: usize,
        [max, sum]: [f32; 2],
        delta: f32,
        [weights, gradient]: [&mut [f32]; 2],
    ) {
        let first_key = self.visible(query).start;
        let [before, weights, behind] = self.split(block, query, weights);
        before.fill(0.0);
        behind.fill(0.0);
        let [before, gradient, behind] = self.split(block, query, gradient);
        before.fill(0.0);
        behind.fill(0.0);
        let bias = inputs.bias.map(|bias| &bias.row(query)[first_key..]);
        let slope = |score: f32| {
            self.cap
                .map_or(1.0, |cap| 1.0 - (score / cap) * (score / cap))
        };
        let share = 1.0 / sum;
        if let (Some(bias), None) = (bias, self.cap) {
            add(weights, bias);
        }
        let biased = |score: f32, offset: usize| match (self.cap, bias) {
            (Some(_), Some(bias)) => score + bias[offset],
            _ => score,
        };
        let pairs = weights.iter_mut().zip(gradient);
        match self.dropout {
            None if self.cap.is_none() => {
                for (weight, gradient) in pairs {
                    *weight = exp_nonpositive(*weight - max) * share;
                    *gradient = *weight * (*gradient - delta);
                }
            }
            None => {
                for (offset, (weight, gradient)) in pairs.enumerate() {
                    let slope = slope(*weight);
                    *weight = exp_nonpositive(biased(*weight, offset) - max) * share;
                    *gradient = *weight * (*gradient - delta) * slope;
                }
            }
            Some(dropout) => {
                let first = self.first_weight(inputs.index, query);
                let first = first.wrapping_add(first_key as u32);
                for (offset, (weight, gradient)) in pairs.enumerate() {
                    let slope = slope(*weight);
                    let kept = exp_nonpositive(biased(*weight, offset) - max) * share;
                    let factor = dropout.factor(first.wrapping_add(offset as u32));
                    *weight = kept * factor;
                    *gradient = kept * (*gradient * factor - delta) * slope;
                }
            }
        }
    }
}

#[inline(always)]
fn add(row: &mut [f32], bias: &[f32]) {
    for (score, bias) in row.iter_mut().zip(bias) {
        *score += bias;
    }
}
