//! Fixtures, devices and comparisons of this crate's tests.

use burn::tensor::{DType, Device, Tensor, TensorData};
use std::path::PathBuf;
use test_support::compare::assert_within;
use test_support::tensors::{Tensors, host};

/// Returns the folder of the fixtures.
pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Reads a safetensors file of the fixtures.
pub fn fixture(name: &str) -> Tensors {
    Tensors::open(fixtures().join(name))
}

/// Returns the backends that are compiled in; flex is the reference.
#[allow(deprecated)] // Burn deprecates ndarray.
pub fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

/// Returns the devices with autodiff, and one with gradient checkpointing.
pub fn training_devices() -> Vec<Device> {
    let mut devices: Vec<Device> = devices().into_iter().map(Device::autodiff).collect();
    devices.push(Device::flex().autodiff().gradient_checkpointing());
    devices
}

/// Returns a tensor of which no two values are alike, of both signs.
pub fn values<const D: usize>(shape: [usize; D], salt: f32, device: &Device) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i as f32 + 1.0) * 0.7311 + salt).sin());
    Tensor::from_data(TensorData::new(values.collect::<Vec<f32>>(), shape), device)
}

/// Asserts that a tensor has these values within a tolerance, absolute for small values and relative for large ones.
#[track_caller]
pub fn assert_close<const D: usize>(
    found: Tensor<D>,
    expected: &[f32],
    tolerance: impl Into<f64>,
    what: &str,
) {
    let tolerance = tolerance.into();
    let allowed = |expected: f64| tolerance * (1.0 + expected.abs());
    assert_within(&host(found), expected, allowed, what);
}

/// Asserts that the gradients of a loss in float64 equal central differences, element by element. The inputs have these
/// shapes and values, in row-major order.
pub fn assert_gradients_are_differences<const N: usize, const D: usize>(
    shapes: [[usize; D]; N],
    mut values: [Vec<f64>; N],
    loss: impl Fn([Tensor<D>; N]) -> Tensor<1>,
) {
    let leaves = |values: &[Vec<f64>; N], device: &Device| {
        let mut shapes = shapes.iter();
        values.each_ref().map(|values| {
            let data = TensorData::new(values.clone(), *shapes.next().unwrap());
            Tensor::<D>::from_data(data, (device, DType::F64))
        })
    };
    let tensors = leaves(&values, &Device::flex().autodiff()).map(Tensor::require_grad);
    let grads = loss(tensors.clone()).backward();
    let analytic = tensors.map(|tensor| {
        let data = tensor.grad(&grads).unwrap().into_data();
        data.try_to_vec::<f64>().unwrap()
    });
    let step = 1e-5;
    for (part, analytic) in analytic.iter().enumerate() {
        for (element, &gradient) in analytic.iter().enumerate() {
            let original = values[part][element];
            let mut at = |value: f64| {
                values[part][element] = value;
                loss(leaves(&values, &Device::flex())).into_scalar::<f64>()
            };
            let numeric = (at(original + step) - at(original - step)) / (2.0 * step);
            at(original);
            // The third derivative times the step squared, and rounding.
            let error = (numeric - gradient).abs();
            assert!(
                error < 1e-7 * (1.0 + gradient.abs()),
                "{part}: {numeric} {gradient}"
            );
        }
    }
}
