//! Prefixes in PEFT directories, read strictly.

use super::{Prefix, PrefixConfig, PrefixKind, PrefixShape};
use crate::ModelError;
use crate::checkpoint::{ExportDType, TensorRef, write_safetensors};
use crate::weights::on_host;
use burn::tensor::Device;
use lora_core::LoraError;
use lora_core::file::{AdapterDir, CONFIG_FILE, ConfigFile, StoredTensor, WEIGHTS_FILE, is_off};
use lora_core::files::{Directory, Overwrite, write_dir, write_file};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Name of the subdirectory with the keys and values that go with a LoRA adapter; each other kind has
/// [its own](PrefixKind::name).
pub const PREFIX_DIR: &str = "prefix";

/// Name of the only tensor in a file.
const TENSOR: &str = "prompt_embeddings";
/// Keys that are read here or have no influence on the meaning of the tensor: PEFT applies a projection before it saves.
const KNOWN: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "encoder_hidden_size",
    "inference_mode",
    "init_weights",
    "modules_to_save",
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "peft_type",
    "peft_version",
    "prefix_projection",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "revision",
    "task_type",
    "token_dim",
    "tokenizer_kwargs",
    "tokenizer_name_or_path",
];
/// Names of a head's tensors in PEFT's files of virtual tokens begin with it.
pub(crate) const HEAD_PREFIX: &str = "base_model.";

/// Returns true for the name of a head's tensor, and false for those of LoRA, which go on with `model.`.
fn is_of_head(name: &str) -> bool {
    let inside = name.strip_prefix(HEAD_PREFIX);
    inside.is_some_and(|name| !name.starts_with("model."))
}

/// Opens the prefix that goes with the adapter in `dir`, of any kind; `None` without one.
///
/// An adapter of another kind in a subdirectory of that name does not count.
///
/// # Errors
/// If the subdirectory has no configuration, or the prefix cannot be opened.
pub fn beside(dir: impl Into<Directory>) -> Result<Option<AdapterDir>, ModelError> {
    let dir = dir.into();
    for kind in PrefixKind::ALL {
        let Some(dir) = dir.subdirectory(kind.name()) else {
            continue;
        };
        let file = ConfigFile::read(&dir)?;
        let found = file.kind();
        if found.as_ref().and_then(PrefixKind::of) == Some(kind) {
            return Ok(Some(AdapterDir::with_config(dir, file)?));
        }
    }
    Ok(None)
}

/// Creates the error for the prefix in `dir`, with the reason for which it is refused.
pub(crate) fn refused(dir: &Path, message: &str) -> ModelError {
    let kind = ConfigFile::read(dir).ok().and_then(|file| file.kind());
    let kind = kind.map_or_else(String::new, |kind| kind.name().into());
    unsupported(dir, "peft_type", &kind.into(), message).into()
}

/// Refuses fully trained modules beside virtual tokens, for a model without a head.
///
/// # Errors
/// [`LoraError::UnsupportedKey`] if `modules_to_save` names any.
pub(crate) fn refuse_saved_modules(adapter: &AdapterDir) -> Result<(), LoraError> {
    let key = "modules_to_save";
    match adapter.keys().get(key).filter(|value| !is_off(value)) {
        None => Ok(()),
        Some(value) => {
            let message = "beside virtual tokens only the head of a classifier is read";
            Err(unsupported(adapter.path(), key, value, message))
        }
    }
}

fn unsupported(dir: &Path, key: &str, value: &Value, message: &str) -> LoraError {
    LoraError::UnsupportedKey {
        path: dir.join(CONFIG_FILE),
        key: key.into(),
        value: value.to_string(),
        message: message.into(),
    }
}

/// Keys in the `adapter_config.json` of a prefix.
struct PrefixKeys<'a> {
    dir: &'a Path,
    object: &'a Map<String, Value>,
}

impl PrefixKeys<'_> {
    /// Checks that no key changes the arithmetic and that the prefix fits a model, and returns its number of virtual
    /// tokens.
    fn tokens(&self, kind: PrefixKind, shape: &PrefixShape) -> Result<usize, LoraError> {
        if let Some(other) = (self.number("num_transformer_submodules")?).filter(|&n| n != 1) {
            let message = "an encoder with a decoder has two, these models have one";
            let key = "num_transformer_submodules";
            return Err(unsupported(self.dir, key, &other.into(), message));
        }
        let mut keys = self.object.iter();
        if let Some((key, value)) =
            keys.find(|(key, value)| !KNOWN.contains(&key.as_str()) && !is_off(value))
        {
            let message =
                "it may change what the prefix computes; only null, false or empty is accepted";
            return Err(unsupported(self.dir, key, value, message));
        }
        for (key, expected) in [
            ("num_layers", shape.layers),
            ("num_attention_heads", kind.heads(shape)),
            ("token_dim", kind.token_width(shape)),
        ] {
            if let Some(found) = self.number(key)?.filter(|&found| found != expected) {
                return Err(self.malformed(format!(
                    "`{key}` is {found}, and the model has {expected}: the prefix belongs to another model"
                )));
            }
        }
        let missing = || self.malformed("has no `num_virtual_tokens`, which a prefix has".into());
        let tokens = self.number("num_virtual_tokens")?.ok_or_else(missing)?;
        match shape.check(tokens) {
            Err(LoraError::InvalidOption { expected, .. }) => Err(self.malformed(format!(
                "`num_virtual_tokens` is {tokens}, expected {expected}"
            ))),
            checked => checked.map(|()| tokens),
        }
    }

    /// Returns a whole number; `None` if the key is missing.
    fn number(&self, key: &str) -> Result<Option<usize>, LoraError> {
        let Some(value) = self.object.get(key).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|number| number.try_into().ok());
        let malformed = || self.malformed(format!("`{key}` is {value}, expected a whole number"));
        number.ok_or_else(malformed).map(Some)
    }

    fn malformed(&self, message: String) -> LoraError {
        LoraError::Malformed {
            path: self.dir.join(CONFIG_FILE),
            message,
        }
    }
}

