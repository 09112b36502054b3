//! How the factors start.

use crate::LoraInit;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// FNV-1a: a hash that is the same on every platform and in every version, which the standard
/// library's is not.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The random factor: `rows * rank` values for `A` `[d_in, rank]` of a linear layer, or for `B` of
/// an embedding.
///
/// Drawn on the host from `seed` and `path`, so that they are the same on every backend and do not
/// depend on the order of the modules.
pub(crate) fn random_factor(
    init: LoraInit,
    fan_in: usize,
    rank: usize,
    count: usize,
    seed: u64,
    path: &str,
) -> Vec<f32> {
    match init {
        LoraInit::KaimingUniform => {
            let mut rng = StdRng::seed_from_u64(seed ^ stable_hash(path));
            let bound = 1.0 / (fan_in as f64).sqrt();
            (0..count)
                .map(|_| rng.random_range(-bound..bound) as f32)
                .collect()
        }
        LoraInit::Gaussian => normal_values(seed, path, count, 1.0 / rank as f64),
    }
}

/// Normal values of this standard deviation, which depend on `seed` and `path` alone: the same on
/// every backend and platform, and whatever was drawn before.
///
/// ```
/// let values = lora_core::normal_values(0, "h.0.c_fc.weight", 1000, 0.02);
/// let mean = values.iter().sum::<f32>() / 1000.0;
/// assert!(mean.abs() < 0.002);
/// ```
pub fn normal_values(seed: u64, path: &str, count: usize, deviation: f64) -> Vec<f32> {
    // Box and Muller's transform, in pairs.
    let mut rng = StdRng::seed_from_u64(seed ^ stable_hash(path));
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // 1 - u is in (0, 1]: its logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(values: &[f32]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let squares = values.iter().map(|&v| (f64::from(v) - mean).powi(2));
        (squares.sum::<f64>() / n).sqrt()
    }

    #[test]
    fn kaiming_uniform_has_pefts_bound_and_spread() {
        let values = random_factor(LoraInit::KaimingUniform, 64, 8, 64 * 800, 1, "q");
        assert!(values.iter().all(|v| v.abs() <= 0.125));
        // The standard deviation of U(-b, b) is b/√3; 51,200 draws put the estimate within 1 %.
        let expected = 0.125 / 3f64.sqrt();
        assert!((deviation(&values) / expected - 1.0).abs() < 0.01);
    }

    #[test]
    fn gaussian_has_deviation_one_over_rank() {
        let values = random_factor(LoraInit::Gaussian, 64, 8, 64 * 801, 1, "q");
        assert_eq!(values.len(), 64 * 801);
        // Within 1 %: the estimate's own deviation is 1/√(2n) = 0.3 %.
        assert!((deviation(&values) * 8.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn values_depend_on_seed_and_path_alone() {
        let draw = |seed, path| random_factor(LoraInit::KaimingUniform, 8, 2, 16, seed, path);
        assert_eq!(draw(3, "h.0"), draw(3, "h.0"));
        assert_ne!(draw(3, "h.0"), draw(3, "h.1"));
        assert_ne!(draw(3, "h.0"), draw(4, "h.0"));
    }
}
