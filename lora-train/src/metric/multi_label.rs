//! Metrics of examples with any number of classes.

use std::collections::BTreeMap;

use super::classification::ratio;
use super::{check_pairs, error};
use crate::error::TrainError;

const METRIC: &str = "F1 of several classes";

/// Names of the metrics of [`multi_label`].
pub const MULTI_LABEL_METRICS: &[&str] = &[
    "micro_f1",
    "macro_f1",
    "micro_precision",
    "micro_recall",
    "accuracy",
];

/// Computes the metrics of examples with any number of classes each, equal to scikit-learn on a matrix with a column for each
/// class and `zero_division=0`.
///
/// - `micro_f1`, `micro_precision`, `micro_recall`: over the hits and misses of all classes together
/// - `macro_f1`: the mean over all classes, also those that no example has
/// - `accuracy`: the share of examples with exactly the right classes
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero, or a class is not below `classes`.
///
/// # Examples
/// ```
/// use lora_train::metric::multi_label;
///
/// let metrics = multi_label(&[vec![0, 1], vec![]], &[vec![0], vec![1]], 2)?;
/// assert_eq!((metrics["micro_f1"], metrics["macro_f1"]), (0.5, 0.5));
/// assert_eq!(metrics["accuracy"], 0.0);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn multi_label(
    predictions: &[Vec<usize>],
    labels: &[Vec<usize>],
    classes: usize,
) -> Result<BTreeMap<String, f64>, TrainError> {
    check_pairs(METRIC, predictions, labels)?;
    let all = predictions.iter().chain(labels).flatten();
    if let Some(class) = all.into_iter().find(|&&class| class >= classes) {
        let message = format!("class {class}; with {classes} classes it must be below {classes}");
        return Err(error(METRIC, message));
    }
    let mut counts = vec![[0usize; 3]; classes];
    let mut exact = 0;
    for (predicted, labelled) in predictions.iter().zip(labels) {
        for &class in predicted {
            counts[class][1] += 1;
            counts[class][0] += usize::from(labelled.contains(&class));
        }
        for &class in labelled {
            counts[class][2] += 1;
        }
        let all_predicted = labelled.iter().all(|class| predicted.contains(class));
        exact += usize::from(all_predicted && labelled.len() == predicted.len());
    }
    let f1 = |[hits, predicted, labelled]: [usize; 3]| ratio(2 * hits, predicted + labelled);
    let sum = |of: usize| counts.iter().map(|count| count[of]).sum::<usize>();
    let total = [sum(0), sum(1), sum(2)];
    let macro_f1 = counts.iter().map(|&count| f1(count)).sum::<f64>() / classes.max(1) as f64;
    let values = [
        f1(total),
        macro_f1,
        ratio(total[0], total[1]),
        ratio(total[0], total[2]),
        ratio(exact, labels.len()),
    ];
    let names = MULTI_LABEL_METRICS.iter().map(ToString::to_string);
    Ok(names.zip(values).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `f1_score(labels, predictions, average=…, zero_division=0)` of scikit-learn 1.7 and its siblings.
    #[test]
    fn the_metrics_are_those_of_scikit_learn() {
        let predictions = [vec![0, 2], vec![1], vec![], vec![0, 1]];
        let labels = [vec![0], vec![1, 2], vec![], vec![0, 1]];
        let metrics = multi_label(&predictions, &labels, 4).unwrap();
        let expected = [
            ("micro_f1", 0.8),
            ("macro_f1", 0.5),
            ("micro_precision", 0.8),
        ];
        for (name, value) in expected
            .into_iter()
            .chain([("micro_recall", 0.8), ("accuracy", 0.5)])
        {
            assert!((metrics[name] - value).abs() < 1e-12, "{name}: {metrics:?}");
        }
        assert!(multi_label(&[vec![4]], &[vec![0]], 4).is_err());
        assert!(multi_label(&[], &[], 4).is_err());
    }
}
