//! Comparison of an operation's tensors on two devices, and its time.

use super::cases::{Case, Passes, Size};
use super::report::{Speed, Status};
use crate::TrainError;
use crate::host;
use burn::tensor::{Device, Tensor};
use std::time::{Duration, Instant};

/// Duration of the repetitions of an operation.
const MEASURED: Duration = Duration::from_millis(300);
/// Largest number of repetitions.
const MOST: usize = 20;

/// Tensor of an operation on the host: its output, or a gradient.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// Name of the tensor.
    pub name: &'static str,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

/// Reads the tensors of an operation.
pub(super) fn read(tensors: Vec<(&'static str, Tensor<1>)>) -> Result<Vec<Part>, TrainError> {
    let read = |(name, tensor)| {
        let values = host::values(tensor)?;
        Ok(Part { name, values })
    };
    tensors.into_iter().map(read).collect()
}

/// Result of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Difference {
    /// Largest difference of a value, relative to the largest value of its tensor; `None` for values that are not finite.
    pub error: Option<f64>,
    /// Name of the tensor that has it.
    pub part: &'static str,
}

impl Difference {
    /// Returns the status under a tolerance.
    pub fn status(&self, tolerance: f64) -> Status {
        match self.error {
            Some(error) if error <= tolerance => Status::Ok,
            _ => Status::Wrong,
        }
    }
}

/// Compares the tensors of an operation with those of the CPU.
pub(super) fn compare(found: &[Part], expected: &[Part]) -> Difference {
    let mut worst = Difference {
        error: Some(0.0),
        part: "",
    };
    for (found, expected) in found.iter().zip(expected) {
        let scale = expected
            .values
            .iter()
            .fold(0.0f64, |m, v| m.max(f64::from(*v).abs()));
        let scale = scale.max(f64::from(f32::MIN_POSITIVE));
        let pairs = found.values.iter().zip(&expected.values);
        let errors = pairs.map(|(f, e)| (f64::from(*f) - f64::from(*e)).abs() / scale);
        // `f64::max` ignores NaN.
        let error = errors.fold(
            0.0,
            |m, e| if e.is_nan() { f64::INFINITY } else { e.max(m) },
        );
        let same = found.values.len() == expected.values.len();
        let error = Some(error).filter(|error| same && error.is_finite());
        let of = |error: Option<f64>| error.unwrap_or(f64::INFINITY);
        if of(error) > of(worst.error) || worst.part.is_empty() {
            let part = expected.name;
            worst = Difference { error, part };
        }
    }
    worst
}

/// Measures the speed of an operation that has run once.
pub(super) fn speed(
    case: &Case,
    size: &Size,
    passes: &Passes,
    device: &Device,
) -> Result<Speed, TrainError> {
    // A second run: the first has tuned and compiled kernels.
    drop(passes());
    host::wait(device)?;
    let start = Instant::now();
    let mut turns = 0;
    while turns < MOST && start.elapsed() < MEASURED {
        drop(passes());
        host::wait(device)?;
        turns += 1;
    }
    let seconds = start.elapsed().as_secs_f64() / turns as f64;
    Ok((case.work)(size).speed(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(values: &[f32], gradient: &[f32]) -> Vec<Part> {
        let part = |name, values: &[f32]| Part {
            name,
            values: values.to_vec(),
        };
        vec![part("output", values), part("gradient", gradient)]
    }

    #[test]
    fn the_worst_part_is_found_relative_to_its_own_scale() {
        let expected = parts(&[100.0, 1.0], &[0.1, 0.2]);
        let found = parts(&[100.1, 1.0], &[0.1, 0.21]);
        let difference = compare(&found, &expected);
        assert_eq!(difference.part, "gradient");
        assert!((difference.error.unwrap() - 0.05).abs() < 1e-5);
        assert_eq!(difference.status(0.04), Status::Wrong);
        assert_eq!(difference.status(0.06), Status::Ok);
    }

    #[test]
    fn values_that_are_not_finite_or_missing_are_wrong() {
        let expected = parts(&[1.0, 2.0], &[3.0]);
        for found in [parts(&[1.0, f32::NAN], &[3.0]), parts(&[1.0], &[3.0])] {
            let difference = compare(&found, &expected);
            assert_eq!((difference.error, difference.part), (None, "output"));
            assert_eq!(difference.status(1e9), Status::Wrong);
        }
        let same = compare(&expected, &expected);
        assert_eq!(same.error, Some(0.0));
    }
}
