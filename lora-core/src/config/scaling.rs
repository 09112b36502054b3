//! The factor before `A B`: [`LoraScaling`]. Its formula is written here only.

use serde::{Deserialize, Serialize};

/// Formula of the factor that an adapter's update is multiplied by.
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
    /// Returns the factor for this alpha and rank.
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

    /// Returns the alpha that gives `factor` at this rank: the inverse of [`factor`](Self::factor).
    pub fn alpha(self, factor: f64, rank: usize) -> f64 {
        factor / self.factor(1.0, rank)
    }
}
