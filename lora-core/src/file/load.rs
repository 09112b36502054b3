//! Loading of an adapter directory into the parameters of a module.

use super::adapter::{StoredAdapter, StoredFactors};
use super::base_weights::BaseWeight;
use super::config::PeftOptions;
use super::dir::AdapterDir;
use super::expected::{
    Parts, base_copy, check_copies, check_copy, check_tensors, copied_name, without_prefix,
};
use super::notes::{Notes, compact};
use super::transpose;
use crate::attach::{Adapted, AdapterValues, AdapterWeights, AttachReport, detach};
use crate::config::{LoraConfig, LoraScaling};
use crate::error::LoraError;
use crate::files::Directory;
use crate::layout::{AdaptedModule, Architecture, SavedParameter};
use burn::module::Module;
use burn::tensor::TensorData;
use std::path::Path;

/// Attaches the adapter in a PEFT directory to a module, ready for further training.
///
/// [`AttachReport::base_difference`] is the known difference between the base and the one that the adapter was trained
/// on.
///
/// The tensors must be exactly those that `adapter_config.json` calls for on this module. They may
/// be f32, f16, bf16 or f64, and become f32.
///
/// # Errors
/// If a file cannot be read or is malformed, a key is not supported, a target matches nothing, or a
/// tensor is missing, left over, without PEFT's prefix, misshapen or not finite.
pub fn load<M: Module>(
    module: M,
    dir: impl Into<Directory>,
    architecture: &Architecture,
) -> Result<Adapted<M>, LoraError> {
    AdapterDir::open(dir)?.load(module, architecture)
}

/// Takes the adapters off a module and attaches those of another directory: the base is neither
/// copied nor changed.
///
/// # Errors
/// As [`load`].
pub fn switch<M: Module>(
    module: M,
    dir: impl Into<Directory>,
    architecture: &Architecture,
) -> Result<Adapted<M>, LoraError> {
    load(detach(module), dir, architecture)
}

impl AdapterDir {
    /// Attaches the adapter to a module, as [`load`] does.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load<M: Module>(
        &self,
        module: M,
        architecture: &Architecture,
    ) -> Result<Adapted<M>, LoraError> {
        self.load_with(module, self.config()?, architecture)
    }

    /// Attaches the adapter with a configuration that was changed where the tensors do not depend on it: another
    /// dropout to train with.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load_with<M: Module>(
        &self,
        module: M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<Adapted<M>, LoraError> {
        self.load_on(module, config, architecture, &[])
    }

    /// Attaches the adapter to a module that has the [`base_weights`](Self::base_weights) of the file in the place of its own, as
    /// [`load_with`](Self::load_with). Those that are `kept` are written with the adapter when it is saved.
    ///
    /// # Errors
    /// As [`load`]; also if the file has other weights for the base than the module.
    pub fn load_on<M: Module>(
        &self,
        module: M,
        config: &LoraConfig,
        architecture: &Architecture,
        kept: &[BaseWeight],
    ) -> Result<Adapted<M>, LoraError> {
        self.load_parts(module, config, architecture, kept, Parts::All)
    }

    /// Attaches the factors alone: fully trained parameters of the file are left out, and the modules that `config` saves start as
    /// they are in `module`. It starts another task from an adapter, with a head of its own. Those `entries` of the file's
    /// `modules_to_save` are read nevertheless, and `kept` is as for [`load_on`](Self::load_on).
    ///
    /// # Errors
    /// As [`load`].
    pub fn load_factors<M: Module>(
        &self,
        module: M,
        config: &LoraConfig,
        architecture: &Architecture,
        entries: &[String],
        kept: &[BaseWeight],
    ) -> Result<Adapted<M>, LoraError> {
        let left = self.config()?.modules_to_save.iter();
        let left: Vec<String> = left
            .filter(|entry| !entries.contains(entry))
            .cloned()
            .collect();
        let parts = Parts::Factors {
            left: &left,
            and: entries,
        };
        self.load_parts(module, config, architecture, kept, parts)
    }

    fn load_parts<M: Module>(
        &self,
        module: M,
        config: &LoraConfig,
        architecture: &Architecture,
        kept: &[BaseWeight],
        parts: Parts<'_>,
    ) -> Result<Adapted<M>, LoraError> {
        let (mut report, weights) = self.read_for(&module, config, architecture, parts)?;
        refuse_lost_dropout(&module, &report)?;
        // The original of a fully trained module is used nowhere, and the module does not hold it.
        let kept = kept.iter().filter(|weight| !weight.is_original());
        let kept = kept.filter_map(|weight| {
            let name = format!("{}.weight", weight.module);
            let own = report.vocabulary.iter().find(|p| p.name == name);
            // A tied output layer is the embedding.
            let place = own.or(report.vocabulary.first())?;
            Some(weight.saved(&place.parameter, place.transposed))
        });
        let kept: Vec<SavedParameter> = kept.collect();
        if !kept.is_empty() {
            report.base_weights = kept;
        }
        report.apply(module, weights)
    }

    /// Reads these parts of the adapter for a module, which is left as it is. The tensors must be all that the directory
    /// holds.
    pub(crate) fn read_for<M: Module>(
        &self,
        module: &M,
        config: &LoraConfig,
        architecture: &Architecture,
        parts: Parts<'_>,
    ) -> Result<(AttachReport, AdapterWeights), LoraError> {
        let own = self.config()?.clone();
        let report = AttachReport::new(module, config, architecture)?;
        let file = self.tensors()?;
        let shape = |name: String| {
            let shape = file.shape(&name)?.to_vec();
            Some((name, shape))
        };
        let shapes = file.names().into_iter().filter_map(shape).collect();
        let copies = self.base_weights(architecture)?;
        let names = check_tensors(file.path(), &shapes, &report, &copies, parts)?;
        let options = PeftOptions::default();
        let stored = StoredAdapter::from_tensors(file, &names, own, options, &[])?;
        check_copies(module, &stored, &report, &copies, file.path())?;
        let mut notes = Vec::new();
        for name in file.names() {
            let Some(original) = copied_name(&name, &report) else {
                continue;
            };
            if names.contains(&name) || stored.saved.get(&original) == Some(&file.read(&name)?) {
                continue;
            }
            notes.push(format!(
                "`{name}` is no copy of `{original}`, as its name says: that one is used, as in PEFT"
            ));
        }
        let (mut report, weights) = stored.into_weights(module, report, file.path(), parts)?;
        report.notes = notes;
        Ok((report, weights))
    }
}

