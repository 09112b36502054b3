//! Batches for Burn's learner, at any place of the run.

use super::ahead::Ahead;
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
pub struct BatchLoader<S: Sample> {
    examples: Arc<Vec<S>>,
    plan: Arc<BatchPlan>,
    pad_id: u32,
    collate: Collate<S>,
    place: Arc<Mutex<Place>>,
}

/// What makes a batch of examples and the token that fills up the shorter ones.
pub type Collate<S> = fn(&[&S], u32) -> <S as Sample>::Batch;

/// Where the next iterator starts.
#[derive(Clone, Copy)]
struct Place {
    position: Position,
    batches_in_epoch: usize,
}

impl<S: Sample> BatchLoader<S> {
    /// A loader at the start of the first epoch.
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

    /// With another way to make a batch than [`Sample::collate`].
    pub fn with_collate(mut self, collate: Collate<S>) -> Self {
        self.collate = collate;
        self
    }

    /// Number of batches in the epoch that was [sought](Self::seek) last.
    pub fn batches_in_epoch(&self) -> usize {
        self.lock().batches_in_epoch
    }

    /// Which examples are in which batch.
    pub fn plan(&self) -> &BatchPlan {
        &self.plan
    }

    /// The examples.
    pub fn examples(&self) -> &[S] {
        &self.examples
    }

    /// Makes the next iterator start here.
    pub fn seek(&self, position: Position) {
        let batches_in_epoch = self.plan.batches_in(position.epoch as u64);
        *self.lock() = Place {
            position,
            batches_in_epoch,
        };
    }

    /// The batch of these examples.
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

/// One over a weight; a step without labels has no loss, whatever it is multiplied by.
pub(super) fn loss_scale(weight: f64) -> f64 {
    match weight > 0.0 {
        true => 1.0 / weight,
        false => 1.0,
    }
}

/// What is left of an epoch. The batches are made ahead, on another thread.
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
