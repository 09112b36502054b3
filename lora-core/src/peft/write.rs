//! Writing adapters as a PEFT directory.

use super::json::PeftOptions;
use super::tensors::{INIT_KEY, expand, transpose};
use crate::adapter::{Factor, base_value, factors};
use crate::attach::AttachReport;
use crate::error::LoraError;
use crate::files::Overwrite;
use crate::fingerprint::BaseFingerprint;
use crate::layout::AdaptedModule;
use crate::stored::{StoredAdapter, StoredFactors, StoredTensor};
use burn::module::Module;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the adapters of a module as a PEFT directory, atomically.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory is there and may not be replaced,
/// [`LoraError::NotAttached`] if the report is not this module's, or [`LoraError::Io`].
pub fn save<M: Module>(
    module: &M,
    report: &AttachReport,
    dir: &Path,
    options: &PeftOptions,
    overwrite: Overwrite,
) -> Result<(), LoraError> {
    extract(module, report, options)?.save(dir, overwrite)
}

/// The adapters of a module as files hold them.
///
/// # Errors
/// [`LoraError::NotAttached`] if the report is not this module's.
pub fn extract<M: Module>(
    module: &M,
    report: &AttachReport,
    options: &PeftOptions,
) -> Result<StoredAdapter, LoraError> {
    let attached = factors(module);
    let mut modules = BTreeMap::new();
    for adapted in &report.modules {
        let attached = Attached {
            all: &attached,
            adapted,
        };
        modules.insert(adapted.module.clone(), attached.stored()?);
    }
    let mut saved = BTreeMap::new();
    for parameter in &report.saved {
        let values = base_value(module, &parameter.parameter);
        let values = values.filter(|values| values.len() == parameter.elements());
        let mut values = values.ok_or_else(|| LoraError::NotAttached {
            module: parameter.name.clone(),
        })?;
        if let (true, &[rows, columns]) = (parameter.transposed, parameter.shape.as_slice()) {
            values = transpose(&values, [rows, columns]);
        }
        let tensor = StoredTensor::new(parameter.file_shape(), values);
        saved.insert(parameter.name.clone(), tensor);
    }
    let mut adapter = StoredAdapter {
        config: report.config.clone(),
        options: options.clone(),
        modules,
        saved,
        metadata: BTreeMap::new(),
    };
    let slices = report.modules.iter().filter_map(|module| {
        let slices = module.slices.clone()?;
        Some((module.module.clone(), slices))
    });
    adapter.note_slices(slices);
    BaseFingerprint::of(module, &report.outline)?.note(&mut adapter.metadata);
    if report.config.init.is_residual() {
        let init = report.config.init.to_string();
        adapter.metadata.insert(INIT_KEY.into(), init);
    }
    Ok(adapter)
}

/// The adapter of one module.
struct Attached<'a> {
    all: &'a [Factor],
    adapted: &'a AdaptedModule,
}

impl Attached<'_> {
    fn stored(&self) -> Result<StoredFactors, LoraError> {
        let adapted = self.adapted;
        let [d_in, d_out] = adapted.shape;
        let rank = adapted.total_rank();
        let a_rows = transpose(&self.factor("a")?, adapted.factor_shapes()[0]);
        let b_rows = self.factor("b")?;
        let (a, b) = match adapted.residual_init {
            false => (a_rows, b_rows),
            true => {
                let start_a = transpose(&self.factor("start.a")?, adapted.factor_shapes()[0]);
                let start_b: Vec<f32> =
                    self.factor("start.b")?.iter().map(|value| -value).collect();
                (
                    self.with_start(&a_rows, &start_a),
                    self.with_start(&b_rows, &start_b),
                )
            }
        };
        let b = match &adapted.slices {
            None => b,
            Some(slices) => expand(&b, rank / slices.adapted.len(), d_out, slices),
        };
        let vector = |values| StoredTensor::new([d_out], values);
        let magnitude = match adapted.dora {
            false => None,
            true => Some(vector(self.host(&adapted.parameter, "magnitude", d_out)?)),
        };
        let bias = match &adapted.bias {
            None => None,
            Some(bias) => Some(vector(self.host(bias, "value", d_out)?)),
        };
        Ok(StoredFactors {
            kind: adapted.kind,
            a: StoredTensor::new([rank, d_in], a),
            b: StoredTensor::new([d_out, rank], transpose(&b, [rank, d_out])),
            scale: adapted.scale,
            magnitude,
            bias,
        })
    }

    /// Rows of what a factor became, and behind those of each slice the rows that it started at:
    /// `A B − A₀ B₀` as one product.
    fn with_start(&self, rows: &[f32], start: &[f32]) -> Vec<f32> {
        let of_slice = rows.len() / self.adapted.trained_rank() * self.adapted.rank;
        let slices = rows.chunks(of_slice).zip(start.chunks(of_slice));
        slices
            .flat_map(|(own, start)| [own, start].concat())
            .collect()
    }

    fn factor(&self, name: &str) -> Result<Vec<f32>, LoraError> {
        let [a, b] = self.adapted.factor_shapes().map(|[m, n]| m * n);
        let elements = if name.ends_with('a') { a } else { b };
        self.host(&self.adapted.parameter, name, elements)
    }

    fn host(&self, parameter: &str, name: &str, elements: usize) -> Result<Vec<f32>, LoraError> {
        let mut all = self.all.iter();
        let found = all.find(|f| f.parameter == parameter && f.name == name);
        let values = found.and_then(|factor| {
            let data = factor.value.clone().into_data().convert::<f32>();
            data.try_to_vec::<f32>().ok()
        });
        let fitting = values.filter(|values| values.len() == elements);
        fitting.ok_or_else(|| LoraError::NotAttached {
            module: self.adapted.module.clone(),
        })
    }
}
