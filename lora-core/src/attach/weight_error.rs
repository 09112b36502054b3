//! Error of merged weights against the exact sums: [`WeightError`].

use super::report::AttachReport;
use crate::adapter::{AdapterEntry, LowRankAdapter, attached_adapters, base_value};
use crate::error::LoraError;
use crate::layout::AdaptedModule;
use burn::module::Module;
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::fmt;

/// Error of a merged weight against the exact sum, together with that of an adapted bias; or of a weight that a merge copies.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightError {
    /// Name of the module.
    pub module: String,
    /// Largest difference of a value; infinite if a value is not finite.
    pub absolute: f64,
    /// [`absolute`](Self::absolute) over the largest value of the exact sum. For a weight that is rounded
    /// once, it is at most the unit roundoff of its type: 2⁻²⁴ in f32, 2⁻¹¹ in f16, 2⁻⁸ in bf16.
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

/// Compares the weights of a merged module with `W + s A B`, computed in f64 from the adapted module, in the order of the
/// report. The parameters that a merge copies follow: fully trained ones, rows of tokens, and weights that the adapter brings.
///
/// `merged` comes from [`merge()`](crate::merge()) or was read from exported files: it has the same
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
/// [`LoraError::NotAttached`] if the report is not that of the module, or the merged module has other parameters.
pub fn weight_errors<M: Module>(
    adapted: &M,
    report: &AttachReport,
    merged: &M,
) -> Result<Vec<WeightError>, LoraError> {
    let attached = attached_adapters(adapted, &report.modules, &report.tokens);
    let modules = report.modules.iter();
    let errors = modules
        .map(|module| {
            let missing = || LoraError::not_attached(&module.module);
            let entry = |parameter: &str| attached.get(parameter).ok_or_else(missing);
            let pair = |parameter: &str| {
                let base = base_value(adapted, parameter).ok_or_else(missing)?;
                let written = base_value(merged, parameter).ok_or_else(missing)?;
                if base.len() == written.len() {
                    Ok((base, written))
                } else {
                    Err(missing())
                }
            };
            let adapter = entry(&module.parameter)?.factors.as_ref();
            let adapter = adapter.ok_or_else(missing)?;
            let (base, written) = pair(&module.parameter)?;
            let exact = exact(&base, module, adapter).ok_or_else(missing)?;
            let mut error = difference(&exact, &written);
            if let Some(parameter) = &module.bias {
                let bias = entry(parameter)?.bias.as_ref().ok_or_else(missing)?;
                let (base, written) = pair(parameter)?;
                let sum = base.iter().zip(host(bias.value.val()));
                let sum = sum.map(|(&b, v)| f64::from(b) + bias.scale * f64::from(v));
                let bias_error = difference(&sum.collect::<Vec<_>>(), &written);
                error = (error.0.max(bias_error.0), error.1.max(bias_error.1));
            }
            Ok(WeightError {
                module: module.module.clone(),
                absolute: error.0,
                relative: error.1,
            })
        })
        .collect::<Result<Vec<_>, LoraError>>()?;
    let copied = copied_errors(adapted, report, &attached, merged)?;
    Ok(errors.into_iter().chain(copied).collect())
}

/// Compares what a merge copies: fully trained parameters, rows of tokens, and weights that the adapter brings for the base.
fn copied_errors<M: Module>(
    adapted: &M,
    report: &AttachReport,
    attached: &BTreeMap<String, AdapterEntry>,
    merged: &M,
) -> Result<Vec<WeightError>, LoraError> {
    let mut errors = Vec::new();
    let mut compare = |name: &str, expected: Option<Vec<f32>>, written: Option<Vec<f32>>| {
        let (Some(expected), Some(written)) = (expected, written) else {
            return Err(LoraError::not_attached(name));
        };
        if expected.len() != written.len() {
            return Err(LoraError::not_attached(name));
        }
        let exact: Vec<f64> = expected.iter().map(|&value| f64::from(value)).collect();
        let (absolute, relative) = difference(&exact, &written);
        errors.push(WeightError {
            module: name.into(),
            absolute,
            relative,
        });
        Ok(())
    };
    // A weight of the file that is adapted too has been compared above, or is compared below.
    let is_adapted = |path: &String| {
        let mut modules = report.modules.iter().map(|module| &module.parameter);
        let mut tokens = report.tokens.iter().map(|tokens| &tokens.parameter);
        modules.any(|other| other == path) || tokens.any(|other| other == path)
    };
    let base_weights = report.base_weights.iter();
    let base_weights = base_weights.filter(|weight| !is_adapted(&weight.parameter));
    for saved in report.saved.iter().chain(base_weights) {
        let path = &saved.parameter;
        compare(
            &saved.name,
            base_value(adapted, path),
            base_value(merged, path),
        )?;
    }
    for tokens in &report.tokens {
        let rows = attached.get(&tokens.parameter);
        let rows = rows.and_then(|entry| entry.rows.as_ref());
        let written = base_value(merged, &tokens.parameter);
        let written = written.filter(|w| w.len() == tokens.shape[0] * tokens.shape[1]);
        compare(
            &tokens.module,
            rows.map(|rows| host(rows.rows.val())),
            written.map(|weight| tokens.rows_of(&weight)),
        )?;
    }
    Ok(errors)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Computes `W + s A B` `[d_in, d_out]`, with DoRA rescaled to the magnitudes; `None` if the adapter is not of this shape.
fn exact(base: &[f32], module: &AdaptedModule, adapter: &LowRankAdapter) -> Option<Vec<f64>> {
    let (a, b) = adapter.factors();
    let ([d_in, rank], [_, d_out]) = (a.dims(), b.dims());
    if [d_in, d_out] != module.shape {
        return None;
    }
    let (a, b, scale) = (host(a), host(b), adapter.scale());
    let mut sum: Vec<f64> = base.iter().map(|&value| f64::from(value)).collect();
    for (r, b) in b.chunks_exact(d_out).enumerate() {
        let b: Vec<f64> = b.iter().map(|&b| scale * f64::from(b)).collect();
        for (row, sums) in sum.chunks_exact_mut(d_out).enumerate() {
            let a = f64::from(a[row * rank + r]);
            sums.iter_mut().zip(&b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    if let Some(magnitude) = &adapter.magnitude {
        let mut squares = vec![0.0; d_out];
        for row in sum.chunks_exact(d_out) {
            squares.iter_mut().zip(row).for_each(|(s, v)| *s += v * v);
        }
        let gains = squares.iter().zip(host(magnitude.val()));
        let gains: Vec<f64> = gains.map(|(s, m)| f64::from(m) / s.sqrt()).collect();
        for row in sum.chunks_exact_mut(d_out) {
            row.iter_mut().zip(&gains).for_each(|(v, gain)| *v *= gain);
        }
    }
    Some(sum)
}

/// Returns the largest difference, and its ratio to the largest exact value.
fn difference(exact: &[f64], written: &[f32]) -> (f64, f64) {
    let (mut largest, mut size) = (0.0f64, 0.0f64);
    for (&exact, &written) in exact.iter().zip(written) {
        let difference = (exact - f64::from(written)).abs();
        // `max` ignores NaN.
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
