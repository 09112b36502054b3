//! One head of one row of the batch.

use super::AttentionOptions;
use super::heads::BiasRows;
use crate::ops::gemm::{Matrix, MatrixMut, Threads};
use crate::ops::kernels::{Drawn, dot, exp_in_place, exp_of_negative, largest};
use pulp::Arch;
use std::mem::MaybeUninit;

/// Queries whose scores are made at once: fewer where those behind a query are not made, since a block makes some of them.
const QUERIES: usize = 128;
const CAUSAL_QUERIES: usize = 64;

/// What all heads have in common.
pub(super) struct Problem {
    scale: f32,
    queries: usize,
    keys: usize,
    causal: bool,
    drawn: Option<Drawn>,
}

/// What a head is made of: `[queries, d]`, `[keys, d]`, `[keys, d_value]`.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub query: Matrix<'a>,
    pub key: Matrix<'a>,
    pub value: Matrix<'a>,
    pub bias: Option<BiasRows<'a>>,
    /// Its place among all heads of all rows.
    pub index: usize,
}

/// What the forward pass made of a head, and the gradient of its output: `[queries, d_value]`, `[queries, 2]`.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub output: Matrix<'a>,
    pub grad: Matrix<'a>,
    pub statistics: Matrix<'a>,
}

/// Where the gradients of a head belong.
pub(super) struct Gradients<'a> {
    pub query: MatrixMut<'a>,
    pub key: MatrixMut<'a>,
    pub value: MatrixMut<'a>,
    /// `[queries, keys]`.
    pub bias: Option<MatrixMut<'a>>,
}

/// Memory for scores and their gradients, used again and again.
#[derive(Default)]
pub(super) struct Scratch {
    scores: Vec<f32>,
    of_scores: Vec<f32>,
}

/// `size` numbers of scratch memory, whatever they are.
fn room(scratch: &mut Vec<f32>, size: usize) -> &mut [f32] {
    if scratch.len() < size {
        scratch.resize(size, 0.0);
    }
    &mut scratch[..size]
}

/// To be written over.
fn unwritten(values: &mut [f32]) -> &mut [MaybeUninit<f32>] {
    // SAFETY: the same memory, of which no more is said; only numbers are written to it.
    unsafe { &mut *(values as *mut [f32] as *mut [MaybeUninit<f32>]) }
}

/// Some queries in a row, and how many keys the last of them sees.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    count: usize,
    keys: usize,
}

