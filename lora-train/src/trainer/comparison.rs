//! One training step on two devices: [`StepDifference`].

use super::{MicroBatch, Task};
use crate::TrainError;
use crate::data::Sample;
use crate::host;
use burn::module::{ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn_train::{TrainOutput, TrainStep};
use lora_core::ops::without_dropout;

/// Difference between a training step on a device and the same step on the CPU, both without dropout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StepDifference {
    /// Loss on the device and on the CPU.
    pub loss: [f64; 2],
    /// Norm of all gradients together, on the device and on the CPU.
    pub norm: [f64; 2],
    /// Norm of the difference of the gradients.
    pub gradients: f64,
}

impl StepDifference {
    /// Returns the difference of the losses, relative to the CPU's, or to 1 if that is smaller; infinite if the device's
    /// loss alone is not finite.
    pub fn of_loss(&self) -> f64 {
        let [found, expected] = self.loss;
        relative(found - expected, expected.abs().max(1.0))
    }

    /// Returns the norm of the difference of the gradients, relative to the norm of the CPU's; infinite if the device's
    /// gradients alone are not finite.
    pub fn of_gradients(&self) -> f64 {
        relative(self.gradients, self.norm[1].max(1e-12))
    }

    /// Returns the larger of the two.
    pub fn largest(&self) -> f64 {
        self.of_loss().max(self.of_gradients())
    }
}

fn relative(difference: f64, scale: f64) -> f64 {
    let relative = (difference / scale).abs();
    if relative.is_finite() {
        relative
    } else {
        f64::INFINITY
    }
}

/// Takes a training step of a task on a device, and of its copy on the CPU, and compares loss and gradients.
///
/// The batches may differ in what has no effect on the loss: padding, and examples without labels.
pub(crate) fn compare_steps<S: Sample, M: Task<S>>(
    [device, host]: [&M; 2],
    [device_batch, host_batch]: [MicroBatch<S::Batch>; 2],
) -> Result<StepDifference, TrainError> {
    let [found, expected] = [(device, device_batch), (host, host_batch)].map(|(task, batch)| {
        without_dropout(|| -> TrainOutput<_> { TrainStep::step(task, batch) })
    });
    let loss = |loss: Tensor<1>| {
        let values = host::values(loss)?;
        Ok::<f64, TrainError>(values.first().map_or(f64::NAN, |&loss| f64::from(loss)))
    };
    let mut compare = Compare {
        found: &found.grads,
        expected: &expected.grads,
        squares: [0.0; 3],
        error: None,
    };
    host.visit(&mut compare);
    if let Some(error) = compare.error {
        return Err(error);
    }
    let [found_norm, expected_norm, gradients] = compare.squares.map(f64::sqrt);
    Ok(StepDifference {
        loss: [loss(found.item.loss)?, loss(expected.item.loss)?],
        norm: [found_norm, expected_norm],
        gradients,
    })
}

struct Compare<'a> {
    found: &'a GradientsParams,
    expected: &'a GradientsParams,
    /// Sums of squares: of the device's gradients, of the CPU's, and of their difference.
    squares: [f64; 3],
    error: Option<TrainError>,
}

impl Compare<'_> {
    /// Reads the gradient of a parameter; zeros stand for none.
    fn read<const D: usize>(
        grads: &GradientsParams,
        param: &Param<Tensor<D>>,
    ) -> Result<Option<Vec<f32>>, TrainError> {
        grads.get::<D>(param.id).map(host::values).transpose()
    }
}

impl ModuleVisitor for Compare<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let read = || -> Result<_, TrainError> {
            Ok((
                Self::read(self.found, param)?,
                Self::read(self.expected, param)?,
            ))
        };
        let (found, expected) = match read() {
            Ok((None, None)) => return,
            Ok((found, expected)) => (found.unwrap_or_default(), expected.unwrap_or_default()),
            Err(error) => {
                self.error.get_or_insert(error);
                return;
            }
        };
        for i in 0..found.len().max(expected.len()) {
            let at = |values: &[f32]| values.get(i).map_or(0.0, |&value| f64::from(value));
            let (f, e) = (at(&found), at(&expected));
            for (sum, value) in self.squares.iter_mut().zip([f, e, f - e]) {
                *sum += value * value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_cpu_and_infinite_without_a_number() {
        let difference = StepDifference {
            loss: [10.5, 10.0],
            norm: [2.2, 2.0],
            gradients: 0.2,
        };
        assert!((difference.of_loss() - 0.05).abs() < 1e-12);
        assert!((difference.of_gradients() - 0.1).abs() < 1e-12);
        assert!((difference.largest() - 0.1).abs() < 1e-12);
        let small = StepDifference {
            loss: [0.02, 0.01],
            ..StepDifference::default()
        };
        assert!((small.of_loss() - 0.01).abs() < 1e-12);
        let broken = StepDifference {
            loss: [f64::NAN, 1.0],
            ..difference
        };
        assert_eq!(broken.largest(), f64::INFINITY);
    }
}
