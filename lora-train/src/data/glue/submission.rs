//! Files of predictions that GLUE's server scores.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use lora_core::files::{Overwrite, write_file};

use super::GlueTask;
use crate::data::labels::LabelSet;
use crate::error::TrainError;

/// Predictions, one for each record of the test set in its order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Predictions<'a> {
    /// Classes, as indices in the set of the model.
    Classes(&'a [usize], &'a LabelSet),
    /// Scores.
    Scores(&'a [f64]),
}

impl Predictions<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Classes(classes, _) => classes.len(),
            Self::Scores(scores) => scores.len(),
        }
    }
}

/// Formats the file of predictions for `task`: a header `index\tprediction` and a row a record.
///
/// `ids` are the names of the records in the test set ([`Record::id`](crate::data::Record::id));
/// without, they are numbered from 0. MNLI, QNLI and RTE are answered by name, the other tasks by
/// class index, and STS-B by a score between 0 and 5 with three decimals.
///
/// # Errors
/// [`TrainError::Config`] if the predictions are not of the task's kind, are not as many as the ids,
/// or have a class that is not in the set or a score that is not finite; if two ids are the same; if
/// the labels are not those of the task.
///
/// # Examples
/// ```
/// use lora_train::data::{GlueTask, Predictions, glue_submission};
///
/// # fn main() -> Result<(), lora_train::TrainError> {
/// let labels = GlueTask::Rte.labels().unwrap();
/// let file = glue_submission(GlueTask::Rte, None, Predictions::Classes(&[1, 0], &labels))?;
/// assert_eq!(file, "index\tprediction\n0\tnot_entailment\n1\tentailment\n");
/// # Ok(())
/// # }
/// ```
pub fn glue_submission(
    task: GlueTask,
    ids: Option<&[&str]>,
    predictions: Predictions,
) -> Result<String, TrainError> {
    if let Some(ids) = ids {
        check_ids(ids, predictions.len())?;
    }
    let values = values(task, predictions)?;
    let rows = values.iter().enumerate().map(|(row, value)| match ids {
        Some(ids) => format!("{}\t{value}\n", ids[row]),
        None => format!("{row}\t{value}\n"),
    });
    let header = "index\tprediction\n".to_string();
    Ok(std::iter::once(header).chain(rows).collect())
}

/// Writes [`glue_submission`] to `folder`, which must be there, under the name that the server asks
/// for, and returns the path.
///
/// # Errors
/// As [`glue_submission`]; [`TrainError::Lora`] if the file cannot be written, or is there and may
/// not be replaced.
pub fn write_glue_submission(
    folder: &Path,
    overwrite: Overwrite,
    task: GlueTask,
    ids: Option<&[&str]>,
    predictions: Predictions,
) -> Result<PathBuf, TrainError> {
    let file = glue_submission(task, ids, predictions)?;
    let path = folder.join(task.submission_file());
    write_file(&path, overwrite, |out| out.write_all(file.as_bytes()))?;
    Ok(path)
}

/// Formats each prediction as the server reads it.
fn values(task: GlueTask, predictions: Predictions) -> Result<Vec<String>, TrainError> {
    let by_name = matches!(
        task,
        GlueTask::Mnli | GlueTask::MnliMismatched | GlueTask::Qnli | GlueTask::Rte
    );
    let title = task.title();
    match (predictions, task.labels()) {
        (Predictions::Scores(scores), None) => scores
            .iter()
            .enumerate()
            .map(|(row, score)| {
                if score.is_finite() {
                    Ok(format!("{:.3}", score.clamp(0.0, 5.0)))
                } else {
                    Err(error(format!("the score of record {row} is {score}")))
                }
            })
            .collect(),
        (Predictions::Classes(classes, model), Some(labels)) => {
            let mapping = task.class_mapping(model)?;
            let values = classes.iter().enumerate().map(|(row, class)| {
                let own = mapping.iter().position(|mapped| mapped == class);
                let own = own.ok_or_else(|| {
                    let count = model.len();
                    error(format!(
                        "the class of record {row} is {class}, and there are {count}"
                    ))
                })?;
                Ok(match labels.name(own) {
                    Some(name) if by_name => name.to_string(),
                    _ => own.to_string(),
                })
            });
            values.collect()
        }
        (Predictions::Scores(_), Some(_)) => {
            Err(error(format!("scores for {title}, which has classes")))
        }
        (Predictions::Classes(..), None) => {
            Err(error(format!("classes for {title}, which has scores")))
        }
    }
}

