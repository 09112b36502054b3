//! Outputs, loss and metrics over a labelled data set.

use super::thresholds::Thresholds;
use crate::TrainError;
use crate::data::{ClassWeights, Example, LabelKind, Target};
use crate::jobs::assignment::AdapterAssignment;
use crate::jobs::batches::EvalBatches;
use crate::jobs::job::{Evaluate, Metrics};
use crate::metric::{ConfusionMatrix, TOKEN_METRICS, multi_label, token_classification};
use crate::progress::Screen;
use crate::task::{Classify, TaskName};
use crate::trainer::ranks::Ranks;
use lora_models::LoraTargets;
use lora_models::classifier::Classifier;
use lora_models::encoder::Labels;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Outputs of a model for an example: one row, or a row for each word that it read.
pub(super) type Rows = Vec<Vec<f32>>;

/// Evaluator on a fixed set of examples.
pub(crate) struct Evaluator {
    task: TaskName,
    head: Labels,
    thresholds: Thresholds,
    batches: EvalBatches,
    /// Confusion matrix of the last metrics.
    confusion: Mutex<Option<ConfusionMatrix>>,
}

/// Returns the names of the metrics of a task.
pub(super) fn metric_names(task: TaskName) -> Vec<&'static str> {
    let own = match task.metric() {
        Some(metric) => metric.names(),
        None => TOKEN_METRICS,
    };
    let mut names = vec!["loss"];
    names.extend(own);
    if task.label_kind() == Some(LabelKind::Classes) && !names.contains(&"accuracy") {
        names.push("accuracy");
    }
    names
}

impl Evaluator {
    /// Creates an evaluator.
    pub fn new(task: TaskName, head: (Labels, Thresholds), batches: EvalBatches) -> Self {
        let (head, thresholds) = head;
        Self {
            task,
            head,
            thresholds,
            batches,
            confusion: Mutex::default(),
        }
    }

    /// Returns the examples, in the order of the file.
    pub fn examples(&self) -> &[Example] {
        &self.batches.examples
    }

    /// Leaves out examples at the start that have their results, as [`EvalBatches::leave_out`].
    pub fn leave_out(&mut self, done: usize) {
        self.batches.leave_out(done);
    }

    /// Returns the outputs for each example, in the order of the file. Ranks share the batches, and all have all outputs. `adapters`
    /// assigns an adapter to each example, if there are several; without other ranks, `result` receives the outputs of an example and
    /// its index, in the order of the file, as soon as those before it are there.
    pub fn run(
        &self,
        (model, adapters): (Classifier, Option<AdapterAssignment<Classifier>>),
        ranks: &dyn Ranks,
        screen: &Screen,
        result: &mut dyn FnMut(usize, &Rows) -> Result<(), TrainError>,
    ) -> Result<Vec<Rows>, TrainError> {
        let device = model.device();
        let model = Classify::new(model, 0.0, ClassWeights::default());
        let examples = self.examples().len();
        let mut bar = screen.bar("examples", examples).for_device(&device);
        let progress = &mut |done| bar.set(done);
        let outputs = self.outputs(&model, ranks, adapters.as_ref(), progress, result)?;
        bar.finish();
        Ok(outputs)
    }

    /// Returns the outputs for each example, in the order of the file. Ranks share the batches, and all have all outputs. `adapters`
    /// assigns an adapter to each example, if there are several; `result` is called in a run without other ranks.
    fn outputs(
        &self,
        task: &Classify,
        ranks: &dyn Ranks,
        adapters: Option<&AdapterAssignment<Classifier>>,
        progress: &mut dyn FnMut(usize),
        result: &mut dyn FnMut(usize, &Rows) -> Result<(), TrainError>,
    ) -> Result<Vec<Rows>, TrainError> {
        let mut outputs: Vec<Rows> = vec![Vec::new(); self.examples().len()];
        let mut open: BTreeSet<usize> = self.batches.indices().collect();
        let mut waiting = BTreeSet::new();
        let of_tokens = self.task == TaskName::TokenClassification;
        self.batches
            .run(ranks, adapters, progress, |indices, batch| {
                let logits = task.logits(batch)?;
                for (row, &index) in indices.iter().enumerate() {
                    outputs[index] = if of_tokens {
                        let words = self.examples()[index].words();
                        let rows = words.map(|(token, _)| row * batch.seq + token);
                        rows.map(|row| logits[row].clone()).collect()
                    } else {
                        vec![logits[row].clone()]
                    };
                    open.remove(&index);
                    waiting.insert(index);
                }
                while let Some(&next) = waiting.first()
                    && open.first().is_none_or(|&open| next < open)
                {
                    result(next, &outputs[next])?;
                    waiting.pop_first();
                }
                Ok(())
            })?;
        gather_rows(ranks, &mut outputs)?;
        Ok(outputs)
    }

