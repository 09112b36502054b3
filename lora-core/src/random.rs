//! Random values that are the same on every platform.

use crate::layout::stable_hash;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Draws uniform values in ±`bound`, which depend on `seed` and `path` alone.
pub(crate) fn uniform_values(seed: u64, path: &str, count: usize, bound: f64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed ^ stable_hash(path));
    let values = (0..count).map(|_| rng.random_range(-bound..bound) as f32);
    values.collect()
}

/// Draws normal values of this standard deviation, which depend on `seed` and `path` alone, not on backend, platform or
/// earlier draws.
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
    fn uniform_values_have_their_bound_and_spread() {
        let values = uniform_values(1, "q", 64 * 800, 0.125);
        assert!(values.iter().all(|v| v.abs() <= 0.125));
        // The standard deviation of U(-b, b) is b/√3; 51,200 draws put the estimate within 1 %.
        let expected = 0.125 / 3f64.sqrt();
        assert!((deviation(&values) / expected - 1.0).abs() < 0.01);
    }

    #[test]
    fn normal_values_have_their_deviation() {
        let values = normal_values(1, "q", 64 * 801, 0.125);
        assert_eq!(values.len(), 64 * 801);
        // Within 1 %: the estimate's own deviation is 1/√(2n) = 0.3 %.
        assert!((deviation(&values) * 8.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn values_depend_on_seed_and_path_alone() {
        let draw = |seed, path| uniform_values(seed, path, 16, 1.0);
        assert_eq!(draw(3, "h.0"), draw(3, "h.0"));
        assert_ne!(draw(3, "h.0"), draw(3, "h.1"));
        assert_ne!(draw(3, "h.0"), draw(4, "h.0"));
    }
}
