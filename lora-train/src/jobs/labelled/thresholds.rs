//! Probabilities above which classes are predicted, where an example has any number of them.

use crate::TrainError;
use crate::error::listed;
use crate::jobs::ranges::within;
use lora_models::encoder::Labels;

/// Threshold of each class: 0.5, as in transformers, unless the options say otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Thresholds(Vec<f64>);

impl Thresholds {
    /// Creates the thresholds of the option `threshold`: one for all classes, or one for each.
    ///
    /// # Errors
    /// [`TrainError::Config`] for another number of them, and a value that is no probability.
    pub fn new(given: Option<&[f64]>, head: &Labels) -> Result<Self, TrainError> {
        let Some(given) = given else {
            return Ok(Self::default());
        };
        let refuse = |message: String| Err(TrainError::config("threshold", message));
        let names = head.names();
        for &threshold in given {
            within(
                "threshold",
                threshold,
                0.0..=1.0,
                "a probability from 0 to 1",
            )?;
        }
        if given.len() != 1 && given.len() != names.len() {
            let (given, classes) = (given.len(), names.len());
            let names = listed(names);
            return refuse(format!(
                "has {given} values, expected one, or one for each of the {classes} classes {names}"
            ));
        }
        Ok(Self(given.to_vec()))
    }

    /// Returns the classes whose probability is above their threshold.
    pub fn predicted(&self, logits: &[f32]) -> Vec<usize> {
        let above = |&class: &usize| sigmoid(logits[class]) > self.of(class);
        (0..logits.len()).filter(above).collect()
    }

    fn of(&self, class: usize) -> f64 {
        match self.0.as_slice() {
            [] => 0.5,
            [all] => *all,
            each => each.get(class).copied().unwrap_or(0.5),
        }
    }
}

/// Computes the probability of a class that an example has or has not, whatever its other classes.
pub(super) fn sigmoid(logit: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(logit)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(names: &[&str]) -> Labels {
        Labels::MultiLabel(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_class_is_predicted_above_its_threshold() {
        let head = head(&["a", "b", "c"]);
        let predicted = |given: Option<&[f64]>| {
            Thresholds::new(given, &head)
                .unwrap()
                .predicted(&[0.0, 0.1, -1.0])
        };
        // A logit of 0 is a probability of one half, which is not above it.
        assert_eq!(predicted(None), [1]);
        assert_eq!(predicted(Some(&[0.2])), [0, 1, 2]);
        assert_eq!(predicted(Some(&[0.4, 0.9, 0.3])), [0]);
    }

    #[test]
    fn thresholds_that_fit_no_class_are_refused() {
        let head = head(&["a", "b", "c"]);
        for (given, reason) in [(&[0.5, 0.5][..], "3 classes `a`"), (&[1.5], "probability")] {
            let message = Thresholds::new(Some(given), &head).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
    }
}
