//! Adapters of other programs, to and from what PEFT keeps: [`loralib`] of the paper's authors and Apple's
//! [`mlx`].
//!
//! Both are read into a [`StoredAdapter`] and written from one; nothing here needs
//! the model. What the other format has no place for is refused, not dropped.

pub mod loralib;
pub mod mlx;

use crate::ModelError;
use crate::checkpoint::TensorRef;
use lora_core::LayerKind;
use lora_core::stored::{StoredAdapter, StoredTensor};
use std::path::Path;

/// The format that an adapter is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterFormat {
    /// A directory of Python's PEFT.
    Peft,
    /// A state dict of loralib, pickled or as safetensors.
    Loralib,
    /// A directory of mlx-lm.
    Mlx,
}

impl AdapterFormat {
    /// The format of what lies at a path, by the files that are there and the names in them; `None` where it is
    /// none of them.
    pub fn of(path: &Path) -> Option<Self> {
        if path.is_file() {
            let checkpoint = crate::checkpoint::Checkpoint::open(path).ok()?;
            let is_loralib = checkpoint.names().any(|name| name.ends_with(".lora_A"));
            return is_loralib.then_some(Self::Loralib);
        }
        if path.join(lora_core::peft::WEIGHTS_FILE).is_file() {
            return Some(Self::Peft);
        }
        path.join(mlx::WEIGHTS_FILE).is_file().then_some(Self::Mlx)
    }
}

/// Replacements of the beginnings of names, `(from, to)`: the first that fits counts.
pub type Rename = Vec<(String, String)>;

fn renamed(name: &str, rename: &Rename) -> String {
    let fits = rename.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.as_str())?;
        Some(format!("{to}{rest}"))
    });
    fits.unwrap_or_else(|| name.to_string())
}

/// The other way round.
fn back(rename: &Rename) -> Rename {
    let turned = rename.iter().map(|(from, to)| (to.clone(), from.clone()));
    turned.collect()
}

/// What PEFT calls the module to save that a parameter which trained whole is in: behind the name of the
/// encoder, the first component.
fn module_to_save(parameter: &str) -> &str {
    const FAMILIES: [&str; 4] = ["transformer.", "bert.", "roberta.", "deberta."];
    let inside = FAMILIES
        .iter()
        .find_map(|family| parameter.strip_prefix(family));
    let name = inside.unwrap_or(parameter);
    name.split('.').next().unwrap_or(name)
}

/// Refuses what is more than factors of linear layers and scales; magnitudes too, where the format has none.
fn only_factors(
    adapter: &StoredAdapter,
    path: &Path,
    format: &str,
    magnitudes: bool,
) -> Result<(), ModelError> {
    let refuse = |what: String| {
        Err(ModelError::malformed(
            path,
            format!("{what}, which {format} has no place for"),
        ))
    };
    for (module, factors) in &adapter.modules {
        if factors.kind == LayerKind::Embedding {
            return refuse(format!("`{module}` is an embedding"));
        }
        if factors.magnitude.is_some() && !magnitudes {
            return refuse(format!("`{module}` has a magnitude (DoRA)"));
        }
        if factors.bias.is_some() {
            return refuse(format!("`{module}` has a bias on B"));
        }
    }
    if adapter.needs_changed_base() {
        return refuse(format!(
            "the adapter is one of init {}, on a base that it changed",
            adapter.config.init
        ));
    }
    Ok(())
}

/// Tensors as they are borrowed for writing.
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
