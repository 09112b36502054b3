//! Loss, perplexity and accuracy over a data set.

use crate::TrainError;
use crate::jobs::assignment::AdapterAssignment;
use crate::jobs::batches::EvalBatches;
use crate::jobs::evaluation::ExampleScore;
use crate::jobs::job::Metrics;
use crate::metric::RunningLoss;
use crate::task::CausalLmTask;
use lora_models::CausalLm;

/// Computes metrics by name, and the score of each example in the order of the file. `progress` receives the number of
/// finished examples. `adapters` assigns an adapter to each example.
pub(super) fn evaluate<M: CausalLm>(
    batches: &EvalBatches,
    task: &CausalLmTask<M>,
    adapters: Option<&AdapterAssignment<M>>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Metrics, Vec<ExampleScore>), TrainError> {
    let mut running = RunningLoss::default();
    let mut sums = vec![(0.0f64, 0usize); batches.examples.len()];
    batches.run(adapters, progress, |indices, batch| {
        let scores = task.score(batch)?;
        for (&example, &nll) in scores.example.iter().zip(&scores.nll) {
            let sum = &mut sums[indices[example]];
            sum.0 += f64::from(nll);
            sum.1 += 1;
        }
        let correct = scores.correct.iter().filter(|&&correct| correct).count() as u64;
        running.add_accuracy(correct, scores.correct.len() as u64);
        Ok(())
    })?;
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
    let metrics = metrics.into_iter();
    let metrics = metrics.filter_map(|(name, value)| Some((name.to_string(), value?)));
    Ok((metrics.collect(), scores.collect()))
}
