//! Reading a PEFT directory onto a module.

use super::config::read_config;
use super::tensors::{FileTensor, PREFIX, WEIGHTS_FILE, file_tensors, transpose};
use super::values::AdapterFile;
use crate::adapter::base_value;
use crate::attach::{Adapted, AdapterWeights, AttachPlan, AttachReport, detach};
use crate::config::{BiasTraining, LoraConfig};
use crate::error::LoraError;
use crate::files;
use crate::layout::{AdaptedModule, Architecture, LayerKind, SavedParameter, is_inside};
use burn::module::Module;
use burn::tensor::TensorData;
use std::path::Path;

/// Attaches the adapter in a PEFT directory to a module, ready to go on training.
///
/// Of a base that is not the one the adapter was trained on, as far as the file tells,
/// [`AttachReport::base_difference`] says so.
///
/// The tensors must be exactly those that `adapter_config.json` calls for on this module. They may
/// be f32, f16, bf16 or f64, and become f32.
///
/// # Errors
/// If a file cannot be read or is malformed, a key is not supported, a target matches nothing, or a
/// tensor is missing, left over, without PEFT's prefix, misshapen or not finite.
pub fn load<M: Module>(
    module: M,
    dir: &Path,
    architecture: &Architecture,
) -> Result<Adapted<M>, LoraError> {
    load_with(module, dir, &read_config(dir)?, architecture)
}

/// [`load`] with a configuration that was read before, and may have been changed where the tensors
/// do not depend on it: another dropout to train with.
///
/// # Errors
/// As [`load`].
pub fn load_with<M: Module>(
    module: M,
    dir: &Path,
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<Adapted<M>, LoraError> {
    load_parts(module, dir, config, architecture, Parts::All)
}

/// [`load_with`] for the factors alone: what the file saved whole is left, and the modules that
/// `config` saves whole start as they are in `module`. To start another task from an adapter, with a head of its
/// own.
///
/// # Errors
/// As [`load`].
pub fn load_factors<M: Module>(
    module: M,
    dir: &Path,
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<Adapted<M>, LoraError> {
    let left = read_config(dir)?.modules_to_save;
    load_parts(module, dir, config, architecture, Parts::Factors { left })
}

/// What of a file is read.
enum Parts {
    /// All that is in it.
    All,
    /// The factors; what is in these modules is left.
    Factors { left: Vec<String> },
}

impl Parts {
    /// The parameters that are read whole.
    fn saved<'a>(&self, report: &'a AttachReport) -> Vec<&'a SavedParameter> {
        let modules = &report.config.modules_to_save;
        let is_module = |saved: &SavedParameter| modules.iter().any(|m| is_inside(&saved.name, m));
        let saved = report.saved.iter();
        match self {
            Self::All => saved.collect(),
            // Biases of the base belong to the adapter.
            Self::Factors { .. } => saved.filter(|saved| !is_module(saved)).collect(),
        }
    }

    /// Whether a tensor of the file is left on purpose.
    fn leaves(&self, name: &str) -> bool {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        match self {
            Self::All => false,
            Self::Factors { left } => left.iter().any(|module| is_inside(name, module)),
        }
    }
}

/// The tensors that a file must hold of a module's adapter.
///
/// One that PEFT did not convert holds what the factors became, not the difference to their start.
fn expected_tensors(module: &AdaptedModule) -> Vec<FileTensor> {
    file_tensors(module, module.trained_rank())
}

fn load_parts<M: Module>(
    module: M,
    dir: &Path,
    config: &LoraConfig,
    architecture: &Architecture,
    parts: Parts,
) -> Result<Adapted<M>, LoraError> {
    let plan = AttachPlan::new(&module, config, architecture)?;
    let path = dir.join(WEIGHTS_FILE);
    let bytes = read_bounded(&path, &plan.report)?;
    let (plan, given) = read_parts(&module, plan, &path, &bytes, &parts)?;
    plan.apply(module, given)
}

