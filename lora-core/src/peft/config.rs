//! `adapter_config.json`, read strictly.

use super::PeftOptions;
use crate::config::{BiasTraining, ExcludeModules, LoraConfig, LoraInit, LoraScaling};
use crate::error::LoraError;
use crate::files::read_bounded;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;

/// Name of the file with the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// No configuration is anywhere near this size.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Keys that change nothing about the arithmetic of an adapter that is loaded.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
];

/// Reads `adapter_config.json` of a PEFT directory.
///
/// # Errors
/// If it is not there, is no JSON object, is not of a LoRA adapter, or has a key that would change
/// the arithmetic and is not supported: the error names the key.
pub fn read_config(dir: &Path) -> Result<LoraConfig, LoraError> {
    Ok(read_config_and_options(dir)?.0)
}

/// [`read_config`], and what else the file says.
///
/// # Errors
/// As [`read_config`].
pub fn read_config_and_options(dir: &Path) -> Result<(LoraConfig, PeftOptions), LoraError> {
    let path = dir.join(CONFIG_FILE);
    let bytes = read_bounded(&path, CONFIG_LIMIT)?;
    parse(path, &bytes)
}

/// Reads the content of the file at `path`.
pub(crate) fn parse(
    path: std::path::PathBuf,
    bytes: &[u8],
) -> Result<(LoraConfig, PeftOptions), LoraError> {
    let object: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| LoraError::Malformed {
            path: path.clone(),
            message: format!("is not a JSON object: {error}"),
        })?;
    let mut keys = Keys { path, object };
    let options = PeftOptions {
        task_type: keys.take("task_type", "a name")?,
        base_model: keys.take("base_model_name_or_path", "a name or path")?,
        fan_in_fan_out: keys
            .take("fan_in_fan_out", "true or false")?
            .unwrap_or(false),
        companions: Vec::new(),
    };
    Ok((keys.into_config()?, options))
}

struct Keys {
    path: std::path::PathBuf,
    object: Map<String, Value>,
}

/// Null, false, zero-sized: PEFT's ways of saying that an option is off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

impl Keys {
    fn into_config(mut self) -> Result<LoraConfig, LoraError> {
        match self.take::<String>("peft_type", "\"LORA\"")?.as_deref() {
            Some("LORA") => {}
            Some(other) => {
                let value = Value::from(other);
                let message = match other {
                    "PREFIX_TUNING" => {
                        "only \"LORA\" is here: a prefix is of a whole model, which must take one"
                    }
                    _ => "only \"LORA\" is, and on GPT-2 \"PREFIX_TUNING\"",
                };
                return Err(self.unsupported("peft_type", &value, message));
            }
            None => return Err(self.malformed("has no `peft_type`: not written by PEFT")),
        }
        let mut config = LoraConfig {
            rank: self.take("r", "a whole number")?.unwrap_or(8),
            alpha: self.take("lora_alpha", "a number")?.unwrap_or(8.0),
            dropout: self.take("lora_dropout", "a number")?.unwrap_or(0.0),
            ..LoraConfig::default()
        };
        if self.take("use_rslora", "true or false")?.unwrap_or(false) {
            config.scaling = LoraScaling::RankStabilized;
        }
        config.targets = match self.take("target_modules", "a string or a list of names")? {
            Some(targets) => targets,
            None => {
                return Err(self.malformed(
                    "has no `target_modules`; write the modules that the adapter is on",
                ));
            }
        };
        config.exclude = self
            .take::<ExcludeModules>("exclude_modules", "a string or a list of names")?
            .filter(|exclude| !matches!(exclude, ExcludeModules::Names(names) if names.is_empty()));
        config.layers = self
            .take::<OneOrMany<usize>>("layers_to_transform", "an index or a list of them")?
            .map(OneOrMany::into_vec)
            .filter(|layers| !layers.is_empty());
        config.layers_pattern = self
            .take::<OneOrMany<String>>("layers_pattern", "a name or a list of them")?
            .map(OneOrMany::into_vec)
            .unwrap_or_default();
        if config.layers.is_none() {
            config.layers_pattern.clear(); // Without layers it has no effect.
        }
        config.rank_pattern = self.take_map("rank_pattern", "an object of whole numbers")?;
        config.alpha_pattern = self.take_map("alpha_pattern", "an object of numbers")?;
        config.modules_to_save = self
            .take("modules_to_save", "a list of names")?
            .unwrap_or_default();
        config.init = self.init()?;
        config.bias = self
            .take("bias", "\"none\", \"all\" or \"lora_only\"")?
            .unwrap_or(BiasTraining::None);
        config.dora = self.take("use_dora", "true or false")?.unwrap_or(false);
        config.lora_bias = self.take("lora_bias", "true or false")?.unwrap_or(false);
        self.refuse_the_rest()?;
        config.validate()?;
        Ok(config)
    }

