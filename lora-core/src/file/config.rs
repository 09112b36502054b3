//! `adapter_config.json`: read strictly, or leniently to describe what does not load, and written as PEFT reads it.

use crate::config::{
    ExcludeModules, LoraConfig, LoraInit, LoraScaling, TargetModules, TrainableTokens,
};
use crate::error::LoraError;
use crate::files::Directory;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file with the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Most bytes of a configuration; none is anywhere near this size.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Keys without effect on the arithmetic of a loaded adapter.
const WITHOUT_EFFECT: &[&str] = &[
    "auto_mapping",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "megatron_core",
    "monteclora_config",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "velora_config",
];

/// Options that PEFT keeps beside the adapter itself.
#[derive(Clone, Debug, Default)]
pub struct PeftOptions {
    /// PEFT's task, such as `CAUSAL_LM`; it decides which model class wraps the adapter.
    pub task_type: Option<String>,
    /// Name or path of the base model.
    pub base_model: Option<String>,
    /// True if the adapted layers are `Conv1D` in Python, as GPT-2's are.
    pub fan_in_fan_out: bool,
    /// Further files of the directory, by name, for what PEFT has no place for.
    pub companions: Vec<(String, Vec<u8>)>,
}

/// Kind of an adapter, PEFT's `peft_type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterKind {
    /// `LORA`: low-rank factors.
    Lora,
    /// `PREFIX_TUNING`: keys and values before each layer's own.
    Prefix,
    /// `PROMPT_TUNING`: embeddings before those of every text.
    Prompt,
    /// `PREFIX_LAYER`: activations of virtual tokens in each layer, a kind of this project.
    PrefixLayer,
    /// Adapter layers, as the library `adapters` writes them, without a `peft_type`.
    Layers,
    /// Any other kind, by PEFT's name.
    Other(String),
}

impl AdapterKind {
    /// Returns PEFT's name of the kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Lora => "LORA",
            Self::Prefix => "PREFIX_TUNING",
            Self::Prompt => "PROMPT_TUNING",
            Self::PrefixLayer => "PREFIX_LAYER",
            Self::Layers => "adapter layers",
            Self::Other(name) => name,
        }
    }
}

impl AdapterKind {
    /// Returns true for a kind that is beside the weights: virtual tokens or adapter layers.
    pub fn is_added(&self) -> bool {
        match self {
            Self::Prefix | Self::Prompt | Self::PrefixLayer | Self::Layers => true,
            Self::Lora | Self::Other(_) => false,
        }
    }
}

/// `adapter_config.json` as JSON, before its keys are interpreted.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the file of an adapter directory.
    ///
    /// # Errors
    /// [`LoraError::Io`] if it cannot be read, or [`LoraError::Malformed`] if it is no JSON object.
    pub fn read(dir: impl Into<Directory>) -> Result<Self, LoraError> {
        let file = dir.into().file(CONFIG_FILE);
        let bytes = file.read(CONFIG_LIMIT)?;
        let path = file.path().to_path_buf();
        let keys = serde_json::from_slice(&bytes).map_err(|error| {
            LoraError::malformed(&path, format!("is not a JSON object: {error}"))
        })?;
        Ok(Self { path, keys })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, as they are in the file.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// Returns the kind of the adapter; `None` if the file has no `peft_type`. The library `adapters` has its options in an
    /// object of their own, which PEFT's files lack.
    pub fn kind(&self) -> Option<AdapterKind> {
        let Some(peft_type) = self.keys.get("peft_type") else {
            let options = self.keys.get("config")?.as_object()?;
            let architecture = options.get("architecture").and_then(Value::as_str);
            return Some(match architecture {
                None => AdapterKind::Layers,
                Some(other) => AdapterKind::Other(format!("{other} of the library adapters")),
            });
        };
        Some(match peft_type.as_str()? {
            "LORA" => AdapterKind::Lora,
            "PREFIX_TUNING" => AdapterKind::Prefix,
            "PROMPT_TUNING" => AdapterKind::Prompt,
            "PREFIX_LAYER" => AdapterKind::PrefixLayer,
            other => AdapterKind::Other(other.into()),
        })
    }

    /// Interprets the keys of a LoRA adapter.
    ///
    /// # Errors
    /// If the adapter is of another kind, or a key is malformed or would change the arithmetic and is not
    /// supported: the error names the key.
    pub fn lora(&self) -> Result<(LoraConfig, PeftOptions), LoraError> {
        match self.lora_lenient() {
            (config, options, None) => Ok((config, options)),
            (_, _, Some(error)) => Err(error),
        }
    }

    /// Interprets the keys of a LoRA adapter as far as they can be: the others have PEFT's defaults. The error is the
    /// first that was found, which [`lora`](Self::lora) returns.
    pub fn lora_lenient(&self) -> (LoraConfig, PeftOptions, Option<LoraError>) {
        let mut reader = KeyReader {
            path: &self.path,
            keys: self.keys.clone(),
            first: None,
        };
        let (config, options) = reader.read();
        (config, options, reader.first)
    }
}

