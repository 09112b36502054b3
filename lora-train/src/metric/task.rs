//! Metrics of a task, under the names of Hugging Face's `evaluate`, and its primary score.

use std::collections::BTreeMap;

use super::classification::{Average, accuracy, f1, matthews};
use super::correlation::{mean_absolute_error, mean_squared_error, pearson, spearman};
use super::multi_label::{MULTI_LABEL_METRICS, multi_label};
use super::{check_classes, check_pairs, error};
use crate::error::TrainError;

/// Metrics of a classification or regression task.
///
/// | metric | in the map | primary | GLUE |
/// | --- | --- | --- | --- |
/// | [`Accuracy`](Self::Accuracy) | `accuracy` | `accuracy` | MNLI, QNLI, RTE, SST-2, WNLI |
/// | [`AccuracyAndF1`](Self::AccuracyAndF1) | `accuracy`, `f1`, `combined_score` | their mean | MRPC, QQP |
/// | [`Matthews`](Self::Matthews) | `matthews_correlation` | the same | CoLA |
/// | [`PearsonAndSpearman`](Self::PearsonAndSpearman) | `pearson`, `spearmanr`, `combined_score` | their mean | STS-B |
/// | [`MultiLabel`](Self::MultiLabel) | `micro_f1`, `macro_f1`, `micro_precision`, `micro_recall`, `accuracy` | `micro_f1` | |
/// | [`Regression`](Self::Regression) | `mse`, `mae`, `pearson`, `spearmanr` | `mse` | |
///
/// # Examples
/// ```
/// use lora_train::metric::TaskMetric;
///
/// let metric = TaskMetric::AccuracyAndF1;
/// let metrics = metric.class_metrics(&[1, 1, 0, 1], &[1, 0, 0, 1], 2)?;
/// assert_eq!((metrics["accuracy"], metrics["f1"]), (0.75, 0.8));
/// assert_eq!(metric.score(&metrics), Some(0.775));
/// # Ok::<(), lora_train::TrainError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskMetric {
    /// Share of examples whose class is predicted.
    Accuracy,
    /// Accuracy and F1: the F1 of class 1 for two classes, the macro mean for more.
    AccuracyAndF1,
    /// F1 of any number of classes for each example, and the share of examples with all of them right.
    MultiLabel,
    /// Matthews' correlation.
    Matthews,
    /// Pearson's and Spearman's correlation of predicted numbers.
    PearsonAndSpearman,
    /// Mean squared and absolute errors of predicted numbers, and both correlations.
    Regression,
}

impl TaskMetric {
    /// Returns the names of the metrics in the map.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Accuracy => &["accuracy"],
            Self::AccuracyAndF1 => &["accuracy", "f1", "combined_score"],
            Self::MultiLabel => MULTI_LABEL_METRICS,
            Self::Matthews => &["matthews_correlation"],
            Self::PearsonAndSpearman => &["pearson", "spearmanr", "combined_score"],
            Self::Regression => &["mse", "mae", "pearson", "spearmanr"],
        }
    }

    /// Returns true for metrics of predicted numbers, computed by [`value_metrics`](Self::value_metrics).
    pub fn is_regression(self) -> bool {
        matches!(self, Self::PearsonAndSpearman | Self::Regression)
    }

    /// Returns the name of the primary metric, by which models are compared.
    pub fn primary(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::MultiLabel => "micro_f1",
            Self::AccuracyAndF1 | Self::PearsonAndSpearman => "combined_score",
            Self::Matthews => "matthews_correlation",
            Self::Regression => "mse",
        }
    }

    /// Returns true if a higher [`primary`](Self::primary) metric is better.
    pub fn higher_is_better(self) -> bool {
        self != Self::Regression
    }

    /// Returns the primary score among `metrics`; `None` where it is undefined, see [`value_metrics`](Self::value_metrics).
    pub fn score(self, metrics: &BTreeMap<String, f64>) -> Option<f64> {
        metrics.get(self.primary()).copied()
    }

    /// Computes the metrics of predicted classes; `classes` is the number of classes.
    ///
    /// # Errors
    /// Returns [`TrainError::Metric`] if the lengths differ or are zero, a class is not below `classes`, or the metric is for
    /// numbers.
    pub fn class_metrics(
        self,
        predictions: &[usize],
        labels: &[usize],
        classes: usize,
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        let name = self.name();
        check_pairs(name, predictions, labels)?;
        check_classes(name, predictions, labels, classes)?;
        Ok(match self {
            Self::Accuracy => defined([("accuracy", Some(accuracy(predictions, labels)?))]),
            Self::AccuracyAndF1 => {
                let average = if classes <= 2 {
                    Average::Binary
                } else {
                    Average::Macro
                };
                let accuracy = accuracy(predictions, labels)?;
                let f1 = f1(predictions, labels, average)?;
                defined([
                    ("accuracy", Some(accuracy)),
                    ("f1", Some(f1)),
                    ("combined_score", Some((accuracy + f1) / 2.0)),
                ])
            }
            Self::Matthews => {
                let correlation = matthews(predictions, labels)?;
                defined([("matthews_correlation", Some(correlation))])
            }
            Self::MultiLabel => {
                let sets = |classes: &[usize]| classes.iter().map(|&class| vec![class]).collect();
                let (predictions, labels): (Vec<_>, Vec<_>) = (sets(predictions), sets(labels));
                multi_label(&predictions, &labels, classes)?
            }
            Self::PearsonAndSpearman | Self::Regression => {
                return Err(error(
                    name,
                    "it is for numbers, but the predictions are classes; choose accuracy, F1 or Matthews' correlation for \
                     a classification task",
                ));
            }
        })
    }

    /// Computes the metrics of predicted numbers.
    ///
    /// An undefined correlation, with a constant side or a single pair, is left out, and so is the combined score;
    /// `evaluate` returns NaN for those.
    ///
    /// # Errors
    /// Returns [`TrainError::Metric`] if the lengths differ or are zero, a number is not finite, or the metric is for
    /// classes.
    pub fn value_metrics(
        self,
        predictions: &[f64],
        labels: &[f64],
    ) -> Result<BTreeMap<String, f64>, TrainError> {
        if !self.is_regression() {
            return Err(error(
                self.name(),
                "it is for classes, but the predictions are numbers; choose a correlation or the mean squared error for \
                 a regression task",
            ));
        }
        let pearson = pearson(predictions, labels)?;
        let spearman = spearman(predictions, labels)?;
        let mut metrics = defined([("pearson", pearson), ("spearmanr", spearman)]);
        metrics.extend(if self == Self::Regression {
            let squared = mean_squared_error(predictions, labels)?;
            let absolute = mean_absolute_error(predictions, labels)?;
            defined([("mse", Some(squared)), ("mae", Some(absolute))])
        } else {
            let mean = pearson.zip(spearman).map(|(p, s)| (p + s) / 2.0);
            defined([("combined_score", mean)])
        });
        Ok(metrics)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::AccuracyAndF1 => "accuracy and F1",
            Self::MultiLabel => "F1 of several classes",
            Self::Matthews => "Matthews' correlation",
            Self::PearsonAndSpearman => "Pearson's and Spearman's correlation",
            Self::Regression => "regression",
        }
    }
}

