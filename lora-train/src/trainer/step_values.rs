//! Loss and gradient norm of a step, and their transfer from the device.

use crate::TrainError;
use crate::host;
use burn::tensor::{Tensor, TensorData};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

/// Loss and gradient norm of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct StepValues {
    /// Mean loss over the labels.
    pub loss: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
}

impl StepValues {
    /// Reads the loss and the squared norm, `[2]`, in one transfer. Waits for the device.
    pub fn read(values: Tensor<1>) -> Result<Self, TrainError> {
        Self::from_data(host::data(values)?)
    }

    fn from_data(data: TensorData) -> Result<Self, TrainError> {
        let values = host::floats(data)?;
        Ok(Self {
            loss: f64::from(values[0]),
            grad_norm: f64::from(values[1]).sqrt(),
        })
    }

    /// Returns true if both are finite.
    pub fn are_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// Thread that reads the values of steps, in their order, while the loop queues the next step.
///
/// A GPU backend copies a tensor to the host only when its data is used. The thread uses it at once, so that the copy
/// is queued before the next step and does not wait for it.
pub(super) struct Reader {
    data: Sender<TensorData>,
    values: Receiver<Result<(StepValues, Instant), TrainError>>,
}

impl Reader {
    /// Starts the thread, which ends when the reader is dropped.
    pub fn start() -> Self {
        let (data, received) = channel();
        let (sender, values) = channel();
        thread::spawn(move || {
            for data in received {
                let values = StepValues::from_data(data);
                let values = values.map(|values| (values, Instant::now()));
                if sender.send(values).is_err() {
                    break;
                }
            }
        });
        Self { data, values }
    }

    /// Begins to read the loss and the squared norm, `[2]`.
    pub fn begin(&self, values: Tensor<1>) -> Result<(), TrainError> {
        let data = host::data(values)?;
        self.data.send(data).map_err(|_| failed())
    }

    /// Waits for the values of the earliest step that has not been waited for. Returns the time of their arrival too.
    pub fn wait(&self) -> Result<(StepValues, Instant), TrainError> {
        self.values.recv().map_err(|_| failed())?
    }
}

/// Creates the error of a thread that has ended, by a panic of the backend.
fn failed() -> TrainError {
    TrainError::burn("the loss of a step cannot be read back: the device failed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn values_come_in_the_order_of_the_steps() {
        let device = Device::flex();
        let reader = Reader::start();
        for step in 1..=3 {
            let step = step as f32;
            reader
                .begin(Tensor::from_floats([step, step * step], &device))
                .unwrap();
        }
        for step in 1..=3 {
            let step = f64::from(step);
            let expected = StepValues {
                loss: step,
                grad_norm: step,
            };
            assert_eq!(reader.wait().unwrap().0, expected);
        }
    }
}
