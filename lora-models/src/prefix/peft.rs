//! Prefixes in PEFT directories, read strictly.

use super::{Prefix, PrefixShape};
use crate::ModelError;
use crate::checkpoint::{ExportDType, TensorRef, write_safetensors};
use crate::weights::on_host;
use burn::tensor::Device;
use lora_core::LoraError;
use lora_core::file::{AdapterDir, CONFIG_FILE, ConfigFile, WEIGHTS_FILE};
use lora_core::files::{Directory, Overwrite, write_dir, write_file};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Name of the subdirectory with the prefix that goes with a LoRA adapter.
pub const PREFIX_DIR: &str = "prefix";

/// PEFT's name of the method.
const PEFT_TYPE: &str = "PREFIX_TUNING";
/// Name of the only tensor in a file.
const TENSOR: &str = "prompt_embeddings";
/// Keys that are read here or have no influence on the meaning of the tensor: PEFT applies a projection before it saves.
const KNOWN: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "encoder_hidden_size",
    "inference_mode",
    "init_weights",
    "num_attention_heads",
    "num_layers",
    "num_transformer_submodules",
    "num_virtual_tokens",
    "peft_type",
    "peft_version",
    "prefix_projection",
    "revision",
    "task_type",
    "token_dim",
];

/// Opens the prefix that goes with the LoRA adapter in `dir`; `None` without one.
///
/// An adapter of another kind in a subdirectory of that name does not count.
///
/// # Errors
/// If the subdirectory has no configuration, or the prefix cannot be opened.
pub fn beside(dir: impl Into<Directory>) -> Result<Option<AdapterDir>, ModelError> {
    let Some(dir) = dir.into().subdirectory(PREFIX_DIR) else {
        return Ok(None);
    };
    let file = ConfigFile::read(&dir)?;
    let is_prefix = file.kind().is_some_and(|kind| kind.name() == PEFT_TYPE);
    let adapter = is_prefix.then(|| AdapterDir::with_config(dir, file));
    Ok(adapter.transpose()?)
}

/// Creates the error for the prefix in `dir`, with the reason for which it is refused.
pub(crate) fn refused(dir: &Path, message: &str) -> ModelError {
    unsupported(dir, "peft_type", &PEFT_TYPE.into(), message).into()
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
    fn tokens(&self, shape: &PrefixShape) -> Result<usize, LoraError> {
        if let Some(other) = (self.number("num_transformer_submodules")?).filter(|&n| n != 1) {
            let message = "an encoder with a decoder has two, these models have one";
            let key = "num_transformer_submodules";
            return Err(unsupported(self.dir, key, &other.into(), message));
        }
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
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
            ("num_attention_heads", shape.heads),
            ("token_dim", shape.d_model),
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

/// Reads the prefix of an opened PEFT directory.
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
    if !adapter.is_prefix() {
        let message = format!("a prefix has \"{PEFT_TYPE}\"");
        let kind = adapter.kind().name().into();
        return Err(unsupported(dir, "peft_type", &kind, &message).into());
    }
    let tokens = PrefixKeys { dir, object }.tokens(shape)?;
    let tensors = adapter.tensors()?;
    let mut others = tensors.names();
    others.retain(|name| name != TENSOR);
    if !others.is_empty() {
        let (path, others) = (tensors.path().into(), others.join("`, `"));
        let message = format!("holds `{others}`; a prefix has the tensor `{TENSOR}` alone");
        return Err(LoraError::Malformed { path, message }.into());
    }
    let values = tensors.values(TENSOR, &[tokens, shape.width()])?;
    Ok(Prefix::new(values, tokens, *shape, device))
}

/// Writes a prefix as a PEFT directory, atomically.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory is there and may not be replaced, or
/// [`LoraError::Io`].
pub(crate) fn save(
    prefix: &Prefix,
    dir: &Path,
    task_type: &str,
    base_model: Option<&str>,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    let shape = prefix.shape();
    let values = on_host(TENSOR, prefix.embeddings.val())?;
    let tensor = TensorRef {
        name: TENSOR,
        shape: &[prefix.tokens(), shape.width()],
        values: &values,
    };
    let config = json!({
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "encoder_hidden_size": shape.d_model,
        "inference_mode": true,
        "init_weights": null,
        "modules_to_save": null,
        "num_attention_heads": shape.heads,
        "num_layers": shape.layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prefix.tokens(),
        "peft_type": PEFT_TYPE,
        "prefix_projection": false,
        "revision": null,
        "task_type": task_type,
        "token_dim": shape.d_model,
    });
    let config = format!("{config:#}\n");
    write_dir(dir, overwrite, |dir| {
        let path = dir.join(CONFIG_FILE);
        write_file(&path, Overwrite::Refuse, |writer| {
            writer.write_all(config.as_bytes())
        })?;
        write_safetensors(dir.join(WEIGHTS_FILE), &[tensor], ExportDType::F32)?;
        Ok(())
    })
}
