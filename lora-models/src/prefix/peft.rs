//! Prefixes in PEFT directories, read strictly.

use super::{Prefix, PrefixShape};
use crate::ModelError;
use crate::checkpoint::Checkpoint;
use crate::weights::on_host;
use burn::tensor::Device;
use lora_core::LoraError;
use lora_core::file::{AdapterDir, CONFIG_FILE, WEIGHTS_FILE};
use lora_core::files::{Overwrite, write_dir, write_file};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Name of the subdirectory with the prefix that goes with a LoRA adapter.
pub const PREFIX_DIR: &str = "prefix";

/// PEFT's name of the method.
const PEFT_TYPE: &str = "PREFIX_TUNING";
/// Name of the only tensor in a file.
pub(super) const TENSOR: &str = "prompt_embeddings";
/// Keys without influence on the meaning of the tensor: PEFT applies a projection before it saves.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "encoder_hidden_size",
    "inference_mode",
    "init_weights",
    "peft_type",
    "peft_version",
    "prefix_projection",
    "revision",
    "task_type",
];

/// Opens the prefix that goes with the LoRA adapter in `dir`; `None` without one.
///
/// An adapter of another kind in a subdirectory of that name does not count, nor does a malformed one.
///
/// # Errors
/// [`LoraError::Io`] if the subdirectory cannot be read.
pub fn beside(dir: impl AsRef<Path>) -> Result<Option<AdapterDir>, ModelError> {
    let path = dir.as_ref().join(PREFIX_DIR);
    if !path.is_dir() {
        return Ok(None);
    }
    match AdapterDir::open(path) {
        Ok(adapter) => Ok(adapter.is_prefix().then_some(adapter)),
        Err(error @ LoraError::Io { .. }) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Creates the error for a model without support for the prefix in `dir`.
pub(crate) fn refused(dir: &Path) -> ModelError {
    refused_for(dir, "only GPT-2 takes a prefix, the encoders do not")
}

/// Creates the error for the prefix in `dir` among named adapters.
pub(crate) fn refused_by_name(dir: &Path) -> ModelError {
    refused_for(
        dir,
        "named adapters are LoRA; a prefix goes on a model with its only adapter",
    )
}

fn refused_for(dir: &Path, message: &str) -> ModelError {
    let error = LoraError::UnsupportedKey {
        path: dir.join(CONFIG_FILE),
        key: "peft_type".into(),
        value: format!("\"{PEFT_TYPE}\""),
        message: message.into(),
    };
    error.into()
}

/// Keys in the `adapter_config.json` of a prefix.
pub(super) struct PrefixKeys<'a> {
    path: PathBuf,
    object: &'a Map<String, Value>,
}

impl<'a> PrefixKeys<'a> {
    /// Checks the keys of an adapter directory.
    ///
    /// # Errors
    /// If the adapter is of another kind, or has a key that would change the arithmetic.
    pub(super) fn new(adapter: &'a AdapterDir) -> Result<Self, LoraError> {
        let keys = Self {
            path: adapter.path().join(CONFIG_FILE),
            object: adapter.keys(),
        };
        match keys.object.get("peft_type") {
            Some(Value::String(kind)) if kind == PEFT_TYPE => {}
            Some(other) => {
                let message = format!("a prefix has \"{PEFT_TYPE}\"");
                return Err(keys.unsupported("peft_type", other, message));
            }
            None => return Err(keys.malformed("has no `peft_type`: not written by PEFT".into())),
        }
        match keys.number("num_transformer_submodules")? {
            None | Some(1) => {}
            Some(other) => {
                let message = "an encoder with a decoder has two, these models have one".into();
                return Err(keys.unsupported("num_transformer_submodules", &other.into(), message));
            }
        }
        keys.refuse_the_rest()?;
        Ok(keys)
    }

    /// Returns the number of virtual tokens.
    pub(super) fn tokens(&self) -> Result<usize, LoraError> {
        let missing = || self.malformed("has no `num_virtual_tokens`, which a prefix has".into());
        self.number("num_virtual_tokens")?.ok_or_else(missing)
    }

    /// Returns a whole number; `None` if the key is missing.
    pub(super) fn number(&self, key: &str) -> Result<Option<usize>, LoraError> {
        match self.object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().map(usize::try_from) {
                Some(Ok(number)) => Ok(Some(number)),
                _ => Err(self.malformed(format!("`{key}` is {value}, expected a whole number"))),
            },
        }
    }

    /// Checks that the prefix fits a model.
    fn check(&self, shape: &PrefixShape) -> Result<(), LoraError> {
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
        let tokens = self.tokens()?;
        shape.check(tokens).map_err(|error| match error {
            LoraError::InvalidOption { expected, .. } => self.malformed(format!(
                "`num_virtual_tokens` is {tokens}, expected {expected}"
            )),
            other => other,
        })
    }

    fn refuse_the_rest(&self) -> Result<(), LoraError> {
        const NUMBERS: [&str; 5] = [
            "num_attention_heads",
            "num_layers",
            "num_transformer_submodules",
            "num_virtual_tokens",
            "token_dim",
        ];
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        let known = |key: &str| WITHOUT_EFFECT.contains(&key) || NUMBERS.contains(&key);
        let mut left = self.object.iter();
        match left.find(|(key, value)| !known(key) && !is_off(value)) {
            None => Ok(()),
            Some((key, value)) => {
                let message = "it may change what the prefix computes; only null, false or empty \
                               is accepted";
                Err(self.unsupported(key, value, message.into()))
            }
        }
    }

    fn malformed(&self, message: String) -> LoraError {
        LoraError::Malformed {
            path: self.path.clone(),
            message,
        }
    }

    fn unsupported(&self, key: &str, value: &Value, message: String) -> LoraError {
        LoraError::UnsupportedKey {
            path: self.path.clone(),
            key: key.into(),
            value: value.to_string(),
            message,
        }
    }
}

