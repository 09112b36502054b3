//! Gradients of a step: those of its batches, over all ranks.

use super::optimizer::squared_norm;
use super::optimizer_tap::Tapped;
use super::ranks::{Exchange, Summed, Tree, add_gradients, block};
use super::{MicroBatch, Position, Run, Task};
use crate::TrainError;
use crate::data::{Sample, SampleBatch};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_train::{ItemLazy, Learner};

/// Batches of a step.
pub(super) struct Group<B> {
    /// Batches that this rank computes.
    own: Vec<B>,
    /// Position of the first of them in the step.
    first: usize,
    /// Number of the batches of all ranks.
    pub length: usize,
}

impl<B> Group<B> {
    /// Takes the batches of the step at a position from those of this rank; `None` at the end of the epoch.
    pub fn take<M, S: Sample<Batch = B>>(
        run: &Run<M, S>,
        position: Position,
        batches: &mut impl Iterator<Item = B>,
    ) -> Option<Self> {
        let left = run.loader.batches_in(position.epoch) - position.batch;
        let length = left.min(run.config.accumulation);
        let own = block(length, run.ranks.rank(), run.ranks.size());
        (length > 0).then(|| Self {
            first: own.start,
            own: batches.take(own.len()).collect(),
            length,
        })
    }

    /// Describes the first batch; empty if this rank has none.
    pub fn describe(&self) -> String
    where
        B: SampleBatch,
    {
        self.own.first().map_or_else(String::new, B::describe)
    }
}

/// Gradients and values of a step.
pub(super) struct StepGradients {
    pub grads: GradientsParams,
    /// Loss and squared norm, `[2]`.
    pub values: Tensor<1>,
    /// Number of counted tokens.
    pub tokens: usize,
    /// Reason to stop, if there is one.
    pub stop: Option<String>,
}

/// Accumulates the gradients of the batches of a step. `stop` returns the reason to stop after it.
pub(super) fn gradients<S: Sample, M: Task<S>>(
    learner: &Learner<Tapped<M>>,
    exchange: &mut Exchange,
    group: Group<S::Batch>,
    (run_seed, step): (u64, usize),
    stop: impl FnOnce() -> Option<String>,
) -> Result<StepGradients, TrainError> {
    let model = learner.model().task;
    let weights: Vec<f64> = group.own.iter().map(SampleBatch::weight).collect();
    let tokens = group.own.iter().map(SampleBatch::counted_tokens).sum();
    let (weight, tokens) = exchange.totals(&weights, tokens)?;
    // Without labels the loss is zero, whatever the factor.
    let loss_scale = if weight > 0.0 { 1.0 / weight } else { 1.0 };
    let mut sum = Tree::new();
    let mut losses = Vec::with_capacity(group.own.len());
    for (index, batch) in (group.first..).zip(group.own) {
        let output = learner.train_step(MicroBatch {
            batch,
            loss_scale,
            seed: mix(run_seed, step as u64, index as u64),
        });
        sum.push(index, output.grads, |a, b| add_gradients(&model, a, b));
        let synced = output.item.sync();
        losses.push(
            synced
                .map_err(|error| TrainError::burn(error.to_string()))?
                .loss,
        );
    }
    let Summed { grads, loss, stop } = exchange.sum(&model, sum, losses, group.length, stop())?;
    let norm = squared_norm(&model, &grads).unwrap_or_else(|| loss.zeros_like());
    Ok(StepGradients {
        values: Tensor::cat(vec![loss, norm], 0),
        grads,
        tokens,
        stop,
    })
}

/// Returns the largest number of gradients that exist at once in a step with this number of batches.
pub(crate) fn gradients_at_once(batches: usize) -> usize {
    batches.max(1).ilog2() as usize + 1
}

/// Mixes the seed of the run, the step and the batch into the seed of one pass (`SplitMix64`'s finaliser).
fn mix(seed: u64, step: u64, batch: u64) -> u64 {
    let mut x = seed
        .wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(batch.wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_number_of_partial_sums_is_what_a_step_holds() {
        struct Counted<'a>(&'a Cell<usize>);
        for batches in 1..70 {
            let (now, most) = (Cell::new(0usize), Cell::new(0));
            let mut sum = Tree::new();
            for batch in 0..batches {
                now.set(now.get() + 1);
                most.set(now.get().max(most.get()));
                sum.push(batch, Counted(&now), |left, _| {
                    left.0.set(left.0.get() - 1);
                    left
                });
            }
            assert_eq!(most.get(), gradients_at_once(batches), "{batches}");
        }
    }
}
