//! How far the weights of a merged model are from the exact sums.

use crate::file::{PeftOptions, StoredFactors, extract};
use crate::modules::base_value;
use crate::{AdaptedModule, AttachReport, LoraError};
use burn::module::Module;
use std::fmt;

/// How far a merged weight, with the bias beside it where the adapter adds to it, is from the exact sum.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightError {
    /// Name of the module.
    pub module: String,
    /// The largest difference of a value; infinite where one is not finite.
    pub absolute: f64,
    /// [`absolute`](Self::absolute) over the largest value of the exact sum. Of a weight that was rounded
    /// once it is at most the unit roundoff of its type: 2⁻²⁴ in f32, 2⁻¹¹ in f16, 2⁻⁸ in bf16.
    pub relative: f64,
}

impl fmt::Display for WeightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}`: {:.1e}, {:.1e} of its largest value",
            self.module, self.absolute, self.relative
        )
    }
}

/// Compares the weights of a merged module with `W + s A B`, worked out in f64 from the adapted one, module by
/// module in its order.
///
/// `merged` may come from [`merge()`](crate::merge()) or from the files that it was written to: it has the same
/// parameters, without adapters.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::{nn::LinearConfig, tensor::Device};
/// use lora_core::{LoraConfig, LoraInit, attach, merge, weight_errors};
///
/// let linear = LinearConfig::new(8, 6).init(&Device::flex());
/// let config = LoraConfig::new(2).with_init(LoraInit::Random);
/// let (linear, report) = attach(linear, &config)?.into_parts();
/// let merged = merge(linear.clone()).into_module();
/// let errors = weight_errors(&linear, &report, &merged)?;
/// assert!(errors[0].relative < 1e-6);
/// # Ok::<(), lora_core::LoraError>(())
/// ```
///
/// # Errors
/// [`LoraError::NotAttached`] if the report is not the module's, or the merged one has other parameters.
pub fn weight_errors<M: Module>(
    adapted: &M,
    report: &AttachReport,
    merged: &M,
) -> Result<Vec<WeightError>, LoraError> {
    let stored = extract(adapted, report, &PeftOptions::default())?;
    let modules = report.modules.iter();
    modules
        .map(|module| {
            let missing = || LoraError::NotAttached {
                module: module.module.clone(),
            };
            let pair = |parameter: &str| {
                let base = base_value(adapted, parameter).ok_or_else(missing)?;
                let written = base_value(merged, parameter).ok_or_else(missing)?;
                match base.len() == written.len() {
                    true => Ok((base, written)),
                    false => Err(missing()),
                }
            };
            let factors = stored.modules.get(&module.module).ok_or_else(missing)?;
            let (base, written) = pair(&module.parameter)?;
            let mut error = difference(&exact(&base, module, factors), &written);
            if let (Some(parameter), Some(bias)) = (&module.bias, &factors.bias) {
                let (base, written) = pair(parameter)?;
                let sum = base.iter().zip(&bias.values);
                let sum = sum.map(|(&b, &v)| f64::from(b) + factors.scale * f64::from(v));
                let of_bias = difference(&sum.collect::<Vec<_>>(), &written);
                error = (error.0.max(of_bias.0), error.1.max(of_bias.1));
            }
            Ok(WeightError {
                module: module.module.clone(),
                absolute: error.0,
                relative: error.1,
            })
        })
        .collect()
}

/// `W + s A B` `[d_in, d_out]`, with DoRA its columns brought to their magnitudes.
fn exact(base: &[f32], module: &AdaptedModule, factors: &StoredFactors) -> Vec<f64> {
    let [d_in, d_out] = module.shape;
    let rank = factors.rank();
    let mut sum: Vec<f64> = base.iter().map(|&value| f64::from(value)).collect();
    for r in 0..rank {
        let b: Vec<f64> = (0..d_out)
            .map(|column| factors.scale * f64::from(factors.b.values[column * rank + r]))
            .collect();
        for (row, sums) in sum.chunks_exact_mut(d_out).enumerate() {
            let a = f64::from(factors.a.values[r * d_in + row]);
            sums.iter_mut().zip(&b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    if let Some(magnitude) = &factors.magnitude {
        let mut squares = vec![0.0; d_out];
        for row in sum.chunks_exact(d_out) {
            squares.iter_mut().zip(row).for_each(|(s, v)| *s += v * v);
        }
        let gains = squares.iter().zip(&magnitude.values);
        let gains: Vec<f64> = gains.map(|(s, &m)| f64::from(m) / s.sqrt()).collect();
        for row in sum.chunks_exact_mut(d_out) {
            row.iter_mut().zip(&gains).for_each(|(v, gain)| *v *= gain);
        }
    }
    sum
}

/// The largest difference, and its share of the largest exact value.
fn difference(exact: &[f64], written: &[f32]) -> (f64, f64) {
    let (mut largest, mut size) = (0.0f64, 0.0f64);
    for (&exact, &written) in exact.iter().zip(written) {
        let difference = (exact - f64::from(written)).abs();
        // Comparisons pass over what is not a number.
        largest = largest.max(if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        });
        size = size.max(exact.abs());
    }
    match largest {
        0.0 => (0.0, 0.0),
        _ => (largest, largest / size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_by_the_largest_value_and_nan_is_infinite() {
        assert_eq!(difference(&[4.0, -8.0], &[4.0, -7.0]), (1.0, 0.125));
        assert_eq!(difference(&[0.0], &[0.0]), (0.0, 0.0));
        let (absolute, _) = difference(&[1.0, 2.0], &[f32::NAN, 2.0]);
        assert_eq!(absolute, f64::INFINITY);
    }
}