/// Collects the metrics that are defined.
fn defined<const N: usize>(metrics: [(&str, Option<f64>); N]) -> BTreeMap<String, f64> {
    let metrics = metrics.into_iter();
    metrics
        .filter_map(|(name, value)| Some((name.to_string(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [TaskMetric; 6] = [
        TaskMetric::Accuracy,
        TaskMetric::AccuracyAndF1,
        TaskMetric::MultiLabel,
        TaskMetric::Matthews,
        TaskMetric::PearsonAndSpearman,
        TaskMetric::Regression,
    ];

    #[test]
    fn each_metric_has_its_primary_in_its_map() {
        for metric in ALL {
            let metrics = if metric.is_regression() {
                metric.value_metrics(&[1.0, 2.5, 3.0], &[1.0, 2.0, 1.5])
            } else {
                metric.class_metrics(&[1, 0, 1], &[1, 1, 1], 2)
            };
            assert!(metric.score(&metrics.unwrap()).is_some(), "{metric:?}");
        }
    }

    #[test]
    fn only_the_squared_error_is_better_when_lower() {
        let lower: Vec<TaskMetric> = ALL.into_iter().filter(|m| !m.higher_is_better()).collect();
        assert_eq!(lower, [TaskMetric::Regression]);
    }

    #[test]
    fn more_than_two_classes_have_the_macro_mean() {
        let (predictions, labels) = ([0, 1, 2, 2], [0, 1, 1, 2]);
        let metrics = TaskMetric::AccuracyAndF1
            .class_metrics(&predictions, &labels, 3)
            .unwrap();
        assert_eq!(
            metrics["f1"],
            f1(&predictions, &labels, Average::Macro).unwrap()
        );
        assert_eq!(
            metrics["combined_score"],
            (metrics["accuracy"] + metrics["f1"]) / 2.0
        );
    }

    #[test]
    fn constant_predictions_leave_the_correlations_out_and_keep_the_errors() {
        let (predictions, labels) = ([2.0; 3], [1.0, 2.0, 3.0]);
        let metrics = TaskMetric::PearsonAndSpearman
            .value_metrics(&predictions, &labels)
            .unwrap();
        assert!(metrics.is_empty(), "{metrics:?}");
        assert_eq!(TaskMetric::PearsonAndSpearman.score(&metrics), None);
        let metrics = TaskMetric::Regression
            .value_metrics(&predictions, &labels)
            .unwrap();
        assert_eq!(metrics.keys().collect::<Vec<_>>(), ["mae", "mse"]);
        assert_eq!(TaskMetric::Regression.score(&metrics), Some(2.0 / 3.0));
    }

    #[test]
    fn classes_for_numbers_and_numbers_for_classes_are_errors() {
        assert!(TaskMetric::Regression.class_metrics(&[0], &[0], 2).is_err());
        assert!(TaskMetric::Matthews.value_metrics(&[0.5], &[0.0]).is_err());
        let error = TaskMetric::Accuracy
            .class_metrics(&[0, 1], &[0, 5], 3)
            .unwrap_err();
        assert!(error.to_string().contains("class 5"), "{error}");
        assert!(error.to_string().contains("3 classes"), "{error}");
    }
}
