//! Accuracy, precision, recall, F1 and Matthews' correlation of predicted classes, as scikit-learn computes them.

use std::collections::BTreeMap;

use super::{check_classes, check_pairs};
use crate::error::TrainError;

/// Average of the F1 of several classes: `average` of scikit-learn's `f1_score`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Average {
    /// F1 of class 1, for classes 0 and 1 only.
    Binary,
    /// Unweighted mean over classes.
    Macro,
    /// F1 of the hits and misses summed over all classes; with one label per example, the accuracy.
    Micro,
    /// Mean over classes, weighted by the number of examples with the label.
    Weighted,
}

/// Precision, recall and F1 of one class; 0 where they are undefined (scikit-learn's `zero_division=0`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScore {
    /// The class.
    pub class: usize,
    /// Share of the examples predicted as this class that have its label.
    pub precision: f64,
    /// Share of the examples with this label that are predicted as it.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Number of examples with this label.
    pub support: usize,
}

/// Computes the share of examples whose class is predicted.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero.
///
/// # Examples
/// ```
/// use lora_train::metric::accuracy;
///
/// assert_eq!(accuracy(&[0, 2, 1, 1], &[0, 2, 1, 0])?, 0.75);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn accuracy(predictions: &[usize], labels: &[usize]) -> Result<f64, TrainError> {
    check_pairs("accuracy", predictions, labels)?;
    let correct = predictions.iter().zip(labels).filter(|(p, l)| p == l);
    Ok(correct.count() as f64 / labels.len() as f64)
}

/// Computes the F1 score, equal to scikit-learn's `f1_score(labels, predictions, average=…, zero_division=0)`.
///
/// As in scikit-learn, classes that are neither predicted nor a label are left out of averages: with four of a model's five
/// classes in the data, the mean is over four.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero, and for [`Average::Binary`] if there is a class other
/// than 0 and 1.
///
/// # Examples
/// ```
/// use lora_train::metric::{Average, f1};
///
/// let (predictions, labels) = ([1, 1, 0, 1, 0], [1, 0, 0, 1, 1]);
/// // Two hits, one false alarm and one miss.
/// assert_eq!(f1(&predictions, &labels, Average::Binary)?, 2.0 * 2.0 / (2.0 * 2.0 + 1.0 + 1.0));
/// assert_eq!(f1(&predictions, &labels, Average::Micro)?, 0.6);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn f1(predictions: &[usize], labels: &[usize], average: Average) -> Result<f64, TrainError> {
    check_pairs("F1", predictions, labels)?;
    if average == Average::Binary {
        check_classes("F1", predictions, labels, 2)?;
    }
    let counts = count(predictions, labels);
    Ok(match average {
        Average::Binary => counts.get(&1).map_or(0.0, Counts::f1),
        Average::Macro => counts.values().map(Counts::f1).sum::<f64>() / counts.len() as f64,
        Average::Micro => {
            let mut all = Counts::default();
            for counts in counts.values() {
                all.hits += counts.hits;
                all.predicted += counts.predicted;
                all.labelled += counts.labelled;
            }
            all.f1()
        }
        Average::Weighted => {
            let weighted = counts.values().map(|c| c.f1() * c.labelled as f64);
            weighted.sum::<f64>() / labels.len() as f64
        }
    })
}

/// Computes precision, recall and F1 of each class that is predicted or a label, in order, equal to scikit-learn's
/// `precision_recall_fscore_support(…, average=None, zero_division=0)`.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero.
///
/// # Examples
/// ```
/// use lora_train::metric::class_scores;
///
/// let scores = class_scores(&[0, 0, 3], &[0, 3, 3])?;
/// assert_eq!((scores[0].class, scores[0].precision, scores[0].recall), (0, 0.5, 1.0));
/// assert_eq!((scores[1].class, scores[1].precision, scores[1].recall), (3, 1.0, 0.5));
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn class_scores(
    predictions: &[usize],
    labels: &[usize],
) -> Result<Vec<ClassScore>, TrainError> {
    check_pairs("F1", predictions, labels)?;
    let score = |(class, counts): (usize, Counts)| ClassScore {
        class,
        precision: ratio(counts.hits, counts.predicted),
        recall: ratio(counts.hits, counts.labelled),
        f1: counts.f1(),
        support: counts.labelled,
    };
    Ok(count(predictions, labels).into_iter().map(score).collect())
}

