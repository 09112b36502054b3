//! Loss, perplexity and accuracy over a data set.

use crate::TrainError;
use crate::data::{BatchOrder, BatchPlan, Example, collate};
use crate::jobs::adapters::{AdapterAssignment, within};
use crate::jobs::evaluation::ExampleScore;
use crate::jobs::job::{Evaluate, Metrics};
use crate::metric::RunningLoss;
use crate::task::CausalLm;
use lora_models::gpt2::Gpt2LmHead;
use std::collections::BTreeMap;

/// Evaluates on the same examples again and again.
pub(crate) struct Evaluator {
    examples: Vec<Example>,
    batches: Vec<Vec<usize>>,
    pad_id: u32,
}

impl Evaluator {
    pub fn new(examples: Vec<Example>, batch_size: usize, pad_id: u32) -> Result<Self, TrainError> {
        let lengths = examples.iter().map(Example::len).collect();
        // By length, so that little is padded; the scores come back in the order of the file.
        let plan = BatchPlan::new(lengths, batch_size, BatchOrder::GroupedByLength, 0)?;
        Ok(Self {
            batches: plan.epoch(0),
            examples,
            pad_id,
        })
    }

    /// Returns the examples.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Metrics by name, and the score of each example in the order of the file. `progress` is told
    /// how many examples are done. `uses` are the adapters of the examples, where they have their own.
    pub fn run(
        &self,
        model: &CausalLm,
        uses: Option<&AdapterAssignment<Gpt2LmHead>>,
        mut progress: impl FnMut(usize),
    ) -> Result<(BTreeMap<String, f64>, Vec<ExampleScore>), TrainError> {
        let mut running = RunningLoss::default();
        let mut sums = vec![(0.0f64, 0usize); self.examples.len()];
        let mut done = 0;
        for indices in &self.batches {
            let examples: Vec<&Example> = indices.iter().map(|&i| &self.examples[i]).collect();
            let batch = collate(&examples, self.pad_id);
            let scores = within(uses, indices, || model.score(&batch))??;
            for (&example, &nll) in scores.example.iter().zip(&scores.nll) {
                let sum = &mut sums[indices[example]];
                sum.0 += f64::from(nll);
                sum.1 += 1;
            }
            let correct = scores.correct.iter().filter(|&&correct| correct).count() as u64;
            running.add_accuracy(correct, scores.correct.len() as u64);
            done += indices.len();
            progress(done);
        }
        // Summed over examples, so that the batch size does not change the rounding.
        for (nll, tokens) in &sums {
            running.add_sum(*nll, *tokens as u64);
        }
        let scores = sums.into_iter().map(|(nll, tokens)| ExampleScore {
            loss: nll / tokens.max(1) as f64,
            tokens,
        });
        let metrics = [
            ("loss", running.mean()),
            ("perplexity", running.perplexity()),
            ("accuracy", running.accuracy()),
        ];
        let metrics = metrics
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_string(), value?)));
        Ok((metrics.collect(), scores.collect()))
    }
}

impl Evaluate<CausalLm> for Evaluator {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn metrics(
        &self,
        task: &CausalLm,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Metrics, TrainError> {
        Ok(self.run(task, None, progress)?.0)
    }
}
