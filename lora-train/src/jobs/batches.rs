//! Fixed set of examples in batches, for evaluation and prediction.

use super::assignment::{AdapterAssignment, within};
use super::ranges::at_least_one;
use super::session::Base;
use crate::TrainError;
use crate::data::{Batch, BatchOrder, BatchPlan, Example, Padding, collate};
use crate::trainer::ranks::Ranks;
use burn::tensor::Device;
use lora_core::ops::{device_facts, is_on_host};
use lora_models::Pretrained;

/// Multiple to which batches are padded on a GPU, where each new length makes kernels compile.
const GPU_MULTIPLE: usize = 64;
/// Multiple to which batches are padded on a software adapter, which computes the padding on a CPU.
const SOFTWARE_MULTIPLE: usize = 16;

/// Number of batches in a window of examples that are finished together.
const WINDOW: usize = 16;

/// Returns the multiple of tokens to which batches are padded: that of the options, or else the device's.
///
/// # Errors
/// If the option is 0.
pub(crate) fn pad_multiple(option: Option<usize>, device: &Device) -> Result<usize, TrainError> {
    match option {
        Some(multiple) => at_least_one("pad_to_multiple_of", multiple),
        None if is_on_host(device) => Ok(1),
        None if device_facts(device).software => Ok(SOFTWARE_MULTIPLE),
        None => Ok(GPU_MULTIPLE),
    }
}

/// Examples in batches.
pub(crate) struct EvalBatches {
    /// Examples, in the order of the file.
    pub examples: Vec<Example>,
    batches: Vec<Vec<usize>>,
    padding: Padding,
    /// Number of examples in a window.
    window: usize,
}

impl EvalBatches {
    /// Divides examples of at most `max_length` tokens into batches, sorted by length for little padding.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names `option`, the one for the batch size, if the device cannot take the largest batch.
    pub fn new(
        examples: Vec<Example>,
        (option, batch_size): (&str, usize),
        base: &Base,
        max_length: usize,
    ) -> Result<Self, TrainError> {
        let window = examples.len();
        Self::by_windows(examples, window, (option, batch_size), base, max_length)
    }

    /// Divides examples as [`new`](Self::new), window after window of consecutive examples, so that results come in the order
    /// of the file while others are still computed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_windows(
        examples: Vec<Example>,
        (option, batch_size): (&str, usize),
        base: &Base,
        max_length: usize,
    ) -> Result<Self, TrainError> {
        let window = batch_size.saturating_mul(WINDOW).max(1);
        let size = (option, batch_size);
        Self::by_windows(examples, window, size, base, max_length)
    }

    /// Leaves out the windows of the first `done` examples, which have their results. The others keep the batches that they always
    /// have.
    pub fn leave_out(&mut self, done: usize) {
        let start = done / self.window * self.window;
        self.batches
            .retain(|batch| batch.iter().all(|&index| index >= start));
    }

    fn by_windows(
        examples: Vec<Example>,
        window: usize,
        (option, batch_size): (&str, usize),
        base: &Base,
        max_length: usize,
    ) -> Result<Self, TrainError> {
        let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
        let padding = base.padding(max_length);
        let mut batches = Vec::new();
        let mut first = 0;
        while first == 0 || first < lengths.len() {
            let end = lengths.len().min(first.saturating_add(window));
            let lengths = lengths[first..end].to_vec();
            let plan = BatchPlan::new(lengths, batch_size, BatchOrder::GroupedByLength, 0)?;
            let plan = plan.with_padding(padding);
            base.limit.check(option, plan.largest())?;
            for mut batch in plan.epoch(0) {
                batch.iter_mut().for_each(|index| *index += first);
                batches.push(batch);
            }
            first = end;
        }
        Ok(Self {
            batches,
            examples,
            padding,
            window: window.max(1),
        })
    }

    /// Returns the indices of the examples in the batches.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.batches.iter().flatten().copied()
    }

    /// Calls `work` with each batch of this rank and the indices of its examples. `adapters` assigns an adapter to each example.
    /// `progress` receives the number of finished examples.
    pub fn run<M: Pretrained>(
        &self,
        ranks: &dyn Ranks,
        adapters: Option<&AdapterAssignment<M>>,
        progress: &mut dyn FnMut(usize),
        mut work: impl FnMut(&[usize], &Batch) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let mut done = 0;
        for (number, indices) in self.batches.iter().enumerate() {
            // Neighbours have like lengths, so that every rank has about as much to do.
            if number % ranks.size() == ranks.rank() {
                let examples: Vec<&Example> = indices.iter().map(|&i| &self.examples[i]).collect();
                let batch = collate(&examples, self.padding);
                within(adapters, indices, || work(indices, &batch))??;
            }
            done += indices.len();
            progress(done);
        }
        Ok(())
    }
}
