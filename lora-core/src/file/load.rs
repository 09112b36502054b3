//! An adapter directory onto the parameters of a module.

use super::dir::AdapterDir;
use super::notes::compact;
use super::tensors::{AdapterTensors, PREFIX, TensorRole, tensor_name};
use super::transpose;
use crate::adapter::base_value;
use crate::attach::{Adapted, AdapterValues, AdapterWeights, AttachPlan, AttachReport, detach};
use crate::config::{BiasTraining, LoraConfig, LoraScaling};
use crate::error::LoraError;
use crate::layout::{AdaptedModule, Architecture, LayerKind, SavedParameter, is_inside};
use burn::module::Module;
use burn::tensor::TensorData;
use std::path::Path;

/// Attaches the adapter in a PEFT directory to a module, ready to go on training.
///
/// [`AttachReport::base_difference`] says how the base differs from the one that the adapter was trained on, as far as
/// the file tells.
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
    AdapterDir::open(dir)?.load(module, architecture)
}

/// Takes the adapters off a module and attaches those of another directory: the base is neither
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
        let (plan, weights) = self.plan(&module, config, architecture)?;
        plan.apply(module, weights)
    }

    /// Attaches the factors alone: fully trained parameters of the file are left out, and the modules that `config`
    /// saves start as they are in `module`. It starts another task from an adapter, with a head of its own.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load_factors<M: Module>(
        &self,
        module: M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<Adapted<M>, LoraError> {
        let plan = AttachPlan::new(&module, config, architecture)?;
        let left = &self.config()?.modules_to_save;
        let (plan, weights) = read_weights(&module, plan, self.tensors()?, Parts::Factors(left))?;
        plan.apply(module, weights)
    }

    /// Reads all that the directory holds of an adapter for a module, which is left as it is.
    pub(crate) fn plan<M: Module>(
        &self,
        module: &M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<(AttachPlan, AdapterWeights), LoraError> {
        self.config()?;
        let plan = AttachPlan::new(module, config, architecture)?;
        read_weights(module, plan, self.tensors()?, Parts::All)
    }
}

/// Parts of a file that are read.
#[derive(Clone, Copy)]
pub(crate) enum Parts<'a> {
    /// All tensors.
    All,
    /// The factors, without the tensors in these modules.
    Factors(&'a [String]),
}

impl Parts<'_> {
    /// Returns the fully trained parameters that are read.
    fn saved<'a>(&self, report: &'a AttachReport) -> Vec<&'a SavedParameter> {
        let modules = &report.config.modules_to_save;
        let is_module = |saved: &SavedParameter| modules.iter().any(|m| is_inside(&saved.name, m));
        let saved = report.saved.iter();
        match self {
            Self::All => saved.collect(),
            // Biases of the base belong to the adapter.
            Self::Factors(_) => saved.filter(|saved| !is_module(saved)).collect(),
        }
    }

    /// Returns true if a tensor of the file is left out on purpose.
    fn leaves(&self, name: &str) -> bool {
        match self {
            Self::All => false,
            Self::Factors(left) => left
                .iter()
                .any(|module| is_inside(without_prefix(name), module)),
        }
    }
}

fn without_prefix(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Tensor that a file must hold of a module's adapter.
struct Expected {
    role: TensorRole,
    name: String,
    shape: Vec<usize>,
}

/// Returns the tensors of a module's adapter in a file that PEFT did not convert: it holds what the factors became, not
/// the difference to their start.
fn expected_tensors(module: &AdaptedModule) -> Vec<Expected> {
    let ([d_in, d_out], rank) = (module.shape, module.trained_rank());
    let tensor = |role, shape: &[usize]| Expected {
        role,
        name: tensor_name(&module.module, role, module.kind),
        shape: shape.to_vec(),
    };
    let mut tensors = vec![
        tensor(TensorRole::A, &[rank, d_in]),
        tensor(TensorRole::B, &[d_out, rank]),
    ];
    if module.dora {
        tensors.push(tensor(TensorRole::Magnitude, &[d_out]));
    }
    if module.bias.is_some() {
        tensors.push(tensor(TensorRole::Bias, &[d_out]));
    }
    tensors
}

/// Reads the weights that a plan calls for, which must be all that the file holds.
pub(crate) fn read_weights<M: Module>(
    module: &M,
    mut plan: AttachPlan,
    file: &AdapterTensors,
    parts: Parts<'_>,
) -> Result<(AttachPlan, AdapterWeights), LoraError> {
    let copies = base_copies(&plan.report, file);
    check_names(file, &plan.report, &copies, parts)?;
    for (name, adapted) in &copies {
        check_copy(file, module, name, adapted)?;
    }
    drop(copies);
    let mut weights = AdapterWeights::default();
    let scaling = plan.report.config.scaling;
    for module in &mut plan.report.modules {
        let values = adapter_values(file, module, scaling)?;
        weights.adapters.insert(module.parameter.clone(), values);
    }
    if let Some(init) = file.notes().start {
        plan.report.config.init = init;
    }
    for saved in parts.saved(&plan.report) {
        let shape = saved.file_shape();
        let mut values = file.values(&format!("{PREFIX}{}", saved.name), &shape)?;
        if let (true, &[rows, columns]) = (saved.transposed, shape.as_slice()) {
            values = transpose(&values, [rows, columns]);
        }
        let data = TensorData::new(values, saved.shape.clone());
        weights.saved.insert(saved.parameter.clone(), data);
    }
    if let Some(base) = &file.notes().base {
        // Without its head the adapter may be put on another kind of model with the same trunk.
        let whole = matches!(parts, Parts::All);
        let report = &mut plan.report;
        report.base_difference = base.difference_to(module, &report.outline, whole);
    }
    Ok((plan, weights))
}

/// Reads the adapter of a module, whose rank and slices become those of the file.
fn adapter_values(
    file: &AdapterTensors,
    module: &mut AdaptedModule,
    scaling: LoraScaling,
) -> Result<AdapterValues, LoraError> {
    let [d_in, d_out] = module.shape;
    // One row a rank, of each.
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (mut magnitude, mut bias) = (None, None);
    for tensor in expected_tensors(module) {
        let values = file.values(&tensor.name, &tensor.shape)?;
        let vector = |values| Some(TensorData::new(values, [d_out]));
        match tensor.role {
            TensorRole::A => a = values,
            TensorRole::B => b = transpose(&values, [d_out, tensor.shape[1]]),
            TensorRole::Magnitude => magnitude = vector(values),
            TensorRole::Bias => bias = vector(values),
        }
    }
    let mut rank = module.trained_rank();
    if let Some(saved) = file.notes().slices.get(&module.module) {
        let slices = saved
            .on(d_out)
            .filter(|s| rank.is_multiple_of(s.adapted.len()));
        let blocks = slices.and_then(|slices| {
            let blocks = compact(&b, rank / slices.adapted.len(), d_out, &slices)?;
            Some((blocks, slices))
        });
        let Some((blocks, slices)) = blocks else {
            return Err(file.malformed(format!("`B` of `{}` is not in its slices", module.module)));
        };
        rank /= slices.adapted.len();
        b = blocks;
        module.slices = Some(slices);
    }
    let mut start = None;
    if file.notes().start.is_some() {
        if !rank.is_multiple_of(2) {
            return Err(file.malformed(format!(
                "`{}` has rank {rank}, which is not that of factors and their start",
                module.module
            )));
        }
        rank /= 2;
        let (start_a, mut start_b);
        (a, start_a) = halves(&a, rank * d_in);
        (b, start_b) = halves(&b, rank * module.block_width());
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
        magnitude,
        bias,
    })
}

