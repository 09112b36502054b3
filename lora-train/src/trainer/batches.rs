//! Batches for Burn's learner, from any position of the run.

use super::ahead::Ahead;
use crate::data::{BatchPlan, Sample, SampleBatch};
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// Position in the data: the next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Epoch, counted from 0.
    pub epoch: usize,
    /// Batch in the epoch, counted from 0.
    pub batch: usize,
}

/// Input of one forward and backward pass.
#[derive(Clone, Debug)]
pub struct MicroBatch<B> {
    /// Batch of examples.
    pub batch: B,
    /// Factor of the summed loss: one over the labels of the step, or over the sum of their weights.
    pub loss_scale: f64,
    /// Seed of the random numbers of the pass, such as those of dropout. A resumed run draws the same.
    pub seed: u64,
}

/// Loader of the batches of a run, epoch after epoch.
///
/// As a Burn [`DataLoader`] it yields the rest of one epoch, from the [`Position`] that was
/// set last. Clones share the position.
#[derive(Clone)]
pub struct BatchLoader<S: Sample> {
    examples: Arc<Vec<S>>,
    plan: Arc<BatchPlan>,
    pad_id: u32,
    collate: Collate<S>,
    place: Arc<Mutex<Place>>,
}

/// Function that makes a batch of examples, given the padding token.
pub type Collate<S> = fn(&[&S], u32) -> <S as Sample>::Batch;

/// Start of the next iterator.
#[derive(Clone, Copy)]
struct Place {
    position: Position,
    batches_in_epoch: usize,
}

impl<S: Sample> BatchLoader<S> {
    /// Creates a loader at the start of the first epoch.
    pub fn new(examples: Vec<S>, plan: BatchPlan, pad_id: u32) -> Self {
        let place = Place {
            position: Position::default(),
            batches_in_epoch: plan.batches_in(0),
        };
        Self {
            examples: Arc::new(examples),
            plan: Arc::new(plan),
            pad_id,
            collate: S::collate,
            place: Arc::new(Mutex::new(place)),
        }
    }

    /// Sets another function to make a batch than [`Sample::collate`].
    pub fn with_collate(mut self, collate: Collate<S>) -> Self {
        self.collate = collate;
        self
    }

    /// Returns the number of batches in the epoch of the last [`seek`](Self::seek).
    pub fn batches_in_epoch(&self) -> usize {
        self.lock().batches_in_epoch
    }

    /// Returns the plan of the batches.
    pub fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// Returns the examples.
    pub fn examples(&self) -> &[S] {
        &self.examples
    }

    /// Sets the start of the next iterator.
    pub fn seek(&self, position: Position) {
        let batches_in_epoch = self.plan.batches_in(position.epoch as u64);
        *self.lock() = Place {
            position,
            batches_in_epoch,
        };
    }

    /// Makes the batch of these examples.
    fn batch(&self, indices: &[usize]) -> MicroBatch<S::Batch> {
        let examples: Vec<&S> = indices.iter().map(|&i| &self.examples[i]).collect();
        let batch = (self.collate)(&examples, self.pad_id);
        MicroBatch {
            loss_scale: loss_scale(batch.weight()),
            batch,
            seed: 0,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Place> {
        // A place is three numbers, written at once: no panic can leave it half-written.
        self.place.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Returns one over a weight. A step without labels has no loss, and any factor will do.
pub(super) fn loss_scale(weight: f64) -> f64 {
    if weight > 0.0 { 1.0 / weight } else { 1.0 }
}

/// Iterator over the rest of an epoch. Another thread prefetches the batches.
struct EpochIterator<B> {
    /// Batches with the number of their examples.
    batches: Ahead<(usize, MicroBatch<B>)>,
    processed: usize,
    examples: usize,
}

impl<B> Iterator for EpochIterator<B> {
    type Item = Result<MicroBatch<B>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (examples, batch) = self.batches.next()?;
        self.processed += examples;
        Some(Ok(batch))
    }
}

impl<B> DataLoaderIterator<MicroBatch<B>> for EpochIterator<B> {
    fn progress(&self) -> Progress {
        Progress::new(self.processed, self.examples, Some("examples".into()))
    }
}

impl<S: Sample> DataLoader<MicroBatch<S::Batch>> for BatchLoader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MicroBatch<S::Batch>> + 'a> {
        let position = self.lock().position;
        let mut batches = self.plan.epoch(position.epoch as u64);
        let skipped = position.batch.min(batches.len());
        let processed = batches.drain(..skipped).map(|batch| batch.len()).sum();
        let loader = self.clone();
        let made = batches
            .into_iter()
            .map(move |indices| (indices.len(), loader.batch(&indices)));
        Box::new(EpochIterator {
            batches: Ahead::of(made),
            processed,
            examples: self.examples.len(),
        })
    }

    fn num_items(&self) -> usize {
        self.examples.len()
    }

    /// Batches stay on the host: the task puts them on its model's device.
    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<MicroBatch<S::Batch>>> {
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<MicroBatch<S::Batch>>> {
        let examples = self.examples[start..end].to_vec();
        let plan = self.plan.slice(start, end);
        Arc::new(Self::new(examples, plan, self.pad_id).with_collate(self.collate))
    }
}
