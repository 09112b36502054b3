//! Conversion of adapters between PEFT and other programs: [`loralib`] of the paper's authors, Apple's [`mlx`], and [`gguf`] for
//! llama.cpp.
//!
//! They are converted through a [`StoredAdapter`], without a model. A part that the other format lacks is an error; nothing
//! is dropped.

pub mod gguf;
pub mod loralib;
pub mod mlx;

use crate::ModelError;
use crate::checkpoint::{Checkpoint, TensorRef};
use lora_core::LayerKind;
use lora_core::file::{PICKLED_FILE, StoredAdapter, StoredTensor, WEIGHTS_FILE};
use std::path::Path;

/// Format of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterFormat {
    /// Directory of Python's PEFT.
    Peft,
    /// State dict of loralib, pickled or as safetensors.
    Loralib,
    /// Directory of mlx-lm.
    Mlx,
}

impl AdapterFormat {
    /// Finds the format of the files at a path by their names and the names of their tensors; `None` if there is no
    /// adapter.
    pub fn detect(path: &Path) -> Option<Self> {
        if path.is_file() {
            let checkpoint = Checkpoint::open(path).ok()?;
            let is_loralib = checkpoint.names().any(|name| name.ends_with(".lora_A"));
            return is_loralib.then_some(Self::Loralib);
        }
        let peft = [WEIGHTS_FILE, PICKLED_FILE];
        if peft.iter().any(|name| path.join(name).is_file()) {
            return Some(Self::Peft);
        }
        path.join(mlx::WEIGHTS_FILE).is_file().then_some(Self::Mlx)
    }
}

/// Replacements for prefixes of names, `(from, to)`; the first that matches counts.
pub type Rename = Vec<(String, String)>;

fn renamed(name: &str, rename: &Rename) -> String {
    let fits = rename.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.as_str())?;
        Some(format!("{to}{rest}"))
    });
    fits.unwrap_or_else(|| name.to_string())
}

/// Returns the reverse replacements.
fn back(rename: &Rename) -> Rename {
    let turned = rename.iter().map(|(from, to)| (to.clone(), from.clone()));
    turned.collect()
}

/// Beginnings of names in the models of each family.
const FAMILIES: [&str; 4] = ["transformer.", "bert.", "roberta.", "deberta."];

/// Returns the module of PEFT's `modules_to_save` that holds a fully trained parameter: the first component after the
/// name of the encoder.
fn module_to_save(parameter: &str) -> &str {
    let mut families = FAMILIES.iter();
    let inside = families.find_map(|family| parameter.strip_prefix(family));
    let name = inside.unwrap_or(parameter);
    name.split('.').next().unwrap_or(name)
}

/// Parts that a format has beside factors of linear layers and their scales.
#[derive(Clone, Copy, Default)]
struct Parts {
    embeddings: bool,
    magnitudes: bool,
}

/// Refuses an adapter with more than factors of linear layers, scales and `parts`.
fn only_factors(
    adapter: &StoredAdapter,
    path: &Path,
    format: &str,
    parts: Parts,
) -> Result<(), ModelError> {
    let refuse = |what: String| Err(unsupported(path, what, format));
    for (module, factors) in &adapter.modules {
        if factors.kind == LayerKind::Embedding && !parts.embeddings {
            return refuse(format!("`{module}` is an embedding"));
        }
        if factors.magnitude.is_some() && !parts.magnitudes {
            return refuse(format!("`{module}` has a magnitude (DoRA)"));
        }
        if factors.bias.is_some() {
            return refuse(format!("`{module}` has a bias on B"));
        }
    }
    if adapter.needs_changed_base() {
        let init = &adapter.config.init;
        return refuse(format!(
            "the adapter has init {init}, which needs a base that it changed"
        ));
    }
    Ok(())
}

/// Builds the error for a part of an adapter that a format lacks.
fn unsupported(path: &Path, what: String, format: &str) -> ModelError {
    ModelError::malformed(path, format!("{what}, which {format} does not support"))
}

/// Reads a tensor of a file.
fn stored(file: &Checkpoint, name: &str) -> Result<StoredTensor, ModelError> {
    let tensor = file
        .read_finite(name)
        .map_err(|error| error.at(file.path()))?;
    Ok(StoredTensor::new(tensor.shape, tensor.values))
}

/// Checks that a tensor exists.
fn require(file: &Checkpoint, name: &str) -> Result<(), ModelError> {
    let exists = file.contains(name).then_some(());
    exists.ok_or_else(|| ModelError::missing(name).at(file.path()))
}

/// Borrows tensors for writing.
fn refs(tensors: &[(String, StoredTensor)]) -> Vec<TensorRef<'_>> {
    let refs = tensors.iter().map(|(name, tensor)| TensorRef {
        name,
        shape: &tensor.shape,
        values: &tensor.values,
    });
    refs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_to_save_is_the_one_around_the_parameter() {
        assert_eq!(module_to_save("classifier.dense.weight"), "classifier");
        assert_eq!(module_to_save("bert.pooler.dense.bias"), "pooler");
        assert_eq!(module_to_save("score.weight"), "score");
    }

    #[test]
    fn names_are_renamed_by_their_beginning_and_back() {
        let rename = vec![("model.".to_string(), "transformer.".to_string())];
        assert_eq!(renamed("model.h.0", &rename), "transformer.h.0");
        assert_eq!(renamed("my.model.h", &rename), "my.model.h");
        assert_eq!(renamed("transformer.h.0", &back(&rename)), "model.h.0");
    }
}