impl StoredAdapter {
    /// Returns the weights of the adapter for a module, which is left as it is. Error messages name the tensors as those of
    /// the file at `path`.
    pub(crate) fn weights_for<M: Module>(
        &self,
        module: &M,
        architecture: &Architecture,
        path: &Path,
    ) -> Result<(AttachReport, AdapterWeights), LoraError> {
        let report = AttachReport::new(module, &self.file_config(), architecture)?;
        let tensors = self.tensors();
        let shapes = tensors
            .iter()
            .map(|(name, t)| (name.clone(), t.shape.clone()));
        check_tensors(path, &shapes.collect(), &report, &[], Parts::All)?;
        for (name, tensor) in tensors {
            tensor.check_finite(path, &name)?;
        }
        self.clone().into_weights(module, report, path, Parts::All)
    }

    /// Returns the weights that a report calls for, whose names and shapes were checked. The report gets the ranks and slices
    /// of the file, and the difference between the bases.
    fn into_weights<M: Module>(
        self,
        module: &M,
        mut report: AttachReport,
        path: &Path,
        parts: Parts<'_>,
    ) -> Result<(AttachReport, AdapterWeights), LoraError> {
        if let Some(base) = Notes::of_file(path, &self.metadata)?.base {
            // Without its head the adapter may be put on another kind of model with the same trunk.
            let whole = matches!(parts, Parts::All);
            report.base_difference = base.difference_to(module, &report.outline, whole);
        }
        let weights = self.values(module, &mut report, path, parts)?;
        Ok((report, weights))
    }