/// Refuses ids that are too few, too many, the same, or would break a row.
fn check_ids(ids: &[&str], records: usize) -> Result<(), TrainError> {
    if ids.len() != records {
        return Err(error(format!(
            "{records} predictions for {} ids; each record has one of both",
            ids.len()
        )));
    }
    let mut seen = HashSet::new();
    for id in ids {
        if id.is_empty() || id.contains(['\t', '\n', '\r']) {
            return Err(error(format!(
                "the id {id:?} is empty, or has a tab or a line break in it"
            )));
        }
        if !seen.insert(id) {
            return Err(error(format!("two records have the id `{id}`")));
        }
    }
    Ok(())
}

fn error(message: String) -> TrainError {
    TrainError::config("predictions", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(task: GlueTask, classes: &[usize]) -> Result<String, TrainError> {
        let labels = task.labels().unwrap();
        glue_submission(task, None, Predictions::Classes(classes, &labels))
    }

    #[test]
    fn tasks_are_answered_by_name_or_by_index_as_the_server_asks() {
        for (task, first, second) in [
            (GlueTask::Cola, "0", "1"),
            (GlueTask::Sst2, "0", "1"),
            (GlueTask::Mrpc, "0", "1"),
            (GlueTask::Qqp, "0", "1"),
            (GlueTask::Mnli, "entailment", "neutral"),
            (GlueTask::MnliMismatched, "entailment", "neutral"),
            (GlueTask::Qnli, "entailment", "not_entailment"),
            (GlueTask::Rte, "entailment", "not_entailment"),
            (GlueTask::Wnli, "0", "1"),
        ] {
            let expected = format!("index\tprediction\n0\t{first}\n1\t{second}\n");
            assert_eq!(classes(task, &[0, 1]).unwrap(), expected, "{task}");
        }
    }

    #[test]
    fn classes_of_a_model_in_another_order_are_answered_as_the_task_has_them() {
        let model = LabelSet::new(["acceptable", "unacceptable"]).unwrap();
        let predictions = Predictions::Classes(&[0, 1], &model);
        let file = glue_submission(GlueTask::Cola, Some(&["7", "9"]), predictions).unwrap();
        assert_eq!(file, "index\tprediction\n7\t1\n9\t0\n");
    }

    #[test]
    fn scores_are_clipped_and_have_three_decimals() {
        let scores = Predictions::Scores(&[-0.3, 1.23456, 5.2]);
        let file = glue_submission(GlueTask::Stsb, None, scores).unwrap();
        assert_eq!(file, "index\tprediction\n0\t0.000\n1\t1.235\n2\t5.000\n");
    }

    #[test]
    fn what_cannot_be_submitted_is_refused() {
        let labels = GlueTask::Rte.labels().unwrap();
        let two = Predictions::Classes(&[0, 1], &labels);
        fn message(task: GlueTask, ids: Option<&[&str]>, predictions: Predictions) -> String {
            let error = glue_submission(task, ids, predictions).unwrap_err();
            error.to_string()
        }
        let rte = GlueTask::Rte;
        for (ids, reason) in [
            (vec!["1"], "2 predictions for 1 ids"),
            (vec!["1", "1"], "two records have the id `1`"),
            (vec!["1", "2\t3"], "a tab"),
        ] {
            let message = message(rte, Some(&ids), two);
            assert!(message.contains(reason), "{message}");
        }
        let unknown = Predictions::Classes(&[2], &labels);
        assert!(message(rte, None, unknown).contains("class of record 0 is 2"));
        assert!(message(GlueTask::Mnli, None, two).contains("those of MNLI are"));
        assert!(message(GlueTask::Stsb, None, two).contains("has scores"));
        assert!(message(rte, None, Predictions::Scores(&[0.5])).contains("has classes"));
        let nan = Predictions::Scores(&[f64::NAN]);
        assert!(message(GlueTask::Stsb, None, nan).contains("record 0 is NaN"));
    }
}
