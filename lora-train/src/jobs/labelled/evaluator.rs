//! Outputs, loss and metrics over a labelled data set.

use crate::TrainError;
use crate::data::{BatchOrder, BatchPlan, LabelKind, LabelSet, LabelledExample, Sample, Target};
use crate::jobs::adapters::{Uses, within};
use crate::jobs::job::{Evaluate, Metrics};
use crate::metric::{ConfusionMatrix, TOKEN_METRICS, token_classification};
use crate::task::{Classify, TaskName};
use lora_models::classifier::Classifier;

/// What a model says of an example: a row for the whole, or a row for each token that has a tag.
pub(super) type Rows = Vec<Vec<f32>>;

/// Evaluates on the same examples again and again.
pub(crate) struct Evaluator {
    task: TaskName,
    labels: Option<LabelSet>,
    examples: Vec<LabelledExample>,
    batches: Vec<Vec<usize>>,
    pad_id: u32,
}

/// The names of the metrics of a task.
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
    pub fn new(
        task: TaskName,
        labels: Option<LabelSet>,
        examples: Vec<LabelledExample>,
        batch_size: usize,
        pad_id: u32,
    ) -> Result<Self, TrainError> {
        let lengths = examples.iter().map(Sample::length).collect();
        // By length, so that little is padded; the outputs come back in the order of the file.
        let plan = BatchPlan::new(lengths, batch_size, BatchOrder::GroupedByLength, 0)?;
        Ok(Self {
            task,
            labels,
            batches: plan.epoch(0),
            examples,
            pad_id,
        })
    }

    pub fn len(&self) -> usize {
        self.examples.len()
    }

    pub fn examples(&self) -> &[LabelledExample] {
        &self.examples
    }

    /// The outputs for each example, in the order of the file. `uses` are the adapters of the examples, where they have
    /// their own.
    pub fn outputs(
        &self,
        task: &Classify,
        uses: Option<&Uses<Classifier>>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Rows>, TrainError> {
        let mut outputs: Vec<Rows> = vec![Vec::new(); self.examples.len()];
        let mut done = 0;
        for indices in &self.batches {
            let examples: Vec<&LabelledExample> =
                indices.iter().map(|&index| &self.examples[index]).collect();
            let batch = Sample::collate(&examples, self.pad_id);
            let logits = within(uses, indices, || task.logits(&batch))??;
            let of_tokens = self.task == TaskName::TokenClassification;
            for (row, (&index, example)) in indices.iter().zip(&examples).enumerate() {
                outputs[index] = match of_tokens {
                    false => vec![logits[row].clone()],
                    true => {
                        let rows = &logits[row * batch.seq..(row + 1) * batch.seq];
                        tagged_rows(example, rows)
                    }
                };
            }
            done += indices.len();
            progress(done);
        }
        Ok(outputs)
    }

    /// Loss and metrics of outputs. Where nothing is labelled there are none.
    pub fn judge(&self, outputs: &[Rows]) -> Result<Metrics, TrainError> {
        if self.examples.iter().all(|e| e.target == Target::Unknown) {
            return Ok(Metrics::new());
        }
        let mut metrics = match (self.task.metric(), &self.labels) {
            (Some(metric), None) => {
                let (predictions, labels) = self.scores(outputs);
                metric.value_metrics(&predictions, &labels)?
            }
            (Some(metric), Some(set)) => {
                let (predictions, labels) = self.classes(outputs);
                let mut metrics = metric.class_metrics(&predictions, &labels, set.len())?;
                if !metrics.contains_key("accuracy") {
                    let accuracy = crate::metric::accuracy(&predictions, &labels)?;
                    metrics.insert("accuracy".into(), accuracy);
                }
                metrics
            }
            (None, set) => {
                let names = set.as_ref().map_or(&[][..], |set| set.names());
                let (predictions, labels) = self.tags(outputs);
                token_classification(&predictions, &labels, names)?
            }
        };
        metrics.insert("loss".into(), self.loss(outputs));
        Ok(metrics)
    }

    /// Which classes were taken for which; `None` for scores.
    pub fn confusion(&self, outputs: &[Rows]) -> Result<Option<ConfusionMatrix>, TrainError> {
        let Some(set) = &self.labels else {
            return Ok(None);
        };
        let (predictions, labels) = match self.task {
            TaskName::TokenClassification => {
                let (predictions, labels) = self.tags(outputs);
                (predictions.concat(), labels.concat())
            }
            _ => self.classes(outputs),
        };
        if labels.is_empty() {
            return Ok(None);
        }
        let matrix = ConfusionMatrix::new(&predictions, &labels, set.len())?;
        Ok(Some(matrix.with_names(set.names().to_vec())?))
    }

    /// Predicted and true scores of the examples that have one.
    fn scores(&self, outputs: &[Rows]) -> (Vec<f64>, Vec<f64>) {
        let pairs = self.examples.iter().zip(outputs);
        pairs
            .filter_map(|(example, rows)| match example.target {
                Target::Score(score) => Some((f64::from(rows[0][0]), score)),
                _ => None,
            })
            .unzip()
    }

    /// Predicted and true classes of the examples that have one.
    fn classes(&self, outputs: &[Rows]) -> (Vec<usize>, Vec<usize>) {
        let pairs = self.examples.iter().zip(outputs);
        pairs
            .filter_map(|(example, rows)| match example.target {
                Target::Class(class) => Some((best(&rows[0]), class)),
                _ => None,
            })
            .unzip()
    }

    /// Predicted and true tags of each example.
    fn tags(&self, outputs: &[Rows]) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
        let pairs = self.examples.iter().zip(outputs);
        pairs
            .filter_map(|(example, rows)| match &example.target {
                Target::Tags(tags) => {
                    let predictions = rows.iter().map(|row| best(row)).collect();
                    Some((predictions, tags.iter().flatten().copied().collect()))
                }
                _ => None,
            })
            .unzip()
    }

    /// The mean loss over the labels, without smoothing or weights.
    fn loss(&self, outputs: &[Rows]) -> f64 {
        let (mut sum, mut labels) = (0.0, 0usize);
        for (example, rows) in self.examples.iter().zip(outputs) {
            match &example.target {
                Target::Class(class) => {
                    sum += negative_log_likelihood(&rows[0], *class);
                    labels += 1;
                }
                Target::Score(score) => {
                    sum += (f64::from(rows[0][0]) - score).powi(2);
                    labels += 1;
                }
                Target::Tags(tags) => {
                    for (row, tag) in rows.iter().zip(tags.iter().flatten()) {
                        sum += negative_log_likelihood(row, *tag);
                        labels += 1;
                    }
                }
                Target::Unknown => {}
            }
        }
        sum / labels.max(1) as f64
    }
}

impl Evaluate<Classify> for Evaluator {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn metrics(
        &self,
        task: &Classify,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Metrics, TrainError> {
        self.judge(&self.outputs(task, None, progress)?)
    }
}

/// The rows of the tokens that have a tag; of an example without tags those of all tokens.
fn tagged_rows(example: &LabelledExample, rows: &[Vec<f32>]) -> Rows {
    match &example.target {
        Target::Tags(tags) => {
            let rows = rows.iter().zip(tags);
            rows.filter(|(_, tag)| tag.is_some())
                .map(|(row, _)| row.clone())
                .collect()
        }
        _ => rows[..example.tokens.len()].to_vec(),
    }
}

/// The likeliest class; the first of several.
pub(super) fn best(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// Probabilities of the classes.
pub(super) fn probabilities(row: &[f32]) -> Vec<f64> {
    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = row.iter().map(|&x| f64::from(x - greatest).exp());
    let powers: Vec<f64> = powers.collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

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
    fn the_loss_of_a_row_is_that_of_its_softmax() {
        let row = [1000.0, 998.0];
        let p = probabilities(&row);
        assert!((p[0] - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-12);
        assert!((negative_log_likelihood(&row, 1) + p[1].ln()).abs() < 1e-12);
    }
}