impl Problem {
    /// # Panics
    /// If causal attention has fewer keys than queries.
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
            drawn: (options.dropout > 0.0).then(|| Drawn::new(options.dropout, options.seed)),
        }
    }

    /// How many keys a query sees.
    fn seen(&self, query: usize) -> usize {
        match self.causal {
            true => self.keys - self.queries + query + 1,
            false => self.keys,
        }
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = Block> {
        let most = if self.causal { CAUSAL_QUERIES } else { QUERIES };
        (0..self.queries.div_ceil(most)).map(move |index| {
            let start = index * most;
            let count = most.min(self.queries - start);
            Block {
                start,
                count,
                keys: self.seen(start + count - 1),
            }
        })
    }

    /// The index of a query's first weight among all weights, for dropout.
    fn first_weight(&self, head: usize, query: usize) -> u32 {
        ((head * self.queries + query) * self.keys) as u32
    }

    /// `s Q Kᵀ` of a block.
    fn scores<'a>(
        &self,
        inputs: &Inputs<'_>,
        block: Block,
        scratch: &'a mut Vec<f32>,
    ) -> &'a mut [f32] {
        let shape = [block.count, block.keys];
        let scores = room(scratch, block.count * block.keys);
        let query = inputs.query.rows(block.start, block.count);
        let key = inputs.key.rows(0, block.keys);
        MatrixMut::new(unwritten(scores), shape).write(
            self.scale,
            query,
            key.transposed(),
            Threads::One,
        );
        scores
    }

    /// Writes the output `[queries, d_value]` and the statistics, two a query.
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
                        *statistics = self.weigh(&inputs, block.start + offset, row);
                    }
                },
            );
            let scores = Matrix::new(scores, [block.count, block.keys]);
            let mut output = output.rows(block.start, block.count);
            output.write(1.0, scores, inputs.value.rows(0, block.keys), Threads::One);
            for offset in 0..block.count {
                let share = 1.0 / statistics[2 * offset + 1];
                // SAFETY: the product has written it.
                let row = unsafe { output.row(offset) };
                row.iter_mut().for_each(|value| *value *= share);
            }
        }
    }

    /// Turns a row of scores into the exponentials from the largest on, dropped, and zero where nothing is seen; returns the
    /// largest, and the sum before dropout.
    #[inline(always)]
    fn weigh(&self, inputs: &Inputs<'_>, query: usize, row: &mut [f32]) -> [f32; 2] {
        let (seen, hidden) = row.split_at_mut(self.seen(query));
        if let Some(bias) = inputs.bias {
            add(seen, bias.row(query));
        }
        let max = largest(seen);
        let sum = exp_in_place(seen, max);
        hidden.fill(0.0);
        if let Some(drawn) = self.drawn {
            let first = self.first_weight(inputs.index, query);
            for (offset, weight) in seen.iter_mut().enumerate() {
                *weight *= drawn.factor(first.wrapping_add(offset as u32));
            }
        }
        [max, sum as f32]
    }

    /// Writes the gradients of a head.
    pub(super) fn backward(
        &self,
        inputs: Inputs<'_>,
        found: Found<'_>,
        mut gradients: Gradients<'_>,
        scratch: &mut Scratch,
    ) {
        let Found {
            output,
            grad,
            statistics,
        } = found;
        // From the last block on, which sees all keys and writes what the others add to.
        let mut first = true;
        for block in self.blocks().rev() {
            let scores = self.scores(&inputs, block, &mut scratch.scores);
            let shape = [block.count, block.keys];
            let of_scores = room(&mut scratch.of_scores, block.count * block.keys);
            let block_grad = grad.rows(block.start, block.count);
            let value = inputs.value.rows(0, block.keys);
            MatrixMut::new(unwritten(of_scores), shape).write(
                1.0,
                block_grad,
                value.transposed(),
                Threads::One,
            );
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    let rows = scores.chunks_exact_mut(block.keys);
                    let rows = rows.zip(of_scores.chunks_exact_mut(block.keys));
                    for (offset, (weights, gradient)) in rows.enumerate() {
                        let query = block.start + offset;
                        let delta = dot(output.row(query), grad.row(query));
                        let statistics = statistics.row(query);
                        let statistics = [statistics[0], statistics[1]];
                        self.go_back(&inputs, query, statistics, delta, weights, gradient);
                    }
                },
            );
            if let Some(bias) = &mut gradients.bias {
                for (offset, gradient) in of_scores.chunks_exact(block.keys).enumerate() {
                    let mut row = bias.rows(block.start + offset, 1);
                    row.fill(gradient);
                }
            }
            let (weights, of_scores) = (Matrix::new(scores, shape), Matrix::new(of_scores, shape));
            let key = inputs.key.rows(0, block.keys);
            let query = inputs.query.rows(block.start, block.count);
            let mut of_query = gradients.query.rows(block.start, block.count);
            of_query.write(self.scale, of_scores, key, Threads::One);
            let mut of_key = gradients.key.rows(0, block.keys);
            let mut of_value = gradients.value.rows(0, block.keys);
            let (weights, of_scores) = (weights.transposed(), of_scores.transposed());
            if first {
                of_key.write(self.scale, of_scores, query, Threads::One);
                of_value.write(1.0, weights, block_grad, Threads::One);
            } else {
                // SAFETY: the first block has written all keys.
                unsafe {
                    of_key.add(self.scale, of_scores, query, Threads::One);
                    of_value.add(1.0, weights, block_grad, Threads::One);
                }
            }
            first = false;
        }
    }

    /// Turns a row of scores into its weights after dropout, and the gradient of the latter into that of the scores.
    #[inline(always)]
    fn go_back(
        &self,
        inputs: &Inputs<'_>,
        query: usize,
        [max, sum]: [f32; 2],
        delta: f32,
        weights: &mut [f32],
        gradient: &mut [f32],
    ) {
        let seen = self.seen(query);
        let (weights, hidden) = weights.split_at_mut(seen);
        hidden.fill(0.0);
        let (gradient, hidden) = gradient.split_at_mut(seen);
        hidden.fill(0.0);
        if let Some(bias) = inputs.bias {
            add(weights, bias.row(query));
        }
        let share = 1.0 / sum;
        let pairs = weights.iter_mut().zip(gradient);
        match self.drawn {
            None => {
                for (weight, gradient) in pairs {
                    *weight = exp_of_negative(*weight - max) * share;
                    *gradient = *weight * (*gradient - delta);
                }
            }
            Some(drawn) => {
                let first = self.first_weight(inputs.index, query);
                for (offset, (weight, gradient)) in pairs.enumerate() {
                    let whole = exp_of_negative(*weight - max) * share;
                    let factor = drawn.factor(first.wrapping_add(offset as u32));
                    *weight = whole * factor;
                    *gradient = whole * (*gradient * factor - delta);
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