/// Splits values into chunks of `length` by turns: the first, third and so on, and the others.
fn halves(values: &[f32], length: usize) -> (Vec<f32>, Vec<f32>) {
    let chunks: Vec<&[f32]> = values.chunks(length).collect();
    let every_other = |from: usize| chunks.iter().skip(from).step_by(2).copied();
    let collect = |from: usize| every_other(from).collect::<Vec<_>>().concat();
    (collect(0), collect(1))
}

/// Returns the copies of adapted modules' base weights in the file, by name. PEFT writes them beside adapters on
/// embeddings and output layers.
fn base_copies<'a>(
    report: &'a AttachReport,
    file: &AdapterTensors,
) -> Vec<(String, &'a AdaptedModule)> {
    let modules = report.modules.iter();
    modules
        .map(|module| {
            let name = format!("{PREFIX}{}.base_layer.weight", module.module);
            (name, module)
        })
        .filter(|(name, _)| file.shape(name).is_some())
        .collect()
}

/// Refuses a copy that is not the model's own weight, which means another base model: PEFT would put it in place.
fn check_copy<M: Module>(
    file: &AdapterTensors,
    module: &M,
    name: &str,
    adapted: &AdaptedModule,
) -> Result<(), LoraError> {
    let [d_in, d_out] = adapted.shape;
    // Embeddings lie in the file as here, linear layers the other way round.
    let values = match adapted.kind {
        LayerKind::Embedding => file.values(name, &[d_in, d_out])?,
        LayerKind::Linear => transpose(&file.values(name, &[d_out, d_in])?, [d_out, d_in]),
    };
    if base_value(module, &adapted.parameter).is_some_and(|base| base == values) {
        return Ok(());
    }
    Err(file.malformed(format!(
        "`{name}` is not the weight of this base model; the adapter was trained on another, or \
         with the weight itself (save it from PEFT with `save_embedding_layers=False`)"
    )))
}

fn check_names(
    file: &AdapterTensors,
    report: &AttachReport,
    copies: &[(String, &AdaptedModule)],
    parts: Parts<'_>,
) -> Result<(), LoraError> {
    let saved = parts.saved(report).into_iter();
    let expected: Vec<String> = report
        .modules
        .iter()
        .flat_map(expected_tensors)
        .map(|tensor| tensor.name)
        .chain(saved.map(|saved| format!("{PREFIX}{}", saved.name)))
        .collect();
    let mut names = file.names();
    names.retain(|name| {
        !expected.contains(name)
            && !copies.iter().any(|(copy, _)| copy == name)
            && !parts.leaves(name)
            && !is_copy_of_saved(name, report)
    });
    let path = || file.path().into();
    if !names.is_empty() {
        return Err(LoraError::UnexpectedTensors {
            path: path(),
            names,
        });
    }
    let missing = |name: &String| file.shape(name).is_none();
    let names: Vec<String> = expected.into_iter().filter(missing).collect();
    if !names.is_empty() {
        return Err(LoraError::MissingTensors {
            path: path(),
            names,
        });
    }
    Ok(())
}

/// Returns true for the copies that PEFT writes with `bias="all"` of the biases of modules that are saved: under the
/// names of its wrapper, once as they were before.
fn is_copy_of_saved(name: &str, report: &AttachReport) -> bool {
    if report.config.bias != BiasTraining::All {
        return false;
    }
    let wrappers = [
        ".original_module.",
        ".modules_to_save.default.",
        ".modules_to_save.",
    ];
    let wrapped = wrappers.iter().find_map(|wrapper| {
        let (module, rest) = without_prefix(name).split_once(wrapper)?;
        Some(format!("{module}.{rest}"))
    });
    wrapped.is_some_and(|name| report.saved.iter().any(|saved| saved.name == name))
}