/// Computes Matthews' correlation coefficient for any number of classes, from -1 to 1, equal to scikit-learn's
/// `matthews_corrcoef`. It is 0 where it is undefined: if only one class is predicted or a label.
///
/// Gorodkin, *Comparing two K-category assignments by a K-category correlation coefficient*, 2004, equation 8.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero.
///
/// # Examples
/// ```
/// use lora_train::metric::matthews;
///
/// let correlation = matthews(&[1, 0, 1, 1], &[1, 1, 1, 0])?;
/// assert!((correlation + 1.0 / 3.0).abs() < 1e-15);
/// assert_eq!(matthews(&[1, 1, 1, 1], &[1, 1, 1, 0])?, 0.0);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn matthews(predictions: &[usize], labels: &[usize]) -> Result<f64, TrainError> {
    check_pairs("Matthews' correlation", predictions, labels)?;
    let counts = count(predictions, labels);
    // Integers cancel exactly; each product is below the square of a slice's length.
    let sum = |product: fn(&Counts) -> usize| -> i128 {
        counts.values().map(|counts| product(counts) as i128).sum()
    };
    let sum_of_products = |left: fn(&Counts) -> usize, right: fn(&Counts) -> usize| -> i128 {
        let products = counts.values().map(|c| left(c) as i128 * right(c) as i128);
        products.sum()
    };
    let (predicted, labelled) = (|c: &Counts| c.predicted, |c: &Counts| c.labelled);
    let n = labels.len() as i128;
    let covariance = sum(|c| c.hits) * n - sum_of_products(predicted, labelled);
    let prediction_variance = n * n - sum_of_products(predicted, predicted);
    let label_variance = n * n - sum_of_products(labelled, labelled);
    if prediction_variance == 0 || label_variance == 0 {
        return Ok(0.0);
    }
    Ok(covariance as f64 / (prediction_variance as f64 * label_variance as f64).sqrt())
}

/// Counts of one class.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Examples with this label that are predicted as this class.
    hits: usize,
    /// Examples predicted as this class.
    predicted: usize,
    /// Examples with this label.
    labelled: usize,
}

impl Counts {
    fn f1(&self) -> f64 {
        ratio(2 * self.hits, self.predicted + self.labelled)
    }
}

/// Counts the examples of each class that occurs. In a map, since a single large class number must not allocate memory for
/// all smaller ones.
fn count(predictions: &[usize], labels: &[usize]) -> BTreeMap<usize, Counts> {
    let mut counts: BTreeMap<usize, Counts> = BTreeMap::new();
    for (&prediction, &label) in predictions.iter().zip(labels) {
        counts.entry(prediction).or_default().predicted += 1;
        let by_label = counts.entry(label).or_default();
        by_label.labelled += 1;
        by_label.hits += usize::from(prediction == label);
    }
    counts
}

/// Computes the harmonic mean of precision and recall; 0 if both are 0.
pub(super) fn harmonic_mean(precision: f64, recall: f64) -> f64 {
    match precision + recall {
        0.0 => 0.0,
        sum => 2.0 * precision * recall / sum,
    }
}

/// Computes `part / whole`; 0 if `whole` is 0.
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_never_predicted_has_a_precision_of_0_and_pulls_the_macro_mean_down() {
        let (predictions, labels) = ([0, 0, 0, 0], [0, 0, 0, 1]);
        let scores = class_scores(&predictions, &labels).unwrap();
        assert_eq!((scores[1].precision, scores[1].recall), (0.0, 0.0));
        let of_zero = 6.0 / 7.0;
        assert_eq!(
            f1(&predictions, &labels, Average::Macro).unwrap(),
            of_zero / 2.0
        );
        assert_eq!(
            f1(&predictions, &labels, Average::Weighted).unwrap(),
            of_zero * 3.0 / 4.0
        );
        assert_eq!(f1(&predictions, &labels, Average::Binary).unwrap(), 0.0);
    }

    #[test]
    fn micro_f1_is_the_accuracy() {
        let (predictions, labels) = ([0, 4, 2, 2, 1, 0, 7], [0, 4, 1, 2, 2, 7, 7]);
        assert_eq!(
            f1(&predictions, &labels, Average::Micro).unwrap(),
            accuracy(&predictions, &labels).unwrap()
        );
    }

    #[test]
    fn a_third_class_is_no_binary_problem() {
        let error = f1(&[0, 2], &[0, 1], Average::Binary).unwrap_err();
        assert!(error.to_string().contains("example 1"), "{error}");
        assert!(error.to_string().contains("class 2"), "{error}");
    }

    #[test]
    fn nothing_and_halves_of_different_lengths_are_errors() {
        assert!(accuracy(&[], &[]).is_err());
        let error = matthews(&[0, 1], &[0, 1, 1]).unwrap_err();
        assert!(error.to_string().contains("2 predictions"), "{error}");
        assert!(error.to_string().contains("3 labels"), "{error}");
        assert!(f1(&[], &[], Average::Macro).is_err());
        assert!(class_scores(&[1], &[]).is_err());
    }

    #[test]
    fn a_great_class_number_takes_no_memory() {
        assert_eq!(accuracy(&[usize::MAX, 0], &[usize::MAX, 1]).unwrap(), 0.5);
        assert_eq!(class_scores(&[usize::MAX], &[0]).unwrap().len(), 2);
    }
}
