//! The adapters on the parameters of a module, as files hold them.

use super::adapter::{StoredAdapter, StoredFactors, StoredTensor, transpose};
use super::config::PeftOptions;
use super::notes::INIT_KEY;
use crate::adapter::{AdapterEntry, attached_adapters, base_value};
use crate::attach::{Adapted, AttachReport};
use crate::error::LoraError;
use crate::files::Overwrite;
use crate::fingerprint::BaseFingerprint;
use crate::layout::AdaptedModule;
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
    let adapters = attached_adapters(module, &report.modules, &report.tokens);
    stored(module, report, options, &adapters)
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

/// Returns adapters as files hold them. Fully trained parameters are those of the adapters, or else of `base`, which is any
/// module on the same base.
pub(crate) fn stored<M: Module>(
    base: &M,
    report: &AttachReport,
    options: &PeftOptions,
    adapters: &BTreeMap<String, AdapterEntry>,
) -> Result<StoredAdapter, LoraError> {
    let mut adapter = StoredAdapter {
        config: report.config.clone(),
        options: options.clone(),
        modules: BTreeMap::new(),
        saved: BTreeMap::new(),
        metadata: BTreeMap::new(),
    };
    for module in &report.modules {
        let name = &module.module;
        let factors = stored_factors(module, adapters);
        let factors = factors.ok_or_else(|| LoraError::not_attached(name))?;
        adapter.modules.insert(name.clone(), factors);
    }
    for parameter in report.saved.iter().chain(&report.base_weights) {
        let path = &parameter.parameter;
        let entry = adapters.get(path).and_then(|entry| entry.full.as_ref());
        let own = entry.and_then(|full| host(full.val(), [parameter.elements()]));
        let values = own.or_else(|| base_value(base, path));
        let values = values.filter(|values| values.len() == parameter.elements());
        let values = values.ok_or_else(|| LoraError::not_attached(&parameter.name))?;
        let mut tensor = StoredTensor::new(parameter.shape.clone(), values);
        if parameter.transposed {
            tensor = tensor.transposed();
        }
        adapter.saved.insert(parameter.name.clone(), tensor);
    }
    for tokens in &report.tokens {
        let entry = adapters.get(&tokens.parameter);
        let rows = entry.and_then(|entry| entry.rows.as_ref());
        let shape = tokens.rows_shape();
        let values = rows.and_then(|rows| host(rows.rows.val(), shape));
        let values = values.ok_or_else(|| LoraError::not_attached(&tokens.module))?;
        let tensor = StoredTensor::new(shape, values);
        adapter.saved.insert(tokens.name(), tensor);
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
fn stored_factors(
    module: &AdaptedModule,
    adapters: &BTreeMap<String, AdapterEntry>,
) -> Option<StoredFactors> {
    let [d_in, d_out] = module.shape;
    let rank = module.total_rank();
    let adapter = adapters.get(&module.parameter)?.factors.as_ref()?;
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
        Some(path) => Some(vector(&adapters.get(path)?.bias.as_ref()?.value)?),
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

/// Interleaves the chunks of `length` values of both halves: the rows of each slice, then its initial rows, which makes
/// `A B − A₀ B₀` one product.
fn interleaved(rows: &[f32], length: usize) -> Vec<f32> {
    let (own, start) = rows.split_at(rows.len() / 2);
    let slices = own.chunks(length).zip(start.chunks(length));
    let pairs: Vec<&[f32]> = slices.flat_map(|(own, start)| [own, start]).collect();
    pairs.concat()
}
