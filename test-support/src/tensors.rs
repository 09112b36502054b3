//! Tensors of a safetensors file, and their host values.

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use std::path::Path;

/// Safetensors file in memory.
pub struct Tensors(Vec<u8>);

impl Tensors {
    /// Reads a file.
    #[track_caller]
    pub fn open(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Returns the tensors' names in order.
    pub fn names(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut names: Vec<String> = tensors.names().into_iter().map(String::from).collect();
        names.sort();
        names
    }

    /// Returns the values, row-major, and the shape of an `f32` tensor.
    pub fn floats(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        self.read(name, f32::from_le_bytes)
    }

    /// Returns the values, row-major, and the shape of an `i64` tensor.
    pub fn ints(&self, name: &str) -> (Vec<i64>, Vec<usize>) {
        self.read(name, i64::from_le_bytes)
    }

    /// Returns the values of an `f32` tensor, row-major.
    pub fn values(&self, name: &str) -> Vec<f32> {
        self.floats(name).0
    }

    /// Returns an `f32` tensor on a device.
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let (values, shape) = self.floats(name);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Returns an `i64` matrix on a device.
    pub fn ids(&self, name: &str, device: &Device) -> Tensor<2, Int> {
        let (values, shape) = self.ints(name);
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn read<T, const N: usize>(
        &self,
        name: &str,
        from_le_bytes: fn([u8; N]) -> T,
    ) -> (Vec<T>, Vec<usize>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{name}"));
        let values = view.data().chunks_exact(N);
        let values = values.map(|bytes| from_le_bytes(bytes.try_into().unwrap()));
        (values.collect(), view.shape().to_vec())
    }
}

/// Returns the values of a tensor on the host, row-major.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().unwrap()
}

/// Transposes row-major values `[rows, columns]` to row-major `[columns, rows]`.
pub fn transpose(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let (rows, columns) = (shape[0], shape[1]);
    let column = |c: usize| (0..rows).map(move |r| values[r * columns + c]);
    (0..columns).flat_map(column).collect()
}

/// Parses a JSON file.
#[track_caller]
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