    /// Computes loss and metrics of outputs; none if no example has a label.
    pub fn judge(&self, outputs: &[Rows]) -> Result<Metrics, TrainError> {
        let mut targets = self.examples().iter().map(Example::target);
        if targets.all(|target| *target == Target::Unknown) {
            return Ok(Metrics::new());
        }
        let names = self.head.names();
        let mut metrics = match (self.task.metric(), &self.head) {
            (Some(_), Labels::MultiLabel(_)) => {
                let (predictions, labels): (Vec<_>, Vec<_>) = self.sets(outputs).unzip();
                multi_label(&predictions, &labels, names.len())?
            }
            (Some(metric), Labels::Score | Labels::Scores(_)) => {
                let of_output = |output: usize| {
                    let (predictions, labels) = self.scores(outputs, output);
                    metric.value_metrics(&predictions, &labels)
                };
                let all = (0..self.head.outputs()).map(of_output);
                mean_metrics(&all.collect::<Result<Vec<_>, _>>()?)
            }
            (Some(metric), Labels::Classes(_)) => {
                let (predictions, labels) = self.classes(outputs);
                let (predictions, labels) = (predictions.concat(), labels.concat());
                let mut metrics = metric.class_metrics(&predictions, &labels, names.len())?;
                if !metrics.contains_key("accuracy") {
                    let accuracy = crate::metric::accuracy(&predictions, &labels)?;
                    metrics.insert("accuracy".into(), accuracy);
                }
                metrics
            }
            (None, _) => {
                let (predictions, labels) = self.classes(outputs);
                token_classification(&predictions, &labels, names)?
            }
        };
        metrics.insert("loss".into(), self.loss(outputs));
        Ok(metrics)
    }

    /// Returns the confusion matrix; `None` for scores, and where an example has any number of classes.
    pub fn confusion(&self, outputs: &[Rows]) -> Result<Option<ConfusionMatrix>, TrainError> {
        let Labels::Classes(names) = &self.head else {
            return Ok(None);
        };
        let (predictions, labels) = self.classes(outputs);
        let (predictions, labels) = (predictions.concat(), labels.concat());
        if labels.is_empty() {
            return Ok(None);
        }
        let matrix = ConfusionMatrix::new(&predictions, &labels, names.len())?;
        Ok(Some(matrix.with_names(names.clone())?))
    }

    /// Returns the predicted and the true scores of an output, for the examples that have some.
    fn scores(&self, outputs: &[Rows], output: usize) -> (Vec<f64>, Vec<f64>) {
        let pairs = self.examples().iter().zip(outputs);
        pairs
            .filter_map(|(example, rows)| {
                let score = scores(example.target()).get(output)?;
                Some((f64::from(*rows[0].get(output)?), *score))
            })
            .unzip()
    }

    /// Returns the predicted and the true classes of the examples with any number of them.
    fn sets(&self, outputs: &[Rows]) -> impl Iterator<Item = (Vec<usize>, Vec<usize>)> {
        let pairs = self.examples().iter().zip(outputs);
        pairs.filter_map(|(example, rows)| match example.target() {
            Target::Set(classes) => Some((self.thresholds.predicted(&rows[0]), classes.clone())),
            _ => None,
        })
    }

    /// Returns the predicted and the true classes of each example that has any.
    fn classes(&self, outputs: &[Rows]) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
        let pairs = self.examples().iter().zip(outputs);
        pairs
            .filter(|(example, _)| *example.target() != Target::Unknown)
            .map(|(example, rows)| {
                let predictions: Vec<usize> = rows.iter().map(|row| best(row)).collect();
                (predictions, classes(example))
            })
            .unzip()
    }

    /// Returns the mean loss over the labels, without smoothing or weights.
    fn loss(&self, outputs: &[Rows]) -> f64 {
        let (mut sum, mut labels) = (0.0, 0usize);
        for (example, rows) in self.examples().iter().zip(outputs) {
            let scores = scores(example.target());
            if !scores.is_empty() {
                let errors = rows[0].iter().zip(scores);
                let errors = errors.map(|(&x, score)| (f64::from(x) - score).powi(2));
                sum += errors.sum::<f64>() / scores.len() as f64;
                labels += 1;
            }
            if let Target::Set(classes) = example.target() {
                sum += binary_cross_entropy(&rows[0], classes);
                labels += 1;
            }
            for (row, class) in rows.iter().zip(classes(example)) {
                sum += negative_log_likelihood(row, class);
                labels += 1;
            }
        }
        sum / labels.max(1) as f64
    }
}

impl Evaluate<Classify> for Evaluator {
    fn len(&self) -> usize {
        self.examples().len()
    }

