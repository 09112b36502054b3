//! The values of a tensor: how large they are, and whether they are numbers.

use super::report::{DtypeReport, Findings, TensorReport};
use lora_core::file::StoredTensor;
use lora_models::checkpoint::{Checkpoint, is_float};
use std::collections::BTreeMap;

/// A tensor with its Frobenius norm, which is finite if all values are.
pub(super) struct Measured {
    pub tensor: StoredTensor,
    pub norm: f64,
}

impl Measured {
    pub fn is_zero(&self) -> bool {
        self.norm == 0.0
    }
}

/// Reads a tensor of floats, and notes if it cannot be read or has values that are not finite.
pub(super) fn measure(
    checkpoint: &Checkpoint,
    name: &str,
    unusual: &mut Findings,
) -> Option<Measured> {
    let read = checkpoint.read_f32(name);
    let read = read.map_err(|error| unusual.add_on("not_read", name, error));
    let tensor = read.ok()?;
    let values = &tensor.values;
    let nan = values.iter().filter(|value| value.is_nan()).count();
    let infinite = values.iter().filter(|value| value.is_infinite()).count();
    if nan + infinite > 0 {
        let message = format!(
            "`{name}` has {nan} values that are NaN and {infinite} that are infinite, of {}",
            values.len()
        );
        unusual.add_on("not_finite", name, message);
    }
    let tensor = StoredTensor::new(tensor.shape, tensor.values);
    let norm = tensor.norm();
    Some(Measured { tensor, norm })
}

/// Describes a tensor, with its norm if the values are to be read and are floats.
pub(super) fn tensor(
    checkpoint: &Checkpoint,
    name: &str,
    read: bool,
    unusual: &mut Findings,
) -> TensorReport {
    let dtype = checkpoint.dtype(name);
    let read = read && dtype.is_some_and(is_float);
    let measured = read.then(|| measure(checkpoint, name, unusual)).flatten();
    TensorReport {
        name: name.into(),
        dtype: dtype.map(|dtype| dtype.to_string()).unwrap_or_default(),
        shape: checkpoint.shape(name).unwrap_or_default().to_vec(),
        norm: measured.map(|measured| measured.norm),
    }
}

/// Returns the number of values of a tensor.
pub(super) fn elements(checkpoint: &Checkpoint, name: &str) -> u64 {
    // Shapes that multiply to more than the file holds are refused when it is opened.
    let shape = checkpoint.shape(name).unwrap_or_default();
    shape.iter().map(|&extent| extent as u64).product()
}

/// Counts all tensors by their element type.
pub(super) fn dtypes(checkpoint: &Checkpoint) -> BTreeMap<String, DtypeReport> {
    let mut dtypes: BTreeMap<String, DtypeReport> = BTreeMap::new();
    for name in checkpoint.names() {
        if let Some(dtype) = checkpoint.dtype(name) {
            let count = dtypes.entry(dtype.to_string()).or_default();
            count.tensors += 1;
            count.parameters += elements(checkpoint, name);
            count.bytes += checkpoint.bytes_of(name).unwrap_or_default();
        }
    }
    dtypes
}
