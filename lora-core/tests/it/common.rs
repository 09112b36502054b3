//! Fixtures, devices and comparisons of this crate's tests.

use burn::tensor::{Device, Tensor};
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
