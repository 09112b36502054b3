//! Batches of a run, from any position in the data.

use super::prefetch::Prefetch;
use super::ranks::block;
use crate::data::{BatchPlan, Padding, Sample, Samples};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// Position in the data: the batch that comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// The batch in the epoch, counted from 0.
    pub batch: usize,
}

/// Input of one forward and backward pass. A step accumulates the gradients of one or more.
#[derive(Clone, Debug)]
pub struct MicroBatch<B> {
    /// The examples.
    pub batch: B,
    /// Factor on the summed loss: one over the total weight of the labels in the step, so that the
    /// step averages over them.
    pub loss_scale: f64,
    /// Seed of the random number generator in this pass, for example for dropout. A resumed run
    /// uses the same seeds.
    pub seed: u64,
}

/// The examples of a run in batches, epoch after epoch.
#[derive(Clone)]
pub struct BatchLoader<S: Sample> {
    examples: Arc<dyn Samples<S>>,
    plan: Arc<BatchPlan>,
    padding: Padding,
    collate: Collate<S>,
}

/// Function that builds a batch from examples and their padding.
pub type Collate<S> = fn(&[&S], Padding) -> <S as Sample>::Batch;

impl<S: Sample> BatchLoader<S> {
    /// Creates a loader that collates with [`Sample::collate`]. The examples are a `Vec`, or others that are made as they are asked for.
    pub fn new(
        examples: impl Samples<S> + 'static,
        plan: BatchPlan,
        padding: impl Into<Padding>,
    ) -> Self {
        Self {
            examples: Arc::new(examples),
            plan: Arc::new(plan),
            padding: padding.into(),
            collate: S::collate,
        }
    }

    /// Sets another function that builds a batch.
    pub fn with_collate(mut self, collate: Collate<S>) -> Self {
        self.collate = collate;
        self
    }

    /// Returns the plan: the examples of each batch.
    pub fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// Returns the examples.
    pub fn examples(&self) -> &dyn Samples<S> {
        &*self.examples
    }

    /// Returns the batches of a rank from `position` to the end of its epoch, prefetched on another thread. Steps have `accumulation`
    /// batches of all ranks, and the last one those that are left.
    pub(super) fn share_from(
        &self,
        position: Position,
        accumulation: usize,
        (rank, ranks): (usize, usize),
    ) -> Prefetch<S::Batch> {
        let batches = self.plan.epoch(position.epoch as u64);
        let left = batches.len().saturating_sub(position.batch);
        let accumulation = accumulation.max(1);
        let is_own = move |index: usize| {
            let first = index / accumulation * accumulation;
            let length = accumulation.min(left - first);
            block(length, rank, ranks).contains(&(index - first))
        };
        let loader = self.clone();
        let batches = batches.into_iter().skip(position.batch).enumerate();
        let own = batches.filter(move |(index, _)| is_own(*index));
        Prefetch::new(own.map(move |(_, indices)| loader.collate(&indices)))
    }

    /// Builds the batch of some examples.
    pub(crate) fn collate(&self, indices: &[usize]) -> S::Batch {
        let examples = indices.iter().map(|&index| self.examples.get(index));
        let examples: Vec<Cow<'_, S>> = examples.collect();
        let examples: Vec<&S> = examples.iter().map(|example| &**example).collect();
        (self.collate)(&examples, self.padding)
    }

    /// Returns the number of batches in an epoch.
    pub(super) fn batches_in(&self, epoch: usize) -> usize {
        self.plan.batches_in(epoch as u64)
    }
}
