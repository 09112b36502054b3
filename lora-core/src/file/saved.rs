//! Fully trained parameters with values from a file of any format.

use super::transpose;
use crate::attach::{Adapted, AdapterWeights, attach_report};
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::layout::{ForArchitecture, SavedParameter};
use burn::module::Module;
use burn::tensor::TensorData;

/// Attaches as [`attach`](crate::attach()) does, with values for the fully trained parameters: `values` returns those of a
/// parameter with this shape, in the layout of files.
///
/// # Errors
/// As [`attach`](crate::attach()), and those of `values`.
pub fn attach_saved<'a, M: Module>(
    module: M,
    config: impl Into<ForArchitecture<'a, LoraConfig>>,
    mut values: impl FnMut(&SavedParameter, &[usize]) -> Result<Vec<f32>, LoraError>,
) -> Result<Adapted<M>, LoraError> {
    let report = attach_report(&module, config)?;
    let mut weights = AdapterWeights::default();
    for saved in &report.saved {
        let shape = saved.file_shape();
        let mut data = values(saved, &shape)?;
        if let (true, &[rows, columns]) = (saved.transposed, shape.as_slice()) {
            data = transpose(&data, [rows, columns]);
        }
        let data = TensorData::new(data, saved.shape.clone());
        weights.saved.insert(saved.parameter.clone(), data);
    }
    report.apply(module, weights)
}