    /// How the factors started says what the file holds: PiSSA and OLoRA take their start out of the base,
    /// and PEFT, where it does not convert the adapter when it saves it, does so again when it loads it.
    fn init(&mut self) -> Result<LoraInit, LoraError> {
        let value = match self.object.shift_remove("init_lora_weights") {
            None | Some(Value::Bool(true)) | Some(Value::Null) => {
                return Ok(LoraInit::KaimingUniform);
            }
            Some(Value::Bool(false)) => return Ok(LoraInit::Random),
            Some(value) => value,
        };
        let name = value.as_str().unwrap_or_default().to_lowercase();
        match name.as_str() {
            // These leave the base alone: what is in the file is all there is.
            "eva" | "mica" => return Ok(LoraInit::KaimingUniform),
            "gaussian" | "orthogonal" | "pissa" | "olora" => {
                if let Ok(init) = name.parse() {
                    return Ok(init);
                }
            }
            _ => {}
        }
        let why = match name.starts_with("pissa_niter_") {
            true => {
                "it takes an approximation out of the base that is not in the file and is random"
            }
            false => "it changes the base weights, so the adapter does not fit the original base",
        };
        let message =
            format!("{why}; save it from PEFT with `path_initial_model_for_weight_conversion`");
        Err(self.unsupported("init_lora_weights", &value, &message))
    }

    fn refuse_the_rest(&self) -> Result<(), LoraError> {
        let left = self.object.iter();
        let mut unknown =
            left.filter(|(key, value)| !WITHOUT_EFFECT.contains(&key.as_str()) && !is_off(value));
        match unknown.next() {
            None => Ok(()),
            Some((key, value)) => Err(self.unsupported(
                key,
                value,
                "it may change what the adapter computes; only null, false or empty is accepted",
            )),
        }
    }

    fn take<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, LoraError> {
        match self.object.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(parsed) => Ok(Some(parsed)),
                Err(_) => Err(self.malformed(&format!("`{key}` is {value}, expected {expected}"))),
            },
        }
    }

    /// An object as pairs, in the order of the file: the first pattern that matches counts.
    fn take_map<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Vec<(String, T)>, LoraError> {
        let Some(object) = self.take::<Map<String, Value>>(key, expected)? else {
            return Ok(Vec::new());
        };
        let pairs = object.into_iter().map(|(name, value)| {
            let parsed = serde_json::from_value(value.clone());
            let parsed = parsed.map_err(|_| {
                self.malformed(&format!("`{key}.{name}` is {value}, expected {expected}"))
            })?;
            Ok((name, parsed))
        });
        pairs.collect()
    }

    fn malformed(&self, message: &str) -> LoraError {
        LoraError::Malformed {
            path: self.path.clone(),
            message: message.into(),
        }
    }

    fn unsupported(&self, key: &str, value: &Value, message: &str) -> LoraError {
        LoraError::UnsupportedKey {
            path: self.path.clone(),
            key: key.into(),
            value: value.to_string(),
            message: message.into(),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            OneOrMany::One(item) => vec![item],
            OneOrMany::Many(items) => items,
        }
    }
}
