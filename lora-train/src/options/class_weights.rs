//! Class weights in the loss.

use serde::{Deserialize, Serialize};

/// Weights of the classes in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WeightsFile", into = "WeightsFile")]
pub enum ClassWeighting {
    /// Inverse frequency of each class: `"balanced"`.
    Balanced,
    /// One weight per class: `[1.0, 2.5]`.
    PerClass(Vec<f64>),
}

/// Form of [`ClassWeighting`] in a recipe.
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
            WeightsFile::List(weights) => Ok(Self::PerClass(weights)),
        }
    }
}

impl From<ClassWeighting> for WeightsFile {
    fn from(weighting: ClassWeighting) -> Self {
        match weighting {
            ClassWeighting::Balanced => Self::Word("balanced".into()),
            ClassWeighting::PerClass(weights) => Self::List(weights),
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
        .map(ClassWeighting::PerClass)
        .map_err(|_| "expected `balanced` or one number per class".into())
}
