//! Tensors that an adapter's configuration calls for on a module, and checks that a file has these and no others.

use super::adapter::{StoredAdapter, StoredTensor};
use super::base_weights::BaseWeight;
use super::names::{PREFIX, TensorRole, tensor_name};
use crate::adapter::base_value;
use crate::attach::AttachReport;
use crate::config::BiasTraining;
use crate::error::LoraError;
use crate::layout::{AdaptedModule, LayerKind, SavedParameter, TokenModule, is_inside};
use burn::module::Module;
use std::collections::BTreeMap;
use std::path::Path;

/// Parts of a file that are read.
#[derive(Clone, Copy)]
pub(crate) enum Parts<'a> {
    /// All tensors.
    All,
    /// The factors, and some of the fully trained modules.
    Factors {
        /// Entries of `modules_to_save` whose tensors are left out.
        left: &'a [String],
        /// Entries whose tensors are read.
        and: &'a [String],
    },
}

impl Parts<'_> {
    /// Returns the fully trained parameters that are read.
    pub(super) fn saved<'a>(&self, report: &'a AttachReport) -> Vec<&'a SavedParameter> {
        let is_in = |modules: &[String], saved: &SavedParameter| {
            modules.iter().any(|module| is_inside(&saved.name, module))
        };
        let saved = report.saved.iter();
        match self {
            Self::All => saved.collect(),
            // Biases of the base belong to the adapter.
            Self::Factors { and, .. } => {
                let fresh = &report.config.modules_to_save;
                let is_read = |saved: &&SavedParameter| is_in(and, saved) || !is_in(fresh, saved);
                saved.filter(is_read).collect()
            }
        }
    }

    /// Returns true if a tensor of the file is left out on purpose.
    pub(super) fn leaves(&self, name: &str) -> bool {
        match self {
            Self::All => false,
            Self::Factors { left, .. } => left
                .iter()
                .any(|module| is_inside(without_prefix(name), module)),
        }
    }
}