    /// Returns the values of the adapters in a report, which gets the ranks and slices of the file.
    pub(crate) fn values<M: Module>(
        mut self,
        module: &M,
        report: &mut AttachReport,
        path: &Path,
        parts: Parts<'_>,
    ) -> Result<AdapterWeights, LoraError> {
        let notes = Notes::of_file(path, &self.metadata)?;
        let scaling = report.config.scaling;
        let mut weights = AdapterWeights::default();
        for adapted in &mut report.modules {
            let (copy, _) = base_copy(adapted);
            if let Some(copy) = self.saved.remove(without_prefix(&copy)) {
                check_copy(path, module, copy, adapted)?;
            }
            let factors = self.modules.remove(&adapted.module);
            let factors = factors.ok_or_else(|| LoraError::not_attached(&adapted.module))?;
            let values = adapter_values(path, &notes, factors, adapted, scaling)?;
            weights.adapters.insert(adapted.parameter.clone(), values);
        }
        if let Some(init) = notes.start {
            report.config.init = init;
        }
        for tokens in &report.tokens {
            let tensor = self.saved.remove(&tokens.name());
            let tensor = tensor.ok_or_else(|| LoraError::not_attached(&tokens.module))?;
            let data = TensorData::new(tensor.values, tokens.rows_shape());
            weights.rows.insert(tokens.parameter.clone(), data);
        }
        for saved in parts.saved(report) {
            let tensor = self.saved.remove(&saved.name);
            let mut tensor = tensor.ok_or_else(|| LoraError::not_attached(&saved.name))?;
            if saved.transposed {
                tensor = tensor.transposed();
            }
            let data = TensorData::new(tensor.values, saved.shape.clone());
            weights.saved.insert(saved.parameter.clone(), data);
        }
        Ok(weights)
    }
}

/// Returns the adapter of a module, whose rank and slices become those of the file.
fn adapter_values(
    path: &Path,
    notes: &Notes,
    factors: StoredFactors,
    module: &mut AdaptedModule,
    scaling: LoraScaling,
) -> Result<AdapterValues, LoraError> {
    let [d_in, d_out] = module.shape;
    let name = &module.module;
    let mut rank = factors.rank();
    // One row a rank, of each.
    let (mut a, mut b) = (factors.a.values, factors.b.transposed().values);
    if let Some(saved) = notes.slices.get(name) {
        let blocks = saved.on(d_out).and_then(|slices| {
            let of_slice = rank / slices.adapted.len();
            let fits = rank.is_multiple_of(slices.adapted.len());
            let blocks = compact(&b, of_slice, d_out, &slices).filter(|_| fits)?;
            Some((of_slice, blocks, slices))
        });
        let Some((of_slice, blocks, slices)) = blocks else {
            let message = format!("`B` of `{name}` is not in its slices");
            return Err(LoraError::malformed(path, message));
        };
        (rank, b) = (of_slice, blocks);
        module.slices = Some(slices);
    }
    let mut start = None;
    if notes.start.is_some() {
        if !rank.is_multiple_of(2) {
            let message =
                format!("`{name}` has rank {rank}, which is not that of factors and their start");
            return Err(LoraError::malformed(path, message));
        }
        rank /= 2;
        let (start_a, mut start_b);
        let widths = module.block_widths();
        (a, start_a) = halves(&a, widths.iter().map(|_| rank * d_in));
        (b, start_b) = halves(&b, widths.iter().map(|width| rank * width));
        start_b.iter_mut().for_each(|value| *value = -*value);
        start = Some((start_a, start_b));
    }
    module.residual_init |= start.is_some();
    if module.rank != rank {
        module.rank = rank;
        module.alpha = scaling.alpha(module.scale, rank);
    }
    let [a_shape, b_shape] = module.factor_shapes();
    let pair = |(a, b): (Vec<f32>, Vec<f32>)| {
        [
            TensorData::new(transpose(&a, [a_shape[1], a_shape[0]]), a_shape),
            TensorData::new(b, b_shape),
        ]
    };
    Ok(AdapterValues {
        factors: pair((a, b)),
        start: start.map(pair),
        magnitude: factors
            .magnitude
            .map(|m| TensorData::new(m.values, [d_out])),
        bias: factors
            .bias
            .map(|bias| TensorData::new(bias.values, [d_out])),
    })
}

/// Splits values that have two chunks of each length by turns: the first of each, and the second.
fn halves(values: &[f32], lengths: impl Iterator<Item = usize>) -> (Vec<f32>, Vec<f32>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut rest = values;
    for length in lengths {
        let (own, after) = rest.split_at(length.min(rest.len()));
        let (other, after) = after.split_at(length.min(after.len()));
        first.extend(own);
        second.extend(other);
        rest = after;
    }
    (first, second)
}

/// Refuses dropout that the training would leave out. Only a device with gradients trains.
fn refuse_lost_dropout<M: Module>(module: &M, report: &AttachReport) -> Result<(), LoraError> {
    if module.devices().iter().any(|device| device.is_autodiff()) {
        report.check_dropout()?;
    }
    Ok(())
}
