//! Measurement of a few steps of the model with a few of its layers.

use crate::TrainError;
use crate::memory::{allocated, available_mib, resident_mib};
use crate::tools::bench::{Measured, Shape, Training, measured};
use crate::trainer::ranks::{Alone, Exchange};
use burn::tensor::Device;
use lora_models::ModelConfig;
use std::sync::Arc;

/// Number of layers of the smaller and the larger model.
const LAYERS: [usize; 2] = [2, 6];
/// Number of measured steps.
const STEPS: usize = 3;
const MIB: f64 = (1 << 20) as f64;

/// Quantity that grows linearly with layers and examples, from four measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plane {
    /// Smaller and larger number of layers.
    layers: [usize; 2],
    /// Smaller and larger number of examples.
    examples: [usize; 2],
    /// Values by layers, then by examples.
    values: [[f64; 2]; 2],
}

impl Plane {
    /// Extrapolates to another number of layers and examples.
    pub fn at(&self, layers: usize, examples: f64) -> f64 {
        let share = |[less, more]: [usize; 2], number: f64| {
            if more > less {
                (number - less as f64) / (more - less) as f64
            } else {
                0.0
            }
        };
        let (u, v) = (
            share(self.layers, layers as f64),
            share(self.examples, examples),
        );
        let along = |row: [f64; 2]| row[0] + v * (row[1] - row[0]);
        let [less, more] = self.values.map(along);
        less + u * (more - less)
    }
}

/// Measurements of few layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calibration {
    /// Number of layers of the full model.
    pub layers: usize,
    /// Duration of a step in seconds.
    pub seconds: Plane,
    /// Peak of the allocated memory in MiB; `None` if no allocator counts it.
    pub peak_mib: Option<Plane>,
    /// Memory beside the allocated memory in MiB: code, and the stacks of threads.
    pub program_mib: f64,
}

/// Runs steps of the model with few layers, or returns the reason that it cannot.
pub(super) fn calibrate(
    config: &ModelConfig,
    shape: &Shape,
    training: Training,
    [batch, length]: [usize; 2],
    device: &Device,
) -> Result<Result<Calibration, String>, TrainError> {
    let all = config.sizes().layers;
    let layers = LAYERS.map(|layers| layers.min(all));
    let examples = match batch {
        1 => [1, 2],
        batch => [batch / 2, batch],
    };
    let shallow = |layers| config.clone().with_layers(layers);
    let largest = super::weights::Counts::new(&shallow(layers[1]), shape, training)?;
    let needed = (largest.weights_bytes + largest.gradients_bytes() + largest.optimizer_bytes())
        as f64
        / MIB;
    if available_mib().is_some_and(|available| needed > available / 2.0) {
        return Ok(Err(format!(
            "{} layers of it alone take {needed:.0} MiB",
            layers[1]
        )));
    }
    let program_mib = match (resident_mib(), allocated()) {
        (Some(resident), Some(allocated)) => (resident - allocated as f64 / MIB).max(0.0),
        _ => 0.0,
    };
    let mut seconds = [[0.0; 2]; 2];
    let mut peaks = [[None; 2]; 2];
    for (i, &layers) in layers.iter().enumerate() {
        for (j, &examples) in examples.iter().enumerate() {
            let size = [examples, length];
            let mut alone = Exchange::new(Arc::new(Alone));
            let on = (device, &mut alone);
            let found: Measured = measured(&shallow(layers), shape, training, size, STEPS, on)?;
            seconds[i][j] = found.timing.min();
            peaks[i][j] = found.peak.map(|bytes| bytes as f64 / MIB);
        }
    }
    let plane = |values| Plane {
        layers,
        examples,
        values,
    };
    let peak = match peaks {
        [[Some(a), Some(b)], [Some(c), Some(d)]] => Some(plane([[a, b], [c, d]])),
        _ => None,
    };
    Ok(Ok(Calibration {
        layers: all,
        seconds: plane(seconds),
        peak_mib: peak,
        program_mib,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_measurements_make_a_plane_with_a_twist() {
        let truth = |layers: f64, examples: f64| {
            7.0 + 3.0 * layers + 5.0 * examples + 2.0 * layers * examples
        };
        let plane = Plane {
            layers: [2, 4],
            examples: [3, 6],
            values: [
                [truth(2.0, 3.0), truth(2.0, 6.0)],
                [truth(4.0, 3.0), truth(4.0, 6.0)],
            ],
        };
        for (layers, examples) in [(2, 3.0), (12, 8.0), (1, 1.0), (24, 100.0)] {
            let expected = truth(layers as f64, examples);
            assert!((plane.at(layers, examples) - expected).abs() < 1e-9 * expected);
        }
    }

    #[test]
    fn a_model_of_one_layer_has_no_slope_along_layers() {
        let plane = Plane {
            layers: [1, 1],
            examples: [1, 2],
            values: [[4.0, 6.0], [4.0, 6.0]],
        };
        assert_eq!(plane.at(1, 3.0), 8.0);
    }
}
