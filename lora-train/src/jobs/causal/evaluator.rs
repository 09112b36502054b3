//! Loss, perplexity and accuracy over a data set.

use crate::TrainError;
use crate::data::{BatchOrder, BatchPlan, Example, collate};
use crate::jobs::assignment::{AdapterAssignment, within};
use crate::jobs::evaluation::ExampleScore;
use crate::jobs::job::{Evaluate, Metrics};
use crate::metric::RunningLoss;
use crate::task::CausalLmTask;
use lora_models::CausalLm;
use std::collections::BTreeMap;

/// Evaluation of language models on a fixed set of examples.
pub(crate) struct Evaluator {
    examples: Vec<Example>,
    batches: Vec<Vec<usize>>,
    pad_id: u32,
}

impl Evaluator {
    pub fn new(examples: Vec<Example>, batch_size: usize, pad_id: u32) -> Result<Self, TrainError> {
        let lengths = examples.iter().map(Example::len).collect();
        // Sorted by length for little padding; the scores are returned in the order of the file.
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

    /// Computes metrics by name, and the score of each example in the order of the file. `progress` receives the number of
    /// finished examples. `adapters` assigns an adapter to each example.
    pub fn run<M: CausalLm>(
        &self,
        task: &CausalLmTask<M>,
        adapters: Option<&AdapterAssignment<M>>,
        mut progress: impl FnMut(usize),
    ) -> Result<(BTreeMap<String, f64>, Vec<ExampleScore>), TrainError> {
        let mut running = RunningLoss::default();
        let mut sums = vec![(0.0f64, 0usize); self.examples.len()];
        let mut done = 0;
        for indices in &self.batches {
            let examples: Vec<&Example> = indices.iter().map(|&i| &self.examples[i]).collect();
            let batch = collate(&examples, self.pad_id);
            let scores = within(adapters, indices, || task.score(&batch))??;
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
        // Sums over examples make the rounding independent of the batch size.
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

impl<M: CausalLm> Evaluate<CausalLmTask<M>> for Evaluator {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn metrics(
        &self,
        task: &CausalLmTask<M>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Metrics, TrainError> {
        Ok(self.run(task, None, progress)?.0)
    }
}
