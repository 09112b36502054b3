//! Batches for Burn's learner, at any place of the run.

use crate::data::{BatchPlan, Sample, SampleBatch};
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// A place in the data: which batch comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// The batch in the epoch, counted from 0.
    pub batch: usize,
}

/// One forward and backward pass: a batch, and what its summed loss is multiplied by so that the
/// whole step averages over its labels.
#[derive(Clone, Debug)]
pub struct MicroBatch<B> {
    /// The examples.
    pub batch: B,
    /// One over what the step averages over: its labels, or their weights together.
    pub loss_scale: f64,
    /// Seed of what is random in the pass, such as dropout: the state of the random number
    /// generator is this number, so a resumed run draws the same.
    pub seed: u64,
}

/// The examples of a run in batches, epoch after epoch.
///
/// As a Burn [`DataLoader`] it yields what is left of one epoch, from the [`Position`] on that was
/// set last; clones share it.
#[derive(Clone)]
pub struct BatchLoader<S> {
    examples: Arc<Vec<S>>,
    plan: Arc<BatchPlan>,
    pad_id: u32,
    position: Arc<Mutex<Position>>,
}

impl<S: Sample> BatchLoader<S> {
    /// A loader at the start of the first epoch.
    pub fn new(examples: Vec<S>, plan: BatchPlan, pad_id: u32) -> Self {
        Self {
            examples: Arc::new(examples),
            plan: Arc::new(plan),
            pad_id,
            position: Arc::default(),
        }
    }

    /// Number of batches in an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.plan.batches_per_epoch()
    }

    /// Number of examples.
    pub fn examples(&self) -> &[S] {
        &self.examples
    }

    /// Makes the next iterator start here.
    pub fn seek(&self, position: Position) {
        *self.lock() = position;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Position> {
        // A place is two numbers: no panic can leave it half-written.
        self.position.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// One over a weight; a step without labels has no loss, whatever it is multiplied by.
pub(super) fn loss_scale(weight: f64) -> f64 {
    match weight > 0.0 {
        true => 1.0 / weight,
        false => 1.0,
    }
}

struct EpochIterator<'a, S> {
    loader: &'a BatchLoader<S>,
    batches: std::vec::IntoIter<Vec<usize>>,
    processed: usize,
}

impl<S: Sample> Iterator for EpochIterator<'_, S> {
    type Item = Result<MicroBatch<S::Batch>, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let indices = self.batches.next()?;
        self.processed += indices.len();
        let examples: Vec<&S> = indices.iter().map(|&i| &self.loader.examples[i]).collect();
        let batch = S::collate(&examples, self.loader.pad_id);
        Some(Ok(MicroBatch {
            loss_scale: loss_scale(batch.weight()),
            batch,
            seed: 0,
        }))
    }
}

impl<S: Sample> DataLoaderIterator<MicroBatch<S::Batch>> for EpochIterator<'_, S> {
    fn progress(&self) -> Progress {
        Progress::new(
            self.processed,
            self.loader.examples.len(),
            Some("examples".into()),
        )
    }
}

impl<S: Sample> DataLoader<MicroBatch<S::Batch>> for BatchLoader<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MicroBatch<S::Batch>> + 'a> {
        let position = *self.lock();
        let mut batches = self.plan.epoch(position.epoch as u64);
        let skipped = position.batch.min(batches.len());
        let processed = batches.drain(..skipped).map(|batch| batch.len()).sum();
        Box::new(EpochIterator {
            loader: self,
            batches: batches.into_iter(),
            processed,
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
        Arc::new(Self::new(
            examples,
            self.plan.slice(start, end),
            self.pad_id,
        ))
    }
}
