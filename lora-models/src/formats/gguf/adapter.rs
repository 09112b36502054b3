//! Adapters as GGUF files.
//!
//! | in the file | here |
//! | --- | --- |
//! | `{name}.weight.lora_a` `[r, d_in]` | A |
//! | `{name}.weight.lora_b` `[d_out, r]` | B, times the scale |
//! | `token_embd.weight.lora_a` `[vocab_size, r]` | A of the token embedding, transposed |
//!
//! There is no `adapter.lora.alpha`, and llama.cpp then applies `B A` as it stands: each module has its own rank and scale. Where
//! llama.cpp permutes the features of each head of queries and keys, so are the rows of their B.

use super::PROGRAM;
use super::element::ElementType;
use super::file::{self, Planned, Value};
use super::names::{Base, EMBEDDING, as_neighbours};
use crate::ModelError;
use crate::checkpoint::ExportDType;
use crate::config::ModelConfig;
use crate::formats::{Parts, only_factors, unsupported};
use lora_core::LayerKind;
use lora_core::file::{StoredAdapter, StoredFactors};
use lora_core::files::{Overwrite, write_dir, write_file};
use std::path::Path;

const F32: ElementType = ElementType::Float(ExportDType::F32);

/// Name of the adapter's file.
pub const ADAPTER_FILE: &str = "adapter.gguf";
/// Name of the file with which Ollama creates a model from a base and the adapter.
pub const MODELFILE: &str = "Modelfile";

/// Writes a directory with the adapter, [`ADAPTER_FILE`], and a [`MODELFILE`] for `from`, the name or path of the base.
///
/// # Errors
/// If llama.cpp has no architecture for the base, or no place for a part of the adapter: a magnitude (DoRA), a bias on B, fully trained
/// parameters (PEFT's `modules_to_save`), an output layer that is tied to the embedding, a module that the base lacks. If the
/// directory exists and must not be replaced.
pub fn write(
    adapter: &StoredAdapter,
    base: &ModelConfig,
    from: &str,
    dir: &Path,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    let refuse = |what: String| unsupported(dir, what, PROGRAM);
    let names = Base::of(base).ok_or_else(|| {
        let message = format!(
            "names of llama.cpp are known for decoders, `gpt2` and `bert`, and the base is a `{}`",
            base.model_type()
        );
        ModelError::malformed(dir, message)
    })?;
    let tensors = tensors(adapter, &names, dir)?;
    let metadata = [
        ("general.architecture", names.architecture.into()),
        ("general.type", "adapter".into()),
        ("adapter.type", "lora".into()),
        ("general.file_type", Value::U32(F32.file_type())),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_string(), value));
    let (planned, mut values): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    if from.contains(['\n', '\r']) {
        return Err(refuse(format!("the base is called {from:?}")));
    }
    write_dir(dir, overwrite, |dir| {
        file::write(&dir.join(ADAPTER_FILE), &metadata, &planned, &mut |index| {
            Ok(std::mem::take(&mut values[index]))
        })?;
        write_file(&dir.join(MODELFILE), Overwrite::Refuse, |out| {
            writeln!(out, "FROM {from}\nADAPTER ./{ADAPTER_FILE}")
        })?;
        Ok(())
    })
}

/// Returns the tensors of all modules with their values, sorted by name.
fn tensors(
    adapter: &StoredAdapter,
    names: &Base,
    path: &Path,
) -> Result<Vec<(Planned, Vec<f32>)>, ModelError> {
    let refuse = |what: String| Err(unsupported(path, what, PROGRAM));
    let embeddings = Parts {
        embeddings: true,
        ..Parts::default()
    };
    only_factors(adapter, path, PROGRAM, embeddings)?;
    if let Some(name) = adapter.saved.keys().next() {
        return refuse(format!(
            "`{name}` is fully trained (`modules_to_save`, or a bias); merge the adapter into the base instead"
        ));
    }
    let mut all = Vec::with_capacity(2 * adapter.modules.len());
    for (module, factors) in &adapter.modules {
        let Some(name) = names.name(module) else {
            return refuse(format!(
                "`{module}` has no tensor of a {}",
                names.architecture
            ));
        };
        if names.tied && Base::is_head(&name) {
            return refuse(format!(
                "`{module}` is adapted, and is the token embedding in this base"
            ));
        }
        let a = match factors.kind {
            LayerKind::Embedding => factors.a.transposed(),
            _ => factors.a.clone(),
        };
        if (factors.kind == LayerKind::Embedding) != (name == EMBEDDING) {
            return refuse(format!("`{module}` has factors of another kind of layer"));
        }
        let tensor = |end: &str, shape: &[usize], values: Vec<f32>| {
            let planned = Planned {
                name: format!("{name}.weight.lora_{end}"),
                shape: shape.to_vec(),
                dtype: F32,
            };
            (planned, values)
        };
        all.push(tensor("a", &a.shape, a.values));
        let heads = names.permuted_heads(&name);
        let b = scaled_rows(factors, heads).ok_or_else(|| {
            let (rows, heads) = (factors.shape()[0], heads.unwrap_or(1));
            let message =
                format!("`{module}` has {rows} features, which are not those of {heads} heads");
            ModelError::malformed(path, message)
        })?;
        all.push(tensor("b", &factors.b.shape, b));
    }
    all.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    Ok(all)
}

/// Returns B times the scale, with the rows of `heads` in llama.cpp's order; `None` if they cannot be divided so.
fn scaled_rows(factors: &StoredFactors, heads: Option<usize>) -> Option<Vec<f32>> {
    let scaled = factors.b.values.iter();
    let scaled: Vec<f32> = scaled
        .map(|&value| (f64::from(value) * factors.scale) as f32)
        .collect();
    match heads {
        None => Some(scaled),
        Some(heads) => as_neighbours(&scaled, factors.shape()[0], heads),
    }
}
