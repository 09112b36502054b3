//! Loss, perplexity and accuracy over a data set.

use crate::TrainError;
use crate::jobs::assignment::AdapterAssignment;
use crate::jobs::batches::EvalBatches;
use crate::jobs::evaluation::ExampleScore;
use crate::jobs::job::Metrics;
use crate::metric::RunningLoss;
use crate::task::CausalLmTask;
use crate::trainer::ranks::Ranks;
use lora_models::CausalLm;

/// Computes metrics by name, and the score of each example in the order of the file. Ranks share the batches, and all have all
/// results. `progress` receives the number of finished examples. `adapters` assigns an adapter to each example.
pub(super) fn evaluate<M: CausalLm>(
    batches: &EvalBatches,
    task: &CausalLmTask<M>,
    ranks: &dyn Ranks,
    adapters: Option<&AdapterAssignment<M>>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Metrics, Vec<ExampleScore>), TrainError> {
    let mut running = RunningLoss::default();
    let mut sums = vec![(0.0f64, 0usize); batches.examples.len()];
    let (mut correct, mut judged) = (0u64, 0u64);
    let mut own = Vec::new();
    batches.run(ranks, adapters, progress, |indices, batch| {
        let scores = task.score(batch)?;
        for (&example, &nll) in scores.example.iter().zip(&scores.nll) {
            let sum = &mut sums[indices[example]];
            sum.0 += f64::from(nll);
            sum.1 += 1;
        }
        correct += scores.correct.iter().filter(|&&correct| correct).count() as u64;
        judged += scores.correct.len() as u64;
        own.extend_from_slice(indices);
        Ok(())
    })?;
    if !ranks.is_alone() {
        let mut numbers = vec![correct as f64, judged as f64];
        for index in own {
            let (nll, tokens) = sums[index];
            numbers.extend([index as f64, nll, tokens as f64]);
        }
        (correct, judged) = (0, 0);
        for numbers in ranks.gather_numbers(&numbers)? {
            let (counts, examples) = numbers.split_at(2);
            correct += counts[0] as u64;
            judged += counts[1] as u64;
            for example in examples.chunks_exact(3) {
                sums[example[0] as usize] = (example[1], example[2] as usize);
            }
        }
    }
    running.add_accuracy(correct, judged);
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
