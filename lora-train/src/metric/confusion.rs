//! Confusion matrix of predicted classes.

use std::fmt;

use super::{check_classes, check_pairs, error};
use crate::error::TrainError;

const METRIC: &str = "confusion matrix";
/// Largest number of classes; memory grows with its square.
const MAX_CLASSES: usize = 4096;

/// Number of examples by label (rows) and predicted class (columns), as in scikit-learn's `confusion_matrix`.
///
/// # Examples
/// ```
/// use lora_train::metric::ConfusionMatrix;
///
/// let matrix = ConfusionMatrix::new(&[0, 1, 1, 1], &[0, 0, 1, 1], 2)?.with_names(["no", "yes"])?;
/// assert_eq!(matrix.get(0, 1), Some(1));
/// assert_eq!(matrix.row(1), Some(&[0, 2][..]));
/// assert_eq!(
///     matrix.to_string(),
///     "label \\ prediction  no  yes\n\
///      no                   1    1\n\
///      yes                  0    2\n"
/// );
/// # Ok::<(), lora_train::TrainError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// `[label, prediction]`, row after row.
    counts: Vec<u64>,
    names: Vec<String>,
}

impl ConfusionMatrix {
    /// Counts the examples. Classes are named by their index until [`with_names`](Self::with_names).
    ///
    /// # Errors
    /// Returns [`TrainError::Metric`] if the lengths differ or are zero, a class is not below `classes`, or `classes` is
    /// more than 4096.
    pub fn new(
        predictions: &[usize],
        labels: &[usize],
        classes: usize,
    ) -> Result<Self, TrainError> {
        check_pairs(METRIC, predictions, labels)?;
        if classes > MAX_CLASSES {
            let message =
                format!("{classes} classes; a confusion matrix has at most {MAX_CLASSES}");
            return Err(error(METRIC, message));
        }
        check_classes(METRIC, predictions, labels, classes)?;
        let mut counts = vec![0; classes * classes];
        for (prediction, label) in predictions.iter().zip(labels) {
            counts[label * classes + prediction] += 1;
        }
        Ok(Self {
            classes,
            counts,
            names: (0..classes).map(|class| class.to_string()).collect(),
        })
    }

    /// Sets the names of the classes, for display.
    ///
    /// # Errors
    /// Returns [`TrainError::Metric`] unless there is one name per class.
    pub fn with_names<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Result<Self, TrainError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.len() != self.classes {
            let (names, classes) = (names.len(), self.classes);
            let message = format!("{names} names for {classes} classes; expected one for each");
            return Err(error(METRIC, message));
        }
        self.names = names;
        Ok(self)
    }

    /// Returns the names of the classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of examples with `label` that were predicted as `prediction`; `None` if there is no such class.
    pub fn get(&self, label: usize, prediction: usize) -> Option<u64> {
        self.row(label)?.get(prediction).copied()
    }

    /// Returns the counts of predictions for the examples with `label`; `None` if there is no such class.
    pub fn row(&self, label: usize) -> Option<&[u64]> {
        (label < self.classes).then(|| &self.counts[label * self.classes..][..self.classes])
    }
}

impl fmt::Display for ConfusionMatrix {
    /// Formats a table with labels on the left and predictions above.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CORNER: &str = "label \\ prediction";
        let width = |text: &str| text.chars().count();
        // A name with a line break stays in its row.
        let names: Vec<String> = self
            .names
            .iter()
            .map(|name| name.replace('\n', "\\n"))
            .collect();
        let first = names.iter().map(|name| width(name));
        let first = first.chain([width(CORNER)]).max().unwrap_or(0);
        let columns: Vec<usize> = (0..self.classes)
            .map(|column| {
                let most = (0..self.classes)
                    .filter_map(|row| self.get(row, column))
                    .max();
                width(&most.unwrap_or(0).to_string()).max(width(&names[column]))
            })
            .collect();

        write!(f, "{CORNER:<first$}")?;
        for (name, column) in names.iter().zip(&columns) {
            write!(f, "  {name:>column$}")?;
        }
        writeln!(f)?;
        for (name, row) in names.iter().zip(self.counts.chunks(self.classes.max(1))) {
            write!(f, "{name:<first$}")?;
            for (count, column) in row.iter().zip(&columns) {
                write!(f, "  {count:>column$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_labels_and_a_class_that_does_not_occur_has_zeros() {
        let matrix = ConfusionMatrix::new(&[2, 2, 0], &[0, 2, 0], 4).unwrap();
        assert_eq!(matrix.row(0), Some(&[1, 0, 1, 0][..]));
        assert_eq!(matrix.row(2), Some(&[0, 0, 1, 0][..]));
        assert_eq!(matrix.row(3), Some(&[0; 4][..]));
        assert_eq!((matrix.row(4), matrix.get(0, 4)), (None, None));
    }

    #[test]
    fn columns_are_as_wide_as_their_names_and_counts() {
        let predictions = vec![0; 1234];
        let matrix = ConfusionMatrix::new(&predictions, &predictions, 2).unwrap();
        let table = matrix
            .with_names(["é", "a name longer than the corner"])
            .unwrap();
        let table = table.to_string();
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths, [widths[0]; 3], "{table}");
        assert!(table.contains("  1234  "), "{table}");
    }

    #[test]
    fn a_class_too_many_wrong_names_and_too_great_a_table_are_errors() {
        let error = ConfusionMatrix::new(&[0, 3], &[0, 1], 3).unwrap_err();
        assert!(error.to_string().contains("class 3"), "{error}");
        assert!(ConfusionMatrix::new(&[0], &[0], usize::MAX).is_err());
        let matrix = ConfusionMatrix::new(&[0], &[0], 2).unwrap();
        assert!(matrix.with_names(["one"]).is_err());
        assert!(ConfusionMatrix::new(&[], &[], 2).is_err());
    }
}
