//! What the tests of this crate share: fixtures and comparisons.
#![allow(dead_code)] // Each test file uses a part.

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use std::path::PathBuf;

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The backends compiled into the tests; flex is the reference.
#[allow(deprecated)] // Burn deprecates ndarray.
pub fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}

/// The same to train on, and one that makes its activations again.
pub fn training_devices() -> Vec<Device> {
    let mut devices: Vec<Device> = devices().into_iter().map(Device::autodiff).collect();
    devices.push(Device::flex().autodiff().gradient_checkpointing());
    devices
}

pub struct Fixture(Vec<u8>);

impl Fixture {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(fixtures().join(name)).unwrap())
    }

    fn view<T>(&self, name: &str, read: impl Fn(&[u8]) -> T, size: usize) -> (Vec<T>, Vec<usize>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap();
        let values = view.data().chunks_exact(size).map(read).collect();
        (values, view.shape().to_vec())
    }

    pub fn values(&self, name: &str) -> Vec<f32> {
        self.view(name, |b| f32::from_le_bytes(b.try_into().unwrap()), 4)
            .0
    }

    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let read = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
        let (values, shape) = self.view(name, read, 4);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    pub fn ids(&self, name: &str, device: &Device) -> Tensor<2, Int> {
        let read = |b: &[u8]| i64::from_le_bytes(b.try_into().unwrap());
        let (values, shape) = self.view(name, read, 8);
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().unwrap()
}

pub fn assert_close<const D: usize>(
    found: Tensor<D>,
    expected: &[f32],
    tolerance: f32,
    what: &str,
) {
    let found = host(found);
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * (1.0 + e.abs()),
            "{what}[{i}]: {f} is not {e}"
        );
    }
}
