//! Element-wise mixing of tensors of several adapters.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Election of the sign that most adapters agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MajoritySign {
    /// Sign of the sum of the values.
    #[default]
    Total,
    /// Most frequent sign.
    Frequency,
}

/// Method that mixes tensors of several adapters, element by element. A density is the share of values that are kept
/// when each tensor is pruned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// Weighted sum.
    Linear,
    /// Weighted sum of the largest values of each (Ortiz-Jimenez et al. 2023 with pruning by magnitude).
    MagnitudePrune {
        /// Share of values kept.
        density: f64,
    },
    /// Mean of the largest values of each that have the sign most adapters agree on (Yadav et al. 2023,
    /// arXiv 2306.01708).
    Ties {
        /// Share of values kept.
        density: f64,
        /// Election of the sign.
        majority: MajoritySign,
    },
    /// Weighted sum of values kept at random, scaled up to keep the expectation (Yu et al. 2023, arXiv
    /// 2311.03099).
    DareLinear {
        /// Share of values kept.
        density: f64,
    },
    /// TIES on values kept at random.
    DareTies {
        /// Share of values kept.
        density: f64,
        /// Election of the sign.
        majority: MajoritySign,
    },
}

impl Mix {
    /// Returns the share of values kept.
    pub(super) fn density(&self) -> f64 {
        match *self {
            Self::Linear => 1.0,
            Self::MagnitudePrune { density }
            | Self::Ties { density, .. }
            | Self::DareLinear { density }
            | Self::DareTies { density, .. } => density,
        }
    }

    /// Mixes tensors of one shape.
    pub(super) fn apply(&self, tensors: &[&[f32]], weights: &[f64], seed: u64) -> Vec<f32> {
        let density = self.density();
        let prune = |tensor: &&[f32]| largest(tensor, density);
        let at_random = |(index, tensor): (usize, &&[f32])| random(tensor, density, seed, index);
        let pruned: Vec<Vec<f32>> = match self {
            Self::Linear => tensors.iter().map(|tensor| tensor.to_vec()).collect(),
            Self::MagnitudePrune { .. } | Self::Ties { .. } => tensors.iter().map(prune).collect(),
            Self::DareLinear { .. } | Self::DareTies { .. } => {
                tensors.iter().enumerate().map(at_random).collect()
            }
        };
        let elements = 0..tensors[0].len();
        match *self {
            Self::Ties { majority, .. } | Self::DareTies { majority, .. } => elements
                .map(|at| majority_mean(&pruned, weights, at, majority))
                .collect(),
            _ => elements.map(|at| sum(&pruned, weights, at)).collect(),
        }
    }
}

fn sum(tensors: &[Vec<f32>], weights: &[f64], at: usize) -> f32 {
    let terms = tensors.iter().zip(weights);
    terms
        .map(|(tensor, weight)| f64::from(tensor[at]) * weight)
        .sum::<f64>() as f32
}

/// Returns the weighted mean of the values that have the majority's sign.
fn majority_mean(tensors: &[Vec<f32>], weights: &[f64], at: usize, majority: MajoritySign) -> f32 {
    // Zero has a sign of its own, which no majority has.
    let sign = |value: f32| {
        if value == 0.0 {
            0.0
        } else {
            f64::from(value.signum())
        }
    };
    let values = tensors.iter().map(|tensor| tensor[at]);
    let total: f64 = match majority {
        MajoritySign::Total => values.map(f64::from).sum(),
        MajoritySign::Frequency => values.map(sign).sum(),
    };
    let wanted = if total >= 0.0 { 1.0 } else { -1.0 };
    let kept = tensors
        .iter()
        .zip(weights)
        .filter(|(tensor, _)| sign(tensor[at]) == wanted);
    let (sum, count) = kept.fold((0.0, 0.0f64), |(sum, count), (tensor, weight)| {
        (sum + f64::from(tensor[at]) * weight, count + 1.0)
    });
    (sum / count.max(1.0)) as f32
}

/// Keeps the largest values, by magnitude; the first of equal ones.
fn largest(tensor: &[f32], density: f64) -> Vec<f32> {
    let kept = (density * tensor.len() as f64) as usize;
    if kept >= tensor.len() {
        return tensor.to_vec();
    }
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    order.sort_by(|&a, &b| tensor[b].abs().total_cmp(&tensor[a].abs()));
    let mut pruned = vec![0.0; tensor.len()];
    for &at in &order[..kept] {
        pruned[at] = tensor[at];
    }
    pruned
}

/// Keeps values at random, and scales them so that their expectation stays.
fn random(tensor: &[f32], density: f64, seed: u64, index: usize) -> Vec<f32> {
    if density >= 1.0 {
        return tensor.to_vec();
    }
    let mut rng = StdRng::seed_from_u64(
        seed.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(index as u64 + 1)),
    );
    let keep = |&value: &f32| {
        if rng.random::<f64>() < density {
            (f64::from(value) / density) as f32
        } else {
            0.0
        }
    };
    tensor.iter().map(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_keeps_the_majoritys_sign() {
        let tensors: [&[f32]; 3] = [&[3.0, 0.1, -4.0], &[-1.0, 2.0, -5.0], &[1.5, 0.2, 1.0]];
        let mix = Mix::Ties {
            density: 0.67,
            majority: MajoritySign::Total,
        };
        // Two of three values are kept: [3, 0, -4], [0, 2, -5], [1.5, 0, 1].
        let found = mix.apply(&tensors, &[1.0, 1.0, 2.0], 0);
        assert_eq!(found, [3.0, 2.0, -4.5]);
    }

    #[test]
    fn dare_keeps_the_expectation_and_depends_on_the_seed() {
        let ones = vec![1.0f32; 20_000];
        let mix = Mix::DareLinear { density: 0.25 };
        let found = mix.apply(&[&ones], &[1.0], 7);
        let mean = found.iter().sum::<f32>() / ones.len() as f32;
        // The deviation of the mean is √(3/20,000) = 0.012.
        assert!((mean - 1.0).abs() < 0.06, "{mean}");
        assert!(found.iter().all(|&value| value == 0.0 || value == 4.0));
        assert_eq!(mix.apply(&[&ones], &[1.0], 7), found);
        assert_ne!(mix.apply(&[&ones], &[1.0], 8), found);
    }
}