pub(super) fn without_prefix(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Name and shape of a tensor in a file.
type Expected = (String, Vec<usize>);

/// Returns the tensors of a module's adapter in a file that PEFT did not convert: it holds what the factors became, not
/// the difference to their start.
fn expected_tensors(module: &AdaptedModule) -> Vec<Expected> {
    let ([d_in, d_out], rank) = (module.shape, module.trained_rank());
    let tensor = |role, shape: &[usize]| {
        let name = tensor_name(&module.module, role, module.kind);
        (name, shape.to_vec())
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

/// Returns the copy of a module's base weight that PEFT writes beside adapters on embeddings and output layers.
pub(super) fn base_copy(module: &AdaptedModule) -> Expected {
    let [d_in, d_out] = module.shape;
    let shape = match module.kind {
        LayerKind::Embedding => vec![d_in, d_out],
        LayerKind::Linear => vec![d_out, d_in],
    };
    (
        format!("{PREFIX}{}.base_layer.weight", module.module),
        shape,
    )
}

/// Refuses a copy that is not the model's own weight, which means another base model: PEFT would put it in place.
pub(super) fn check_copy<M: Module>(
    path: &Path,
    module: &M,
    copy: StoredTensor,
    adapted: &AdaptedModule,
) -> Result<(), LoraError> {
    // Embeddings lie in the file as here, linear layers the other way round.
    let copy = match adapted.kind {
        LayerKind::Embedding => copy,
        LayerKind::Linear => copy.transposed(),
    };
    if base_value(module, &adapted.parameter).is_some_and(|base| base == copy.values) {
        return Ok(());
    }
    Err(other_base_weight(path, &base_copy(adapted).0))
}

fn other_base_weight(path: &Path, tensor: &str) -> LoraError {
    let message = format!(
        "`{tensor}` is not the weight of this base model: the adapter was trained on another, or brings new embeddings, which \
         only a single adapter can do (or save it from PEFT with `save_embedding_layers=False`)"
    );
    LoraError::malformed(path, message)
}

/// Refuses tensors, given by name and shape, that are not exactly those that a report calls for. Returns the names of those
/// to read.
pub(super) fn check_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Vec<usize>>,
    report: &AttachReport,
    base_weights: &[BaseWeight],
    parts: Parts<'_>,
) -> Result<Vec<String>, LoraError> {
    let path = || path.into();
    let saved = parts.saved(report).into_iter();
    let saved = saved.map(|saved| (format!("{PREFIX}{}", saved.name), saved.file_shape()));
    let copies = report.modules.iter().map(base_copy);
    let copies = copies.filter(|(name, _)| tensors.contains_key(name));
    let tokens = report.tokens.iter().map(|tokens| {
        let name = format!("{PREFIX}{}", tokens.name());
        (name, tokens.rows_shape().to_vec())
    });
    let base_weights = base_weights.iter();
    let base_weights = base_weights.map(|weight| (weight.tensor.clone(), weight.shape.clone()));
    let expected = report.modules.iter().flat_map(expected_tensors);
    let expected = expected.chain(saved).chain(tokens);
    let expected: BTreeMap<String, Vec<usize>> =
        expected.chain(copies).chain(base_weights).collect();
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.retain(|name| {
        !expected.contains_key(name)
            && !parts.leaves(name)
            && !is_copy_of_saved(name, report)
            && copied_name(name, report).is_none()
    });
    if !names.is_empty() {
        return Err(LoraError::UnexpectedTensors {
            path: path(),
            names,
        });
    }
    let mut names: Vec<String> = expected.keys().cloned().collect();
    names.retain(|name| !tensors.contains_key(name));
    if !names.is_empty() {
        return Err(LoraError::MissingTensors {
            path: path(),
            names,
        });
    }
    for (name, shape) in &expected {
        if tensors[name] != *shape {
            return Err(LoraError::TensorShape {
                path: path(),
                name: name.clone(),
                expected: shape.clone(),
                found: tensors[name].clone(),
            });
        }
    }
    Ok(expected.into_keys().collect())
}

/// Refuses weights for the base that are not those of the base: the base must have got them before.
pub(super) fn check_copies<M: Module>(
    module: &M,
    stored: &StoredAdapter,
    report: &AttachReport,
    copies: &[BaseWeight],
    path: &Path,
) -> Result<(), LoraError> {
    for copy in copies {
        let tensor = stored.saved.get(without_prefix(&copy.tensor));
        let Some(tensor) = tensor else { continue };
        let parameters = &report.vocabulary;
        let own = parameters
            .iter()
            .find(|p| p.name == format!("{}.weight", copy.module));
        // An output layer without a weight of its own is tied to the embedding, and may be trained with it.
        let embedding = parameters.first();
        let Some(place) = own.or(embedding) else {
            continue;
        };
        let of_base = || {
            let base = base_value(module, &place.parameter)?;
            let base = StoredTensor::new(place.shape.clone(), base);
            Some(if place.transposed {
                base.transposed()
            } else {
                base
            })
        };
        let is_trained = || {
            let tied = own.is_none() && report.config.ensure_weight_tying;
            tied && stored.saved.get(&place.name) == Some(tensor)
        };
        if of_base().as_ref() != Some(tensor) && !is_trained() {
            return Err(other_base_weight(path, &copy.tensor));
        }
    }
    Ok(())
}

/// Returns the tensor of which another is a copy by its name: PEFT writes saved modules and trained rows of tied layers twice.
pub(super) fn copied_name(name: &str, report: &AttachReport) -> Option<String> {
    let plain = without_prefix(name);
    if plain.ends_with(TokenModule::SUFFIX) {
        let trained = report.tokens.first().map(TokenModule::name)?;
        let mut tokens = report.tokens.iter();
        return (!tokens.any(|tokens| tokens.name() == plain)).then_some(trained);
    }
    let wrappers = [".modules_to_save.default.", ".modules_to_save."];
    let (module, rest) = wrappers
        .iter()
        .find_map(|wrapper| plain.split_once(wrapper))?;
    let original = format!("{module}.{rest}");
    let mut saved = report.saved.iter().chain(&report.base_weights);
    saved
        .any(|saved| saved.name == original)
        .then_some(original)
}

/// Returns true for the copies that PEFT writes of modules that are saved, under the names of its wrapper: with `bias="all"`
/// those of the biases, once as they were before, and of an embedding with a new vocabulary.
fn is_copy_of_saved(name: &str, report: &AttachReport) -> bool {
    let mut embeddings = report.vocabulary.iter().chain(&report.base_weights);
    let mut is_embedding = |name: &str| embeddings.any(|p| p.name == name);
    let all_biases = report.config.bias == BiasTraining::All;
    let wrappers = [
        ".original_module.",
        ".modules_to_save.default.",
        ".modules_to_save.",
    ];
    let wrapped = wrappers.iter().find_map(|wrapper| {
        let (module, rest) = without_prefix(name).split_once(wrapper)?;
        Some(format!("{module}.{rest}"))
    });
    wrapped.is_some_and(|name| {
        let mut saved = report.saved.iter().chain(&report.base_weights);
        (all_biases || is_embedding(&name)) && saved.any(|saved| saved.name == name)
    })
}
