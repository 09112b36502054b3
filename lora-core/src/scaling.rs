//! The factor before `B A`: its only home.

use serde::{Deserialize, Serialize};

/// How alpha and rank make the factor that the adapter's contribution is multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraScaling {
    /// `alpha / rank` (Hu et al. 2021, section 4.1).
    #[default]
    Standard,
    /// `alpha / √rank`, rank-stabilized LoRA (Kalajdzievski 2023).
    RankStabilized,
}

impl LoraScaling {
    /// The factor for this alpha and rank.
    ///
    /// ```
    /// use lora_core::LoraScaling;
    /// assert_eq!(LoraScaling::Standard.factor(32.0, 4), 8.0);
    /// assert_eq!(LoraScaling::RankStabilized.factor(32.0, 4), 16.0);
    /// ```
    pub fn factor(self, alpha: f64, rank: usize) -> f64 {
        let rank = rank as f64;
        match self {
            LoraScaling::Standard => alpha / rank,
            LoraScaling::RankStabilized => alpha / rank.sqrt(),
        }
    }

    /// The alpha that gives `factor` at this rank: the inverse of [`factor`](Self::factor).
    pub fn alpha(self, factor: f64, rank: usize) -> f64 {
        factor / self.factor(1.0, rank)
    }
}
