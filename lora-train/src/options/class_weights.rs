//! How much each class counts in the loss.

use serde::{Deserialize, Serialize};

/// How much each class counts in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WeightsFile", into = "WeightsFile")]
pub enum ClassWeighting {
    /// By one over its share of the labels: `"balanced"`.
    Balanced,
    /// As given: `[1.0, 2.5]`.
    Given(Vec<f64>),
}

/// The form of [`ClassWeighting`] in a recipe.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WeightsFile {
    Word(String),
    List(Vec<f64>),
}

impl TryFrom<WeightsFile> for ClassWeighting {
    type Error = String;

    fn try_from(file: WeightsFile) -> Result<Self, String> {
        match file {
            WeightsFile::Word(word) => parse_weights(&word),
            WeightsFile::List(weights) => Ok(Self::Given(weights)),
        }
    }
}

impl From<ClassWeighting> for WeightsFile {
    fn from(weighting: ClassWeighting) -> Self {
        match weighting {
            ClassWeighting::Balanced => Self::Word("balanced".into()),
            ClassWeighting::Given(weights) => Self::List(weights),
        }
    }
}

pub(super) fn parse_weights(text: &str) -> Result<ClassWeighting, String> {
    if text == "balanced" {
        return Ok(ClassWeighting::Balanced);
    }
    let weights = text.split(',').map(|weight| weight.trim().parse());
    let weights: Result<Vec<f64>, _> = weights.collect();
    weights
        .map(ClassWeighting::Given)
        .map_err(|_| "expected `balanced`, or a number for each class".into())
}