/// Returns the error of an adapter whose configuration, at `path`, is of another kind than LoRA.
pub(super) fn kind_error(path: &Path, kind: &str) -> LoraError {
    let is_added = [
        AdapterKind::Prefix,
        AdapterKind::Prompt,
        AdapterKind::PrefixLayer,
        AdapterKind::Layers,
    ]
    .iter()
    .any(|added| added.name() == kind);
    let message = if is_added {
        "only \"LORA\" is supported here: virtual tokens and adapter layers are loaded with a model"
    } else {
        "only \"LORA\" is supported, and with a model \"PREFIX_TUNING\", \"PROMPT_TUNING\" and adapter layers"
    };
    unsupported(path, "peft_type", &Value::from(kind), message)
}

fn unsupported(path: &Path, key: &str, value: &Value, message: &str) -> LoraError {
    LoraError::UnsupportedKey {
        path: path.into(),
        key: key.into(),
        value: value.to_string(),
        message: message.into(),
    }
}

/// Reads `adapter_config.json` of a PEFT directory.
///
/// # Errors
/// As [`ConfigFile::read`] and [`ConfigFile::lora`].
pub fn read_config(dir: impl Into<Directory>) -> Result<LoraConfig, LoraError> {
    Ok(ConfigFile::read(dir)?.lora()?.0)
}

/// Returns true for null, false and empty values: PEFT's ways of turning an option off.
pub fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Takes the keys one by one; what is left at the end is unknown. A key with an error has its default.
struct KeyReader<'a> {
    path: &'a Path,
    keys: Map<String, Value>,
    /// First error.
    first: Option<LoraError>,
}

