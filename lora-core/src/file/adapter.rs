//! [`StoredAdapter`]: the content of adapter files without a model, for conversion, combination, comparison and inspection.

use super::config::PeftOptions;
use super::notes::{INIT_KEY, Notes, SLICES_KEY, SavedSlices};
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::fingerprint::BaseFingerprint;
use crate::finite::first_not_finite;
use crate::layout::{LayerKind, Slices};
use faer::Mat;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

/// Transposes a matrix on the host: row-major `[rows, columns]` to row-major `[columns, rows]`.
///
/// It goes in squares that fit in the first-level cache, on all threads: the linear layers of a RoBERTa base are 340 MB.
pub fn transpose<T: Copy + Default + Send + Sync>(
    values: &[T],
    [rows, columns]: [usize; 2],
) -> Vec<T> {
    const SIDE: usize = 32;
    let mut transposed = vec![T::default(); values.len()];
    if transposed.is_empty() {
        return transposed;
    }
    let bands = transposed.par_chunks_mut(SIDE * rows);
    bands.enumerate().for_each(|(band, transposed)| {
        for row_start in (0..rows).step_by(SIDE) {
            let row_end = (row_start + SIDE).min(rows);
            for (offset, column) in transposed.chunks_exact_mut(rows).enumerate() {
                let column_index = band * SIDE + offset;
                for (row, value) in (row_start..row_end).zip(&mut column[row_start..row_end]) {
                    *value = values[row * columns + column_index];
                }
            }
        }
    });
    transposed
}

/// A tensor of a file, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

impl StoredTensor {
    /// Creates a tensor.
    ///
    /// # Panics
    /// If there are not as many values as the shape has.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{shape:?}");
        Self { shape, values }
    }

    /// Returns the transpose of a matrix.
    ///
    /// # Panics
    /// If the tensor is not a matrix.
    pub fn transposed(&self) -> Self {
        assert_eq!(self.shape.len(), 2, "{:?}", self.shape);
        let [rows, columns] = [self.shape[0], self.shape[1]];
        Self::new([columns, rows], transpose(&self.values, [rows, columns]))
    }

    /// Checks that all values are finite; the error names the tensor and its file.
    pub(crate) fn check_finite(&self, path: &Path, name: &str) -> Result<(), LoraError> {
        let Some(bad) = first_not_finite(&self.values) else {
            return Ok(());
        };
        let message = format!(
            "tensor `{name}` has values that are not finite, such as {bad}: it was saved from a run that diverged"
        );
        Err(LoraError::malformed(path, message))
    }

    /// Returns a matrix in f64.
    pub(crate) fn matrix(&self) -> Mat<f64> {
        let columns = self.shape[1];
        Mat::from_fn(self.shape[0], columns, |i, j| {
            f64::from(self.values[i * columns + j])
        })
    }

    /// Returns the Frobenius norm, the square root of the sum of squares.
    pub fn norm(&self) -> f64 {
        let squares = self.values.iter().map(|&value| f64::from(value).powi(2));
        squares.sum::<f64>().sqrt()
    }
}

/// The adapter of one module. Its update of the weight `[d_out, d_in]` is `scale · B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFactors {
    /// Kind of the layer: linear or an embedding.
    pub kind: LayerKind,
    /// `[rank, d_in]`, the names of PEFT's files.
    pub a: StoredTensor,
    /// `[d_out, rank]`.
    pub b: StoredTensor,
    /// Factor that `B A` is multiplied by.
    pub scale: f64,
    /// DoRA's magnitude, `[d_out]`.
    pub magnitude: Option<StoredTensor>,
    /// The bias on `B`, `[d_out]`.
    pub bias: Option<StoredTensor>,
}

impl StoredFactors {
    /// Rank of the update.
    pub fn rank(&self) -> usize {
        self.a.shape[0]
    }

    /// Shape of the update, `[d_out, d_in]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.b.shape[0], self.a.shape[1]]
    }

    /// Number of values.
    pub fn parameters(&self) -> usize {
        let vectors = [&self.magnitude, &self.bias];
        let vectors = vectors.into_iter().flatten().map(|v| v.values.len());
        self.a.values.len() + self.b.values.len() + vectors.sum::<usize>()
    }
}

/// An adapter as files hold it.
#[derive(Clone, Debug)]
pub struct StoredAdapter {
    /// Configuration. Rank, alpha and targets that are written come from `modules`.
    pub config: LoraConfig,
    /// Options that PEFT keeps beside it.
    pub options: PeftOptions,
    /// Adapters by module.
    pub modules: BTreeMap<String, StoredFactors>,
    /// Fully trained parameters (PEFT's `modules_to_save`, and biases), by name.
    pub saved: BTreeMap<String, StoredTensor>,
    /// Notes of this crate in the file, where PEFT does not look.
    pub metadata: BTreeMap<String, String>,
}

impl StoredAdapter {
    /// Number of values of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.values().map(StoredFactors::parameters).sum()
    }

    /// Number of values of the fully trained parameters.
    pub fn saved_parameters(&self) -> usize {
        self.saved.values().map(|tensor| tensor.values.len()).sum()
    }

    /// Returns true if the factors belong to a base from which their initial value was subtracted (PEFT's default for
    /// PiSSA and OLoRA). They are not an update of the original base.
    pub fn needs_changed_base(&self) -> bool {
        self.config.init.is_residual() && !self.metadata.contains_key(INIT_KEY)
    }

    /// Returns the fingerprint of the base that it was trained on, if the file has one.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] if a note of this crate in the file is malformed.
    pub fn base(&self) -> Result<Option<BaseFingerprint>, LoraError> {
        Ok(self.notes()?.base)
    }

    /// Returns the slices of the fused projections that have some.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] if a note of this crate in the file is malformed.
    pub fn slices(&self) -> Result<BTreeMap<String, Slices>, LoraError> {
        let saved = self.notes()?.slices;
        let mut slices = BTreeMap::new();
        for (module, factors) in &self.modules {
            if let Some(saved) = saved.get(module) {
                let own = saved.on(factors.shape()[0]).ok_or_else(|| {
                    malformed_note(SLICES_KEY, format!("slices that `{module}` cannot have"))
                })?;
                slices.insert(module.clone(), own);
            }
        }
        Ok(slices)
    }

    /// Notes that the factors of these modules are those of slices, so that they are read back as such.
    pub fn note_slices(&mut self, slices: impl IntoIterator<Item = (String, Slices)>) {
        let slices = slices.into_iter();
        let saved: BTreeMap<String, SavedSlices> = slices
            .map(|(module, s)| (module, SavedSlices::from(&s)))
            .collect();
        if saved.is_empty() {
            return;
        }
        // A map of strings and numbers always has a JSON form.
        let text = serde_json::to_string(&saved).unwrap_or_default();
        self.metadata.insert(SLICES_KEY.into(), text);
    }

    fn notes(&self) -> Result<Notes, LoraError> {
        Notes::read(&self.metadata).map_err(|(key, message)| malformed_note(key, message))
    }
}

fn malformed_note(option: &'static str, found: String) -> LoraError {
    LoraError::invalid_option(option, found, "a note as this crate writes it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_turns_rows_into_columns_across_squares() {
        let shape = [70, 33];
        let values: Vec<f32> = (0..70 * 33).map(|value| value as f32).collect();
        let transposed = transpose(&values, shape);
        for row in 0..70 {
            for column in 0..33 {
                assert_eq!(transposed[column * 70 + row], values[row * 33 + column]);
            }
        }
        assert_eq!(transpose(&transposed, [33, 70]), values);
        assert_eq!(
            transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
    }
}
