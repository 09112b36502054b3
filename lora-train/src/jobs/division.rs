//! Division of the training data: shares of its files in an epoch, and records that are held out for the evaluation.

use super::plan::TrainPlan;
use crate::TrainError;
use crate::data::{EvalSplit, Mix, SelectionOptions};
use crate::progress::Screen;
use serde::Serialize;

impl TrainPlan {
    /// Returns the options that decide which records are trained on.
    pub(crate) fn selection(&self) -> SelectionOptions {
        let o = &self.options;
        SelectionOptions {
            eval_split: o.eval_split.map(|split| (split, self.eval_split_seed())),
            most: o.max_examples.map(|most| (most, self.seed)),
        }
    }

    fn eval_split_seed(&self) -> u64 {
        self.options.eval_split_seed.unwrap_or(EvalSplit::SEED)
    }

    /// Returns the mix of files with so many examples each, and tells it; `None` for files without shares.
    ///
    /// # Errors
    /// As [`Mix::new`].
    pub(crate) fn mix(
        &self,
        examples: &[usize],
        screen: &Screen,
    ) -> Result<Option<Mix>, TrainError> {
        let Some(shares) = self.data.shares() else {
            return Ok(None);
        };
        let mix = Mix::new(examples, shares)?;
        let parts = mix.drawn().zip(examples).zip(self.data.paths());
        let parts =
            parts.map(|((drawn, all), path)| format!("{drawn} of {all} of {}", path.display()));
        let parts: Vec<String> = parts.collect();
        screen.line(&format!(
            "mix       {} examples in an epoch: {}",
            mix.len(),
            parts.join(", ")
        ));
        Ok(Some(mix))
    }

    /// Returns the records that are held out of so many, and tells them; `None` without.
    pub(crate) fn held_out(
        &self,
        held_out: usize,
        records: usize,
        screen: &Screen,
    ) -> Option<HeldOut> {
        self.options.eval_split?;
        let seed = self.eval_split_seed();
        screen.line(&format!(
            "eval data {held_out} of {records} records, held out by the seed {seed}"
        ));
        Some(HeldOut {
            held_out,
            records,
            seed,
        })
    }
}

/// Records that were held out of the training data, for the record of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HeldOut {
    /// Number of records that are held out.
    held_out: usize,
    /// Number of all records.
    records: usize,
    /// Seed that they are drawn by.
    seed: u64,
}