impl KeyReader<'_> {
    fn read(&mut self) -> (LoraConfig, PeftOptions) {
        let options = PeftOptions {
            task_type: self.take("task_type", "a name"),
            base_model: self.take("base_model_name_or_path", "a name or path"),
            fan_in_fan_out: self.flag("fan_in_fan_out"),
            companions: Vec::new(),
        };
        match self.take::<String>("peft_type", "\"LORA\"").as_deref() {
            Some("LORA") => {}
            Some(other) => self.refuse(kind_error(self.path, other)),
            None => self.malformed(
                "has no `peft_type`: PEFT did not write it; an adapter of mlx-lm is converted with `lora convert`",
            ),
        }
        let mut config = LoraConfig {
            rank: self.take("r", "a whole number").unwrap_or(8),
            alpha: self.take("lora_alpha", "a number").unwrap_or(8.0),
            dropout: self.take("lora_dropout", "a number").unwrap_or(0.0),
            ..LoraConfig::default()
        };
        if self.flag("use_rslora") {
            config.scaling = LoraScaling::RankStabilized;
        }
        let targets = self.take("target_modules", "a string or a list of names");
        if targets.is_none() {
            self.malformed("has no `target_modules`; write the modules that the adapter is on");
        }
        config.targets = targets.unwrap_or(TargetModules::Names(Vec::new()));
        config.exclude = self
            .take::<ExcludeModules>("exclude_modules", "a string or a list of names")
            .filter(|exclude| !matches!(exclude, ExcludeModules::Names(names) if names.is_empty()));
        let layers = self.list("layers_to_transform", "an index or a list of them");
        config.layers_pattern = self.list("layers_pattern", "a name or a list of them");
        if layers.is_empty() {
            config.layers_pattern.clear(); // Without layers it has no effect.
        } else {
            config.layers = Some(layers);
        }
        config.rank_pattern = self.map("rank_pattern", "an object of whole numbers");
        config.alpha_pattern = self.map("alpha_pattern", "an object of numbers");
        let to_save = self.take("modules_to_save", "a list of names");
        config.modules_to_save = to_save.unwrap_or_default();
        config.ensure_weight_tying = self.flag("ensure_weight_tying");
        config.token_indices = self.token_indices();
        config.init = self.init();
        let bias = self.take("bias", "\"none\", \"all\" or \"lora_only\"");
        config.bias = bias.unwrap_or_default();
        config.dora = self.flag("use_dora");
        config.lora_bias = self.flag("lora_bias");
        self.refuse_the_rest();
        if let Err(error) = config.validate() {
            self.refuse(error);
        }
        (config, options)
    }

    /// Reads the tokens that are trained: ids of the input embedding, or ids by module.
    fn token_indices(&mut self) -> Vec<TrainableTokens> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Indices {
            OfInput(Vec<usize>),
            ByModule(BTreeMap<String, Vec<usize>>),
        }
        let expected = "token ids, or an object of them by module";
        match self.take("trainable_token_indices", expected) {
            None => Vec::new(),
            Some(Indices::OfInput(ids)) if ids.is_empty() => Vec::new(),
            Some(Indices::OfInput(ids)) => vec![TrainableTokens::of_input(ids)],
            Some(Indices::ByModule(modules)) => modules
                .into_iter()
                .map(|(module, ids)| TrainableTokens {
                    module: Some(module),
                    ids,
                })
                .collect(),
        }
    }

    /// Reads how the factors started, which decides what the file holds: PiSSA and OLoRA take their start out of the
    /// base, and PEFT, where it does not convert the adapter when it saves it, does so again when it loads it.
    fn init(&mut self) -> LoraInit {
        let value = match self.keys.shift_remove("init_lora_weights") {
            None | Some(Value::Bool(true) | Value::Null) => return LoraInit::KaimingUniform,
            Some(Value::Bool(false)) => return LoraInit::Random,
            Some(value) => value,
        };
        let name = value.as_str().unwrap_or_default().to_lowercase();
        let init = name.parse().unwrap_or_default();
        match name.as_str() {
            // These leave the base alone: what is in the file is all there is.
            "eva" | "mica" => return LoraInit::KaimingUniform,
            "gaussian" | "orthogonal" | "pissa" | "olora" => return init,
            _ => {}
        }
        let why = if name.starts_with("pissa_niter_") {
            "it takes an approximation out of the base that is not in the file and is random"
        } else {
            "it changes the base weights, so the adapter does not fit the original base"
        };
        let message =
            format!("{why}; save it from PEFT with `path_initial_model_for_weight_conversion`");
        self.refuse(unsupported(
            self.path,
            "init_lora_weights",
            &value,
            &message,
        ));
        init
    }

    fn refuse_the_rest(&mut self) {
        let mut left = std::mem::take(&mut self.keys).into_iter();
        let unknown =
            left.find(|(key, value)| !WITHOUT_EFFECT.contains(&key.as_str()) && !is_off(value));
        if let Some((key, value)) = unknown {
            let message =
                "it may change what the adapter computes; only null, false or empty is accepted";
            self.refuse(unsupported(self.path, &key, &value, message));
        }
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key, "true or false").unwrap_or(false)
    }

    fn take<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Option<T> {
        match self.keys.shift_remove(key)? {
            Value::Null => None,
            value => self.parsed(key, value, expected),
        }
    }

    /// Reads a list, or a single item in the place of one.
    fn list<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Vec<T> {
        match self.take::<OneOrMany<T>>(key, expected) {
            None => Vec::new(),
            Some(OneOrMany::One(item)) => vec![item],
            Some(OneOrMany::Many(items)) => items,
        }
    }

    /// Reads an object as pairs in the order of the file: the first pattern that matches counts.
    fn map<T: DeserializeOwned>(&mut self, key: &str, expected: &str) -> Vec<(String, T)> {
        let object: Map<String, Value> = self.take(key, expected).unwrap_or_default();
        let pairs = object.into_iter().filter_map(|(name, value)| {
            let value = self.parsed(&format!("{key}.{name}"), value, expected)?;
            Some((name, value))
        });
        pairs.collect()
    }

    fn parsed<T: DeserializeOwned>(
        &mut self,
        key: &str,
        value: Value,
        expected: &str,
    ) -> Option<T> {
        let parsed = T::deserialize(&value).ok();
        if parsed.is_none() {
            self.malformed(&format!("`{key}` is {value}, expected {expected}"));
        }
        parsed
    }

    fn malformed(&mut self, message: &str) {
        self.refuse(LoraError::malformed(self.path, message));
    }

    fn refuse(&mut self, error: LoraError) {
        self.first.get_or_insert(error);
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}
