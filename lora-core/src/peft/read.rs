//! Reading a PEFT directory onto a module.

use super::config::read_config;
use super::tensors::{
    PREFIX, SLICES_KEY, SavedSlices, SlicesByModule, WEIGHTS_FILE, compact, file_shapes, names,
    transpose,
};
use crate::attach::{AttachPlan, Given};
use crate::modules::base_value;
use crate::targets::{SavedParameter, Slices, is_inside};
use crate::{AdaptedModule, Architecture, AttachReport, LayerKind, LoraConfig, LoraError, detach};
use burn::module::Module;
use burn::tensor::{Bytes, DType, TensorData};
use safetensors::{Dtype, SafeTensors};
use std::io::Read;
use std::path::Path;

/// Attaches the adapter in a PEFT directory to a module, ready to go on training.
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
) -> Result<(M, AttachReport), LoraError> {
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
) -> Result<(M, AttachReport), LoraError> {
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
) -> Result<(M, AttachReport), LoraError> {
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
    fn saved<'a>(&self, report: &'a AttachReport) -> &'a [SavedParameter] {
        match self {
            Self::All => &report.saved,
            Self::Factors { .. } => &[],
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

fn load_parts<M: Module>(
    module: M,
    dir: &Path,
    config: &LoraConfig,
    architecture: &Architecture,
    parts: Parts,
) -> Result<(M, AttachReport), LoraError> {
    let mut plan = AttachPlan::new(&module, config, architecture)?;
    let path = dir.join(WEIGHTS_FILE);
    let bytes = read_bounded(&path, &plan.report)?;
    let malformed = |message: String| LoraError::Malformed {
        path: path.clone(),
        message,
    };
    let (_, header) = SafeTensors::read_metadata(&bytes)
        .map_err(|error| malformed(format!("is not a safetensors file: {error}")))?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| malformed(format!("is not a safetensors file: {error}")))?;

    let copies = base_copies(&plan, &tensors);
    check_names(&path, &plan.report, &copies, &tensors, &parts)?;
    for copy in &copies {
        check_copy(&path, &module, copy, &tensors)?;
    }
    let slices: SlicesByModule = match header.metadata().as_ref().and_then(|m| m.get(SLICES_KEY)) {
        None => SlicesByModule::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| malformed(format!("metadata `{SLICES_KEY}`: {error}")))?,
    };
    let mut given = Given::default();
    for module in &mut plan.report.modules {
        let [name_a, name_b] = names(module);
        let [shape_a, shape_b] = file_shapes(module);
        let a = values(&path, &tensors, &name_a, &shape_a)?;
        let b = values(&path, &tensors, &name_b, &shape_b)?;
        let mut b = transpose(&b, shape_b);
        if let Some(saved) = slices.get(&module.module) {
            let sliced = to_slices(module, saved, &b)
                .ok_or_else(|| malformed(format!("`{name_b}` is not in the slices it names")))?;
            let total_rank = module.total_rank();
            module.rank = total_rank / sliced.1.adapted.len();
            module.alpha = config.scaling.alpha(module.scale, module.rank);
            b = sliced.0;
            module.slices = Some(sliced.1);
            module.parameters = module.factor_shapes().iter().map(|[m, n]| m * n).sum();
        }
        let [a_shape, b_shape] = module.factor_shapes();
        given.factors.insert(
            module.parameter.clone(),
            [
                TensorData::new(transpose(&a, shape_a), a_shape),
                TensorData::new(b, b_shape),
            ],
        );
    }
    for saved in parts.saved(&plan.report) {
        let name = format!("{PREFIX}{}", saved.name);
        let shape = saved.file_shape();
        let mut values = values(&path, &tensors, &name, &shape)?;
        if let (true, &[rows, columns]) = (saved.transposed, shape.as_slice()) {
            values = transpose(&values, [rows, columns]);
        }
        let data = TensorData::new(values, saved.shape.clone());
        given.saved.insert(saved.parameter.clone(), data);
    }
    Ok(plan.apply(module, given))
}

/// Reads the file if it can be the adapter's: factors and copies of base weights at 8 bytes a
/// value, and room for the header. Of a file that is larger, no more than that is read.
fn read_bounded(path: &Path, report: &AttachReport) -> Result<Vec<u8>, LoraError> {
    const HEADER_LIMIT: u64 = 16 << 20;
    let modules = report.modules.iter();
    let values: usize = modules
        .flat_map(|module| file_shapes(module).into_iter().chain([module.shape]))
        .map(|[rows, columns]| rows * columns)
        .sum();
    let values = values + report.saved_parameters();
    let limit = HEADER_LIMIT + 8 * values as u64;
    let file = std::fs::File::open(path).map_err(LoraError::io(path))?;
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    if read.map_err(LoraError::io(path))? as u64 > limit {
        return Err(LoraError::Malformed {
            path: path.into(),
            message: format!(
                "is larger than the {limit} bytes that this configuration can need on this model"
            ),
        });
    }
    Ok(bytes)
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
) -> Result<(M, AttachReport), LoraError> {
    load(detach(module), dir, architecture)
}

