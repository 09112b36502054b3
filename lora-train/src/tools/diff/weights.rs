//! Comparison of the weights of two models, with a tensor of each in memory at a time.

use super::report::{DiffKind, DiffReport, TensorDifference};
use super::values::{Distance, only_in};
use crate::TrainError;
use lora_models::checkpoint::{Checkpoint, is_float};

/// Compares two models; `same` is left false.
///
/// # Errors
/// If values cannot be read, or are not finite.
pub(super) fn compare(
    first: &Checkpoint,
    second: &Checkpoint,
    tolerance: f64,
) -> Result<DiffReport, TrainError> {
    let both = first.names().filter(|name| second.contains(name));
    let tensors = both.map(|name| tensor(name, first, second, tolerance));
    Ok(DiffReport {
        kind: DiffKind::Weights,
        tensors_only_in: only_in(first.names(), second.names()),
        tensors: tensors.collect::<Result<_, _>>()?,
        ..DiffReport::default()
    })
}

fn tensor(
    name: &str,
    first: &Checkpoint,
    second: &Checkpoint,
    tolerance: f64,
) -> Result<TensorDifference, TrainError> {
    let shape = |of: &Checkpoint| of.shape(name).unwrap_or_default().to_vec();
    let dtype = |of: &Checkpoint| of.dtype(name);
    let (shapes, dtypes) = ([shape(first), shape(second)], [dtype(first), dtype(second)]);
    let floats = dtypes.iter().flatten().all(|&dtype| is_float(dtype));
    let distance = if floats && shapes[0] == shapes[1] {
        let (x, y) = (first.read_finite(name)?, second.read_finite(name)?);
        Some(Distance::new(&x.values, &y.values))
    } else {
        None
    };
    let same_kind = shapes[0] == shapes[1] && dtypes[0] == dtypes[1];
    Ok(TensorDifference {
        name: name.into(),
        // Integers are buffers, not weights: position ids, masks. They are not read.
        same: same_kind && distance.is_none_or(|distance| distance.within(tolerance)),
        shapes,
        dtypes: Some(dtypes.map(|dtype| dtype.map(|dtype| dtype.to_string()).unwrap_or_default())),
        largest: distance.map(|distance| distance.largest),
        relative: distance.map(|distance| distance.relative),
    })
}
