//! Fixed set of examples in batches, for evaluation and prediction.

use super::assignment::{AdapterAssignment, within};
use super::session::Base;
use crate::TrainError;
use crate::data::{Batch, BatchOrder, BatchPlan, Example, collate};
use lora_models::Pretrained;

/// Examples in batches.
pub(crate) struct EvalBatches {
    /// Examples, in the order of the file.
    pub examples: Vec<Example>,
    batches: Vec<Vec<usize>>,
    pad_id: u32,
}

impl EvalBatches {
    /// Divides examples into batches, sorted by length for little padding.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names `option`, the one for the batch size, if the device cannot take the largest batch.
    pub fn new(
        examples: Vec<Example>,
        (option, batch_size): (&str, usize),
        base: &Base,
    ) -> Result<Self, TrainError> {
        let lengths = examples.iter().map(Example::len).collect();
        let plan = BatchPlan::new(lengths, batch_size, BatchOrder::GroupedByLength, 0)?;
        base.limit.check(option, plan.largest())?;
        Ok(Self {
            batches: plan.epoch(0),
            examples,
            pad_id: base.pad_id(),
        })
    }

    /// Calls `work` with each batch and the indices of its examples. `adapters` assigns an adapter to each example.
    /// `progress` receives the number of finished examples.
    pub fn run<M: Pretrained>(
        &self,
        adapters: Option<&AdapterAssignment<M>>,
        progress: &mut dyn FnMut(usize),
        mut work: impl FnMut(&[usize], &Batch) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let mut done = 0;
        for indices in &self.batches {
            let examples: Vec<&Example> = indices.iter().map(|&i| &self.examples[i]).collect();
            let batch = collate(&examples, self.pad_id);
            within(adapters, indices, || work(indices, &batch))??;
            done += indices.len();
            progress(done);
        }
        Ok(())
    }
}