/// Opens the file of a prefix, which must hold its tensor alone.
pub(super) fn open(dir: &Path) -> Result<Checkpoint, ModelError> {
    let path = dir.join(WEIGHTS_FILE);
    let checkpoint = Checkpoint::open(&path)?;
    let others: Vec<&str> = checkpoint.names().filter(|name| *name != TENSOR).collect();
    if !others.is_empty() {
        let others = others.join("`, `");
        let message = format!("holds `{others}`; a prefix has the tensor `{TENSOR}` alone");
        return Err(LoraError::Malformed { path, message }.into());
    }
    if !checkpoint.contains(TENSOR) {
        let names = vec![TENSOR.into()];
        return Err(LoraError::MissingTensors { path, names }.into());
    }
    Ok(checkpoint)
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
    let dir = adapter.path();
    let keys = PrefixKeys::new(adapter)?;
    keys.check(shape)?;
    let tokens = keys.tokens()?;
    let checkpoint = open(dir)?;
    let expected = vec![tokens, shape.width()];
    let found = checkpoint.shape(TENSOR).unwrap_or_default();
    if found != expected {
        return Err(LoraError::TensorShape {
            path: dir.join(WEIGHTS_FILE),
            name: TENSOR.into(),
            expected,
            found: found.to_vec(),
        }
        .into());
    }
    let values = checkpoint.read_f32(TENSOR)?.values;
    if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
        return Err(LoraError::Malformed {
            path: dir.join(WEIGHTS_FILE),
            message: format!("`{TENSOR}` holds {bad}: it was saved from a run that diverged"),
        }
        .into());
    }
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
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let malformed = |error: safetensors::SafeTensorError| LoraError::Malformed {
        path: dir.join(WEIGHTS_FILE),
        message: error.to_string(),
    };
    let extents = vec![prefix.tokens(), shape.width()];
    let view = TensorView::new(Dtype::F32, extents, &bytes).map_err(malformed)?;
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let weights = safetensors::serialize([(TENSOR, view)], Some(metadata)).map_err(malformed)?;
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
        let file = |name: &str, bytes: &[u8]| {
            write_file(&dir.join(name), Overwrite::Refuse, |w| w.write_all(bytes))
        };
        file(CONFIG_FILE, config.as_bytes())?;
        file(WEIGHTS_FILE, &weights)
    })?;
    Ok(())
}