    fn metrics(
        &self,
        task: &Classify,
        ranks: &dyn Ranks,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Metrics, TrainError> {
        let outputs = self.outputs(task, ranks, None, progress, &mut |_, _| Ok(()))?;
        // Of too many classes there is none.
        let confusion = self.confusion(&outputs).unwrap_or_default();
        *self
            .confusion
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = confusion;
        self.judge(&outputs)
    }

    fn last_confusion(&self) -> Option<ConfusionMatrix> {
        let last = self.confusion.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Adds the outputs of the other ranks to those of this one.
fn gather_rows(ranks: &dyn Ranks, outputs: &mut [Rows]) -> Result<(), TrainError> {
    if ranks.is_alone() {
        return Ok(());
    }
    // Of each example its place, its number of rows and their length, and the values.
    let mut own = Vec::new();
    for (index, rows) in outputs.iter().enumerate() {
        if let Some(row) = rows.first() {
            own.extend([index as f64, rows.len() as f64, row.len() as f64]);
            own.extend(rows.iter().flatten().map(|&value| f64::from(value)));
        }
    }
    for numbers in ranks.gather_numbers(&own)? {
        let mut rest = numbers.as_slice();
        while let Some((&[index, rows, columns], values)) = rest.split_first_chunk() {
            let columns = columns as usize;
            let (own, after) = values.split_at(rows as usize * columns);
            let own = own.chunks_exact(columns.max(1));
            let own = own.map(|row| row.iter().map(|&value| value as f32).collect());
            outputs[index as usize] = own.collect();
            rest = after;
        }
    }
    Ok(())
}

/// Returns the scores of a target; none for another target.
fn scores(target: &Target) -> &[f64] {
    match target {
        Target::Score(score) => std::slice::from_ref(score),
        Target::Scores(scores) => scores,
        _ => &[],
    }
}

/// Returns the mean of each metric over the outputs of a head, if all have it.
fn mean_metrics(outputs: &[Metrics]) -> Metrics {
    let mean = |name: &String| {
        let values = outputs.iter().map(|metrics| metrics.get(name).copied());
        let sum = values.sum::<Option<f64>>()?;
        Some((name.clone(), sum / outputs.len() as f64))
    };
    let first = outputs.first().into_iter().flat_map(Metrics::keys);
    first.filter_map(mean).collect()
}

/// Returns the class of each row of an example's outputs.
fn classes(example: &Example) -> Vec<usize> {
    match example.target() {
        Target::Class(class) => vec![*class],
        _ => example.tags().map(|(_, tag)| tag).collect(),
    }
}

/// Returns the most likely class, the first of several.
pub(super) fn best(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// Computes the probabilities of the classes.
pub(super) fn probabilities(row: &[f32]) -> Vec<f64> {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = row.iter().map(|&x| f64::from(x - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Computes the mean binary cross-entropy over all classes, of which an example has some.
fn binary_cross_entropy(row: &[f32], classes: &[usize]) -> f64 {
    let loss = |(class, &logit): (usize, &f32)| {
        let logit = f64::from(logit);
        let target = if classes.contains(&class) { logit } else { 0.0 };
        logit.max(0.0) - target + (-logit.abs()).exp().ln_1p()
    };
    row.iter().enumerate().map(loss).sum::<f64>() / row.len().max(1) as f64
}

/// Computes the negative log-likelihood of a class.
fn negative_log_likelihood(row: &[f32], class: usize) -> f64 {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - greatest).exp()).sum();
    sum.ln() - f64::from(row[class] - greatest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_likeliest_classes_is_predicted() {
        assert_eq!(best(&[0.5, 2.0, 2.0, -1.0]), 1);
    }

    #[test]
    fn outputs_of_all_ranks_come_together_in_order() {
        let all: [Rows; 4] = [
            vec![vec![0.5, 1.5]],
            vec![],
            vec![vec![2.0, 0.1], vec![3.0, 0.2]],
            vec![vec![-1.0, 7.0]],
        ];
        std::thread::scope(|scope| {
            for rank in crate::trainer::ranks::Threads::new(3) {
                let all = all.clone();
                scope.spawn(move || {
                    let mut outputs = vec![Rows::new(); 4];
                    for index in (rank.rank()..4).step_by(3) {
                        outputs[index] = all[index].clone();
                    }
                    gather_rows(&rank, &mut outputs).unwrap();
                    assert_eq!(outputs, all);
                });
            }
        });
    }

    #[test]
    fn the_binary_cross_entropy_of_large_logits_is_finite() {
        let loss = binary_cross_entropy(&[1000.0, -1000.0, 2.0], &[0, 2]);
        assert!((loss - (1.0 + (-2f64).exp()).ln() / 3.0).abs() < 1e-12);
        assert!((binary_cross_entropy(&[1000.0], &[]) - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn the_loss_of_a_row_is_that_of_its_softmax() {
        let row = [1000.0, 998.0];
        let p = probabilities(&row);
        assert!((p[0] - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-12);
        assert!((negative_log_likelihood(&row, 1) + p[1].ln()).abs() < 1e-12);
    }
}