/// Reads the prefix of an opened PEFT directory. Tensors of a head are left to the caller.
///
/// # Errors
/// If a file cannot be read or is malformed, a key is not supported, the prefix belongs to another model or leaves no room
/// for a text, or its tensor is missing, misshapen or not finite.
pub(crate) fn read(
    adapter: &AdapterDir,
    shape: &PrefixShape,
    device: &Device,
) -> Result<Prefix, ModelError> {
    let (dir, object) = (adapter.path(), adapter.keys());
    let Some(kind) = PrefixKind::of(adapter.kind()) else {
        let types = PrefixKind::ALL.map(|kind| format!("\"{}\"", kind.peft_type()));
        let message = format!("virtual tokens have {}", types.join(" or "));
        let kind = adapter.kind().name().into();
        return Err(unsupported(dir, "peft_type", &kind, &message).into());
    };
    let tokens = PrefixKeys { dir, object }.tokens(kind, shape)?;
    let tensors = adapter.tensors()?;
    let mut others = tensors.names();
    others.retain(|name| name != TENSOR && !is_of_head(name));
    if !others.is_empty() {
        let (path, others) = (tensors.path().into(), others.join("`, `"));
        let message = format!("holds `{others}`; a prefix has the tensor `{TENSOR}` alone");
        return Err(LoraError::Malformed { path, message }.into());
    }
    let values = tensors.values(TENSOR, &[tokens, kind.width(shape)])?;
    let config = PrefixConfig::new(tokens).with_kind(kind);
    config.init_with(values, shape, device)
}

/// Writes a prefix as a PEFT directory, atomically. `head` has the tensors of a trained head, by their names in transformers.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory is there and may not be replaced, or
/// [`LoraError::Io`].
pub(crate) fn save(
    prefix: &Prefix,
    head: &BTreeMap<String, StoredTensor>,
    dir: &Path,
    task_type: &str,
    base_model: Option<&str>,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    let (shape, kind) = (prefix.shape(), prefix.kind());
    let values = on_host(TENSOR, prefix.embeddings.val())?;
    let names: Vec<String> = head
        .keys()
        .map(|name| format!("{HEAD_PREFIX}{name}"))
        .collect();
    let mut tensors: Vec<TensorRef<'_>> = names
        .iter()
        .zip(head.values())
        .map(|(name, tensor)| TensorRef {
            name,
            shape: &tensor.shape,
            values: &tensor.values,
        })
        .collect();
    let own_shape = [prefix.tokens(), kind.width(shape)];
    tensors.push(TensorRef {
        name: TENSOR,
        shape: &own_shape,
        values: &values,
    });
    let modules: BTreeSet<&str> = head
        .keys()
        .filter_map(|name| name.split('.').next())
        .collect();
    let modules = (!modules.is_empty()).then_some(modules);
    let mut config = json!({
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "inference_mode": true,
        "modules_to_save": modules,
        "num_attention_heads": kind.heads(shape),
        "num_layers": shape.layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prefix.tokens(),
        "peft_type": kind.peft_type(),
        "revision": null,
        "task_type": task_type,
        "token_dim": kind.token_width(shape),
    });
    let own = match kind {
        PrefixKind::KeysAndValues => json!({
            "encoder_hidden_size": kind.token_width(shape),
            "init_weights": null,
            "prefix_projection": false,
        }),
        PrefixKind::Embeddings => json!({
            "prompt_tuning_init": "RANDOM",
            "prompt_tuning_init_text": null,
            "tokenizer_kwargs": null,
            "tokenizer_name_or_path": null,
        }),
        PrefixKind::Activations => json!({}),
    };
    if let (Value::Object(config), Value::Object(own)) = (&mut config, own) {
        config.extend(own);
    }
    let config = format!("{config:#}\n");
    write_dir(dir, overwrite, |dir| {
        let path = dir.join(CONFIG_FILE);
        write_file(&path, Overwrite::Refuse, |writer| {
            writer.write_all(config.as_bytes())
        })?;
        write_safetensors(dir.join(WEIGHTS_FILE), &tensors, ExportDType::F32)?;
        Ok(())
    })
}
