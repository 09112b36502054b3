//! The values of a tensor: how large they are, and whether they are numbers.

use super::report::{DtypeReport, Unusual};
use lora_core::file::StoredTensor;
use lora_models::checkpoint::Checkpoint;
use std::collections::BTreeMap;

/// A tensor with its norm.
pub(super) struct Measured {
    pub tensor: StoredTensor,
    /// Frobenius norm; not finite if a value is not.
    pub norm: f64,
    pub finite: bool,
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
    unusual: &mut Vec<Unusual>,
) -> Option<Measured> {
    let tensor = match checkpoint.read_f32(name) {
        Ok(tensor) => StoredTensor::new(tensor.shape, tensor.values),
        Err(error) => {
            unusual.push(Unusual::of("not_read", name, error.to_string()));
            return None;
        }
    };
    let nan = tensor.values.iter().filter(|value| value.is_nan()).count();
    let infinite = tensor.values.iter().filter(|v| v.is_infinite()).count();
    if nan + infinite > 0 {
        let message = format!(
            "`{name}` has {nan} values that are NaN and {infinite} that are infinite, of {}",
            tensor.values.len()
        );
        unusual.push(Unusual::of("not_finite", name, message));
    }
    Some(Measured {
        norm: tensor.norm(),
        finite: nan + infinite == 0,
        tensor,
    })
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
        let Some(dtype) = checkpoint.dtype(name) else {
            continue;
        };
        let count = dtypes.entry(dtype.to_string()).or_default();
        count.tensors += 1;
        count.parameters += elements(checkpoint, name);
        count.bytes += checkpoint.bytes_of(name).unwrap_or_default();
    }
    dtypes
}
