//! Pearson's and Spearman's correlation, as SciPy computes them, and mean errors of predicted numbers.

use super::{check_pairs, error};
use crate::error::TrainError;

/// Computes Pearson's correlation coefficient, from -1 to 1: the statistic of `scipy.stats.pearsonr`.
///
/// Returns `None` where it is undefined, for a single pair or a constant side: SciPy returns NaN or an error there.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero, or a number is not finite.
///
/// # Examples
/// ```
/// use lora_train::metric::pearson;
///
/// let correlation = pearson(&[1.0, 2.0, 4.0], &[1.0, 3.0, 2.0])?;
/// // Differences from the means: (-4, -1, 5)/3 and (-1, 1, 0); 1 over the square root of 42/9 · 2.
/// assert!(correlation.is_some_and(|r| (r - 0.327_326_835_353_988_6).abs() < 1e-15));
/// assert_eq!(pearson(&[2.0, 2.0], &[1.0, 3.0])?, None);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn pearson(predictions: &[f64], labels: &[f64]) -> Result<Option<f64>, TrainError> {
    check_values("Pearson's correlation", predictions, labels)?;
    Ok(correlation(predictions, labels))
}

/// Computes Spearman's rank correlation coefficient, from -1 to 1: the statistic of `scipy.stats.spearmanr`. Equal values
/// share the mean of their ranks.
///
/// Returns `None` where it is undefined, for a single pair or a constant side: SciPy returns NaN there.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero, or a number is not finite.
///
/// # Examples
/// ```
/// use lora_train::metric::spearman;
///
/// // The same order, though not on a line.
/// assert_eq!(spearman(&[1.0, 2.0, 4.0], &[1.0, 10.0, 1000.0])?, Some(1.0));
/// // Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4.
/// let tied = spearman(&[0.0, 5.0, 5.0, 9.0], &[1.0, 2.0, 3.0, 4.0])?;
/// assert!(tied.is_some_and(|r| (r - 0.948_683_298_050_513_7).abs() < 1e-15));
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn spearman(predictions: &[f64], labels: &[f64]) -> Result<Option<f64>, TrainError> {
    check_values("Spearman's correlation", predictions, labels)?;
    Ok(correlation(&ranks(predictions), &ranks(labels)))
}

/// Computes the mean of the squared differences.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero, or a number is not finite.
///
/// # Examples
/// ```
/// use lora_train::metric::mean_squared_error;
///
/// assert_eq!(mean_squared_error(&[1.0, 5.0], &[2.0, 2.0])?, 5.0);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn mean_squared_error(predictions: &[f64], labels: &[f64]) -> Result<f64, TrainError> {
    check_values("mean squared error", predictions, labels)?;
    let squares = predictions.iter().zip(labels).map(|(p, l)| (p - l).powi(2));
    Ok(squares.sum::<f64>() / labels.len() as f64)
}

/// Computes the mean of the absolute differences.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ or are zero, or a number is not finite.
///
/// # Examples
/// ```
/// use lora_train::metric::mean_absolute_error;
///
/// assert_eq!(mean_absolute_error(&[1.0, 5.0], &[2.0, 2.0])?, 2.0);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn mean_absolute_error(predictions: &[f64], labels: &[f64]) -> Result<f64, TrainError> {
    check_values("mean absolute error", predictions, labels)?;
    let magnitudes = predictions.iter().zip(labels).map(|(p, l)| (p - l).abs());
    Ok(magnitudes.sum::<f64>() / labels.len() as f64)
}

fn check_values(
    metric: &'static str,
    predictions: &[f64],
    labels: &[f64],
) -> Result<(), TrainError> {
    check_pairs(metric, predictions, labels)?;
    for (what, values) in [("prediction", predictions), ("label", labels)] {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let value = values[at];
            let message =
                format!("{what} {at}, counted from 0, is {value}; expected a finite number");
            return Err(error(metric, message));
        }
    }
    Ok(())
}

/// Computes Pearson's coefficient of centered and scaled values, as SciPy does, so that neither a large mean nor large or
/// small values lose precision. One square root of the product makes equal sides give exactly 1.
fn correlation(x: &[f64], y: &[f64]) -> Option<f64> {
    let (x, y) = (centered(x)?, centered(y)?);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let r = dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt();
    // Two points lie on a line.
    let r = if x.len() == 2 { r.round() } else { r };
    Some(r.clamp(-1.0, 1.0))
}

/// Subtracts the mean and scales the largest difference to 1 or -1; `None` if all values are equal.
fn centered(values: &[f64]) -> Option<Vec<f64>> {
    let first = *values.first()?;
    if values.iter().all(|value| *value == first) {
        return None;
    }
    let n = values.len() as f64;
    // Divide first: the sum of large values could be infinite.
    let mean: f64 = values.iter().map(|value| value / n).sum();
    let mut centered: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let greatest = centered.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
    for value in &mut centered {
        *value /= greatest;
    }
    Some(centered)
}

/// Returns the rank of each value, from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    // Compared by `==`, unlike in the sort: 0 and -0 are equal.
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = below as f64 + (tied.len() as f64 + 1.0) / 2.0;
        for &at in tied {
            ranks[at] = rank;
        }
        below += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_the_mean_of_their_ranks() {
        assert_eq!(
            ranks(&[3.0, -0.0, 7.0, 3.0, 0.0, 3.0]),
            [4.0, 1.5, 6.0, 4.0, 1.5, 4.0]
        );
    }

    #[test]
    fn one_pair_and_a_constant_side_have_no_correlation() {
        assert_eq!(pearson(&[1.0], &[2.0]).unwrap(), None);
        assert_eq!(spearman(&[1.0], &[2.0]).unwrap(), None);
        let rising = [1.0, 2.0, 3.0];
        assert_eq!(pearson(&rising, &[0.1; 3]).unwrap(), None);
        assert_eq!(spearman(&[0.1; 3], &rising).unwrap(), None);
    }

    #[test]
    fn two_pairs_correlate_wholly() {
        assert_eq!(pearson(&[0.1, 0.7], &[0.3, 0.2]).unwrap(), Some(-1.0));
        assert_eq!(pearson(&[0.1, 0.7], &[0.2, 0.3]).unwrap(), Some(1.0));
    }

    #[test]
    fn a_great_mean_and_great_values_cost_no_digits() {
        let (x, y) = ([1.0, 2.0, 4.0, 3.0], [2.0, 1.0, 5.0, 5.0]);
        let expected = pearson(&x, &y).unwrap().unwrap();
        let shifted = x.map(|value| value + 2f64.powi(40));
        let scaled = y.map(|value| value * 2f64.powi(1000));
        let found = pearson(&shifted, &scaled).unwrap().unwrap();
        // Shift and scale are exact in binary; what is left is the rounding of the mean.
        assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
    }

    #[test]
    fn what_is_not_finite_is_named() {
        let error = spearman(&[0.0, f64::NAN], &[0.0, 1.0]).unwrap_err();
        assert!(error.to_string().contains("prediction 1"), "{error}");
        let error = mean_squared_error(&[0.0], &[f64::INFINITY]).unwrap_err();
        assert!(error.to_string().contains("label 0"), "{error}");
        assert!(mean_absolute_error(&[], &[]).is_err());
        assert!(pearson(&[1.0], &[1.0, 2.0]).is_err());
    }
}