/// All that a directory holds of an adapter for a module, which is left as it is.
pub(crate) fn read<M: Module>(
    module: &M,
    dir: &Path,
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<(AttachPlan, AdapterWeights), LoraError> {
    let plan = AttachPlan::new(module, config, architecture)?;
    let path = dir.join(WEIGHTS_FILE);
    let bytes = read_bounded(&path, &plan.report)?;
    read_parts(module, plan, &path, &bytes, &Parts::All)
}

/// [`read`] of a file that is in memory.
pub(crate) fn read_bytes<M: Module>(
    module: &M,
    path: &Path,
    bytes: &[u8],
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<(AttachPlan, AdapterWeights), LoraError> {
    let plan = AttachPlan::new(module, config, architecture)?;
    read_parts(module, plan, path, bytes, &Parts::All)
}

fn read_parts<M: Module>(
    module: &M,
    mut plan: AttachPlan,
    path: &Path,
    bytes: &[u8],
    parts: &Parts,
) -> Result<(AttachPlan, AdapterWeights), LoraError> {
    let scaling = plan.report.config.scaling;
    let file = AdapterFile::new(path, bytes)?;

    let copies = base_copies(&plan, &file);
    check_names(&file, &plan.report, &copies, parts)?;
    for copy in &copies {
        check_copy(&file, module, copy)?;
    }
    let mut given = AdapterWeights::default();
    for module in &mut plan.report.modules {
        let expected = expected_tensors(module);
        let values = file.adapter(module, &expected, scaling)?;
        given.adapters.insert(module.parameter.clone(), values);
    }
    if let Some(init) = file.start {
        plan.report.config.init = init;
    }
    for saved in parts.saved(&plan.report) {
        let shape = saved.file_shape();
        let mut values = file.values(&format!("{PREFIX}{}", saved.name), &shape)?;
        if let (true, &[rows, columns]) = (saved.transposed, shape.as_slice()) {
            values = transpose(&values, [rows, columns]);
        }
        let data = TensorData::new(values, saved.shape.clone());
        given.saved.insert(saved.parameter.clone(), data);
    }
    if let Some(base) = &file.base {
        // Without its head the adapter may be put on another kind of model with the same trunk.
        let whole = matches!(parts, Parts::All);
        let report = &mut plan.report;
        report.base_difference = base.difference_to(module, &report.outline, whole);
    }
    Ok((plan, given))
}

/// Reads the file if it can be the adapter's: factors and copies of base weights at 8 bytes a
/// value, and room for the header. Of a file that is larger, no more than that is read.
fn read_bounded(path: &Path, report: &AttachReport) -> Result<Vec<u8>, LoraError> {
    const HEADER_LIMIT: u64 = 16 << 20;
    let modules = report.modules.iter();
    let elements = |shape: &[usize]| shape.iter().product::<usize>();
    let of_module = |module: &AdaptedModule| {
        let tensors = expected_tensors(module);
        let factors: usize = tensors.iter().map(|tensor| elements(&tensor.shape)).sum();
        factors + elements(&module.shape)
    };
    // Copies of what is saved whole are written by PEFT too.
    let values = modules.map(of_module).sum::<usize>() + 3 * report.saved_parameters();
    files::read_bounded(path, HEADER_LIMIT + 8 * values as u64)
}

/// Takes the adapters off a module and puts those of another directory on: the base is neither
/// copied nor changed.
///
/// # Errors
/// As [`load`].
pub fn switch<M: Module>(
    module: M,
    dir: &Path,
    architecture: &Architecture,
) -> Result<Adapted<M>, LoraError> {
    load(detach(module), dir, architecture)
}

/// A copy of an adapted module's base weight in the file. PEFT writes them beside adapters on
/// embeddings and output layers.
struct BaseCopy<'a> {
    name: String,
    module: &'a AdaptedModule,
}

fn base_copies<'a>(plan: &'a AttachPlan, file: &AdapterFile<'_>) -> Vec<BaseCopy<'a>> {
    let modules = plan.report.modules.iter();
    modules
        .map(|module| BaseCopy {
            name: format!("{PREFIX}{}.base_layer.weight", module.module),
            module,
        })
        .filter(|copy| file.tensors.tensor(&copy.name).is_ok())
        .collect()
}

/// A copy that is not the model's own weight means another base model: PEFT would put it in place,
/// here it is refused.
fn check_copy<M: Module>(
    file: &AdapterFile<'_>,
    module: &M,
    copy: &BaseCopy<'_>,
) -> Result<(), LoraError> {
    let [d_in, d_out] = copy.module.shape;
    // Embeddings lie in the file as here, linear layers the other way round.
    let shape = match copy.module.kind {
        LayerKind::Embedding => [d_in, d_out],
        LayerKind::Linear => [d_out, d_in],
    };
    let mut values = file.values(&copy.name, &shape)?;
    if copy.module.kind == LayerKind::Linear {
        values = transpose(&values, shape);
    }
    if base_value(module, &copy.module.parameter).is_some_and(|base| base == values) {
        return Ok(());
    }
    Err(LoraError::Malformed {
        path: file.path.clone(),
        message: format!(
            "`{}` is not the weight of this base model; the adapter was trained on another, or \
             with the weight itself (save it from PEFT with `save_embedding_layers=False`)",
            copy.name
        ),
    })
}

fn check_names(
    file: &AdapterFile<'_>,
    report: &AttachReport,
    copies: &[BaseCopy<'_>],
    parts: &Parts,
) -> Result<(), LoraError> {
    let tensors = &file.tensors;
    let saved = parts.saved(report).into_iter();
    let expected: Vec<String> = report
        .modules
        .iter()
        .flat_map(expected_tensors)
        .map(|tensor| tensor.name)
        .chain(saved.map(|saved| format!("{PREFIX}{}", saved.name)))
        .collect();
    let mut unexpected: Vec<String> = tensors
        .names()
        .into_iter()
        .filter(|name| !expected.iter().any(|e| e == name))
        .filter(|name| !copies.iter().any(|copy| copy.name == **name))
        .filter(|name| !parts.leaves(name))
        .filter(|name| !is_copy_of_saved(name, report))
        .map(|name| name.to_string())
        .collect();
    if !unexpected.is_empty() {
        unexpected.sort();
        return Err(LoraError::UnexpectedTensors {
            path: file.path.clone(),
            names: unexpected,
        });
    }
    let missing: Vec<String> = expected
        .into_iter()
        .filter(|name| tensors.tensor(name).is_err())
        .collect();
    if !missing.is_empty() {
        return Err(LoraError::MissingTensors {
            path: file.path.clone(),
            names: missing,
        });
    }
    Ok(())
}

/// With `bias="all"` PEFT writes the biases of modules that are saved whole three times: under their name,
/// and under those of its wrapper, once as they were before.
fn is_copy_of_saved(name: &str, report: &AttachReport) -> bool {
    if report.config.bias != BiasTraining::All {
        return false;
    }
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let wrappers = [
        ".original_module.",
        ".modules_to_save.default.",
        ".modules_to_save.",
    ];
    let wrapped = wrappers.iter().find_map(|wrapper| {
        let (module, rest) = name.split_once(wrapper)?;
        Some(format!("{module}.{rest}"))
    });
    wrapped.is_some_and(|name| report.saved.iter().any(|saved| saved.name == name))
}
