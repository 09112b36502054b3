//! Transfer of tensors from the device to the host.

use crate::TrainError;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Reads the values of a float tensor in row-major order.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    floats(data(tensor)?)
}

/// Returns the data of a tensor. A GPU backend copies it only when the data is used.
pub(crate) fn data<const D: usize>(tensor: Tensor<D>) -> Result<TensorData, TrainError> {
    tensor.try_into_data().map_err(burn_error)
}

/// Reads float data in row-major order.
pub(crate) fn floats(data: TensorData) -> Result<Vec<f32>, TrainError> {
    data.convert::<f32>().try_to_vec().map_err(burn_error)
}

/// Reads the values of an integer tensor in row-major order.
pub(crate) fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<i64>, TrainError> {
    let data = tensor.try_into_data().map_err(burn_error)?;
    data.convert::<i64>().try_to_vec().map_err(burn_error)
}

/// Waits until the device has finished all its work.
pub(crate) fn wait(device: &Device) -> Result<(), TrainError> {
    device
        .sync()
        .map_err(|error| TrainError::burn(format!("the device failed: {error:?}")))
}

fn burn_error(error: impl std::fmt::Debug) -> TrainError {
    TrainError::burn(format!("a tensor cannot be read back: {error:?}"))
}
