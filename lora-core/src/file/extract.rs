//! The adapters on the parameters of a module, as files hold them.

use super::adapter::{StoredAdapter, StoredFactors, StoredTensor, transpose};
use super::config::PeftOptions;
use super::notes::INIT_KEY;
use crate::adapter::{AttachedAdapters, base_value};
use crate::attach::{Adapted, AttachReport};
use crate::error::LoraError;
use crate::files::Overwrite;
use crate::fingerprint::BaseFingerprint;
use crate::layout::{AdaptedModule, SavedParameter};
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes the adapters of a module as a PEFT directory, atomically.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory exists and may not be replaced,
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

/// Returns the adapters of a module as files hold them.
///
/// # Errors
/// [`LoraError::NotAttached`] if the report is not this module's.
pub fn extract<M: Module>(
    module: &M,
    report: &AttachReport,
    options: &PeftOptions,
) -> Result<StoredAdapter, LoraError> {
    let attached = AttachedAdapters::new(module, &report.modules);
    let saved = |parameter: &SavedParameter| base_value(module, &parameter.parameter);
    stored(module, report, options, &attached, saved)
}

impl<M: Module> Adapted<M> {
    /// Writes the adapters as a PEFT directory, atomically.
    ///
    /// # Errors
    /// [`LoraError::AlreadyExists`] if the directory exists and may not be replaced, or [`LoraError::Io`].
    /// [`LoraError::NotAttached`] if the module was replaced by one without these adapters.
    pub fn save(
        &self,
        dir: &Path,
        options: &PeftOptions,
        overwrite: Overwrite,
    ) -> Result<(), LoraError> {
        save(self.module(), self.report(), dir, options, overwrite)
    }

    /// Returns the adapters in the form that files hold.
    ///
    /// # Errors
    /// [`LoraError::NotAttached`] if the module was replaced by one without these adapters.
    pub fn extract(&self, options: &PeftOptions) -> Result<StoredAdapter, LoraError> {
        extract(self.module(), self.report(), options)
    }
}

/// Returns adapters as files hold them; `saved` gives the values of fully trained parameters, and
/// `base` is any module on the same base.
pub(crate) fn stored<M: Module>(
    base: &M,
    report: &AttachReport,
    options: &PeftOptions,
    attached: &AttachedAdapters,
    saved: impl Fn(&SavedParameter) -> Option<Vec<f32>>,
) -> Result<StoredAdapter, LoraError> {
    let not_attached = |module: &str| LoraError::NotAttached {
        module: module.into(),
    };
    let mut adapter = StoredAdapter {
        config: report.config.clone(),
        options: options.clone(),
        modules: BTreeMap::new(),
        saved: BTreeMap::new(),
        metadata: BTreeMap::new(),
    };
    for module in &report.modules {
        let factors =
            stored_factors(module, attached).ok_or_else(|| not_attached(&module.module))?;
        adapter.modules.insert(module.module.clone(), factors);
    }
    for parameter in &report.saved {
        let values = saved(parameter).filter(|values| values.len() == parameter.elements());
        let mut values = values.ok_or_else(|| not_attached(&parameter.name))?;
        if let (true, &[rows, columns]) = (parameter.transposed, parameter.shape.as_slice()) {
            values = transpose(&values, [rows, columns]);
        }
        let tensor = StoredTensor::new(parameter.file_shape(), values);
        adapter.saved.insert(parameter.name.clone(), tensor);
    }
    let slices = report.modules.iter().filter_map(|module| {
        let slices = module.slices.clone()?;
        Some((module.module.clone(), slices))
    });
    adapter.note_slices(slices);
    BaseFingerprint::of_module(base, &report.outline)?.note(&mut adapter.metadata);
    if report.config.init.is_residual() {
        let init = report.config.init.to_string();
        adapter.metadata.insert(INIT_KEY.into(), init);
    }
    Ok(adapter)
}

/// Returns the factors of a module; `None` if the adapter there is missing or another one.
fn stored_factors(module: &AdaptedModule, attached: &AttachedAdapters) -> Option<StoredFactors> {
    let [d_in, d_out] = module.shape;
    let rank = module.total_rank();
    let adapter = attached.adapters.get(&module.parameter)?;
    let (a, b) = adapter.factors();
    let mut a = transpose(&host(a, [d_in, rank])?, [d_in, rank]);
    let mut b = host(b, [rank, d_out])?;
    if adapter.start.is_some() {
        a = interleaved(&a, module.rank * d_in);
        b = interleaved(&b, module.rank * d_out);
    }
    let vector =
        |value: &Param<Tensor<1>>| Some(StoredTensor::new([d_out], host(value.val(), [d_out])?));
    let magnitude = if module.dora {
        Some(vector(adapter.magnitude.as_ref()?)?)
    } else {
        None
    };
    let bias = match &module.bias {
        None => None,
        Some(path) => Some(vector(&attached.biases.get(path)?.value)?),
    };
    Some(StoredFactors {
        kind: module.kind,
        a: StoredTensor::new([rank, d_in], a),
        b: StoredTensor::new([d_out, rank], transpose(&b, [rank, d_out])),
        scale: module.scale,
        magnitude,
        bias,
    })
}

/// Returns the values of a tensor of this shape, row-major.
fn host<const D: usize>(tensor: Tensor<D>, shape: [usize; D]) -> Option<Vec<f32>> {
    if tensor.dims() != shape {
        return None;
    }
    tensor.into_data().convert::<f32>().try_to_vec().ok()
}

/// Puts behind the rows of each slice, `length` values, the rows that it started at, which are in the second half:
/// `A B − A₀ B₀` as one product.
fn interleaved(rows: &[f32], length: usize) -> Vec<f32> {
    let (own, start) = rows.split_at(rows.len() / 2);
    let slices = own.chunks(length).zip(start.chunks(length));
    let pairs: Vec<&[f32]> = slices.flat_map(|(own, start)| [own, start]).collect();
    pairs.concat()
}