/// A copy of an adapted module's base weight in the file. PEFT writes them beside adapters on
/// embeddings and output layers.
struct BaseCopy<'a> {
    name: String,
    module: &'a AdaptedModule,
}

fn base_copies<'a>(plan: &'a AttachPlan, tensors: &SafeTensors<'_>) -> Vec<BaseCopy<'a>> {
    let modules = plan.report.modules.iter();
    modules
        .map(|module| BaseCopy {
            name: format!("{PREFIX}{}.base_layer.weight", module.module),
            module,
        })
        .filter(|copy| tensors.tensor(&copy.name).is_ok())
        .collect()
}

/// A copy that is not the model's own weight means another base model: PEFT would put it in place,
/// here it is refused.
fn check_copy<M: Module>(
    path: &Path,
    module: &M,
    copy: &BaseCopy<'_>,
    tensors: &SafeTensors<'_>,
) -> Result<(), LoraError> {
    let [d_in, d_out] = copy.module.shape;
    // Embeddings lie in the file as here, linear layers the other way round.
    let shape = match copy.module.kind {
        LayerKind::Embedding => [d_in, d_out],
        LayerKind::Linear => [d_out, d_in],
    };
    let mut values = values(path, tensors, &copy.name, &shape)?;
    if copy.module.kind == LayerKind::Linear {
        values = transpose(&values, shape);
    }
    if base_value(module, &copy.module.parameter).is_some_and(|base| base == values) {
        return Ok(());
    }
    Err(LoraError::Malformed {
        path: path.into(),
        message: format!(
            "`{}` is not the weight of this base model; the adapter was trained on another, or \
             with the weight itself (save it from PEFT with `save_embedding_layers=False`)",
            copy.name
        ),
    })
}

fn check_names(
    path: &Path,
    report: &AttachReport,
    copies: &[BaseCopy<'_>],
    tensors: &SafeTensors<'_>,
    parts: &Parts,
) -> Result<(), LoraError> {
    let saved = parts.saved(report).iter();
    let expected: Vec<String> = report
        .modules
        .iter()
        .flat_map(names)
        .chain(saved.map(|saved| format!("{PREFIX}{}", saved.name)))
        .collect();
    let mut unexpected: Vec<String> = tensors
        .names()
        .into_iter()
        .filter(|name| !expected.iter().any(|e| e == name))
        .filter(|name| !copies.iter().any(|copy| copy.name == **name))
        .filter(|name| !parts.leaves(name))
        .map(|name| name.to_string())
        .collect();
    if !unexpected.is_empty() {
        unexpected.sort();
        return Err(LoraError::UnexpectedTensors {
            path: path.into(),
            names: unexpected,
        });
    }
    let missing: Vec<String> = expected
        .into_iter()
        .filter(|name| tensors.tensor(name).is_err())
        .collect();
    if !missing.is_empty() {
        return Err(LoraError::MissingTensors {
            path: path.into(),
            names: missing,
        });
    }
    Ok(())
}

fn values(
    path: &Path,
    tensors: &SafeTensors<'_>,
    name: &str,
    expected: &[usize],
) -> Result<Vec<f32>, LoraError> {
    let malformed = |message: String| LoraError::Malformed {
        path: path.into(),
        message,
    };
    let tensor = tensors
        .tensor(name)
        .map_err(|error| malformed(format!("tensor `{name}`: {error}")))?;
    if tensor.shape() != expected {
        return Err(LoraError::TensorShape {
            path: path.into(),
            name: name.into(),
            expected: expected.to_vec(),
            found: tensor.shape().to_vec(),
        });
    }
    let dtype = match tensor.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        other => {
            return Err(malformed(format!(
                "tensor `{name}` is {other:?}, expected F32, F16, BF16 or F64"
            )));
        }
    };
    let bytes = Bytes::from_bytes_vec(tensor.data().to_vec());
    let data = TensorData::from_bytes(bytes, expected, dtype);
    let values = data
        .convert::<f32>()
        .try_to_vec::<f32>()
        .map_err(|error| malformed(format!("tensor `{name}`: {error:?}")))?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(malformed(format!(
            "tensor `{name}` has values that are not finite"
        )));
    }
    Ok(values)
}

/// Checks the slices that the metadata names and takes their blocks out of `B`.
fn to_slices(module: &AdaptedModule, saved: &SavedSlices, b: &[f32]) -> Option<(Vec<f32>, Slices)> {
    let d_out = module.shape[1];
    let slices = saved.of(d_out)?;
    if !module.total_rank().is_multiple_of(slices.adapted.len()) {
        return None;
    }
    let rank = module.total_rank() / slices.adapted.len();
    Some((compact(b, rank, d_out, &slices)?, slices))
}
