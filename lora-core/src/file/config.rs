//! `adapter_config.json`: read strictly, or leniently to describe what does not load, and written as PEFT reads it.

use super::adapter::StoredAdapter;
use crate::config::{
    BiasTraining, ExcludeModules, LoraConfig, LoraInit, LoraScaling, TargetModules,
};
use crate::error::LoraError;
use crate::files::read_bounded;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
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
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
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
    /// Any other kind, by PEFT's name.
    Other(String),
}

impl AdapterKind {
    /// Returns PEFT's name of the kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Lora => "LORA",
            Self::Prefix => "PREFIX_TUNING",
            Self::Other(name) => name,
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
    pub fn read(dir: &Path) -> Result<Self, LoraError> {
        let path = dir.join(CONFIG_FILE);
        let bytes = read_bounded(&path, CONFIG_LIMIT)?;
        match serde_json::from_slice(&bytes) {
            Ok(keys) => Ok(Self { path, keys }),
            Err(error) => Err(LoraError::Malformed {
                path,
                message: format!("is not a JSON object: {error}"),
            }),
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, as they are in the file.
    pub fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// Returns the kind of the adapter; `None` if the file has no `peft_type`.
    pub fn kind(&self) -> Option<AdapterKind> {
        Some(match self.keys.get("peft_type")?.as_str()? {
            "LORA" => AdapterKind::Lora,
            "PREFIX_TUNING" => AdapterKind::Prefix,
            other => AdapterKind::Other(other.into()),
        })
    }

    /// Interprets the keys of a LoRA adapter.
    ///
    /// # Errors
    /// If the adapter is of another kind, or a key is malformed or would change the arithmetic and is not
    /// supported: the error names the key.
    pub fn lora(&self) -> Result<(LoraConfig, PeftOptions), LoraError> {
        self.reader(false).read()
    }

    /// Interprets the keys of a LoRA adapter as far as they can be: the others have PEFT's defaults. The error is the
    /// first that [`lora`](Self::lora) would return.
    pub fn lora_lenient(&self) -> (LoraConfig, PeftOptions, Option<LoraError>) {
        let mut reader = self.reader(true);
        match reader.read() {
            Ok((config, options)) => (config, options, reader.first),
            Err(error) => (LoraConfig::default(), PeftOptions::default(), Some(error)),
        }
    }

    /// Returns the error of an adapter that is of another kind than LoRA.
    pub(super) fn kind_error(&self, kind: &str) -> LoraError {
        let message = if kind == AdapterKind::Prefix.name() {
            "only \"LORA\" is supported here: a prefix goes on a whole model that takes one"
        } else {
            "only \"LORA\" is supported, and on GPT-2 \"PREFIX_TUNING\""
        };
        LoraError::UnsupportedKey {
            path: self.path.clone(),
            key: "peft_type".into(),
            value: Value::from(kind).to_string(),
            message: message.into(),
        }
    }

    fn reader(&self, lenient: bool) -> KeyReader<'_> {
        KeyReader {
            file: self,
            keys: self.keys.clone(),
            lenient,
            first: None,
        }
    }
}

/// Reads `adapter_config.json` of a PEFT directory.
///
/// # Errors
/// As [`ConfigFile::read`] and [`ConfigFile::lora`].
pub fn read_config(dir: &Path) -> Result<LoraConfig, LoraError> {
    Ok(ConfigFile::read(dir)?.lora()?.0)
}

/// Returns true for null, false and empty values: PEFT's ways of turning an option off.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Takes the keys one by one; what is left at the end is unknown.
struct KeyReader<'a> {
    file: &'a ConfigFile,
    keys: Map<String, Value>,
    /// True if a key with an error has its default, and reading goes on.
    lenient: bool,
    /// First error of a lenient reading.
    first: Option<LoraError>,
}

impl KeyReader<'_> {
    fn read(&mut self) -> Result<(LoraConfig, PeftOptions), LoraError> {
        let options = PeftOptions {
            task_type: self.take("task_type", "a name")?,
            base_model: self.take("base_model_name_or_path", "a name or path")?,
            fan_in_fan_out: self.flag("fan_in_fan_out")?,
            companions: Vec::new(),
        };
        self.check_kind()?;
        let mut config = LoraConfig {
            rank: self.take("r", "a whole number")?.unwrap_or(8),
            alpha: self.take("lora_alpha", "a number")?.unwrap_or(8.0),
            dropout: self.take("lora_dropout", "a number")?.unwrap_or(0.0),
            ..LoraConfig::default()
        };
        if self.flag("use_rslora")? {
            config.scaling = LoraScaling::RankStabilized;
        }
        config.targets = match self.take("target_modules", "a string or a list of names")? {
            Some(targets) => targets,
            None => {
                self.malformed(
                    "has no `target_modules`; write the modules that the adapter is on",
                )?;
                TargetModules::Names(Vec::new())
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
        config.dora = self.flag("use_dora")?;
        config.lora_bias = self.flag("lora_bias")?;
        self.refuse_the_rest()?;
        if let Err(error) = config.validate() {
            self.refuse(error)?;
        }
        Ok((config, options))
    }

    fn check_kind(&mut self) -> Result<(), LoraError> {
        match self.take::<String>("peft_type", "\"LORA\"")?.as_deref() {
            Some("LORA") => Ok(()),
            Some(other) => self.refuse(self.file.kind_error(other)),
            None => self.malformed("has no `peft_type`: PEFT did not write it"),
        }
    }

    /// Reads how the factors started, which decides what the file holds: PiSSA and OLoRA take their start out of the
    /// base, and PEFT, where it does not convert the adapter when it saves it, does so again when it loads it.
    fn init(&mut self) -> Result<LoraInit, LoraError> {
        let value = match self.keys.shift_remove("init_lora_weights") {
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
        let why = if name.starts_with("pissa_niter_") {
            "it takes an approximation out of the base that is not in the file and is random"
        } else {
            "it changes the base weights, so the adapter does not fit the original base"
        };
        let message =
            format!("{why}; save it from PEFT with `path_initial_model_for_weight_conversion`");
        self.unsupported("init_lora_weights", &value, &message)?;
        Ok(name.parse().unwrap_or_default())
    }

    fn refuse_the_rest(&mut self) -> Result<(), LoraError> {
        let mut left = std::mem::take(&mut self.keys).into_iter();
        let unknown =
            left.find(|(key, value)| !WITHOUT_EFFECT.contains(&key.as_str()) && !is_off(value));
        match unknown {
            None => Ok(()),
            Some((key, value)) => self.unsupported(
                &key,
                &value,
                "it may change what the adapter computes; only null, false or empty is accepted",
            ),
        }
    }

    fn flag(&mut self, key: &str) -> Result<bool, LoraError> {
        Ok(self.take(key, "true or false")?.unwrap_or(false))
    }

    fn take<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>, LoraError> {
        match self.keys.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => self.parsed(key, value, expected),
        }
    }

    /// Reads an object as pairs in the order of the file: the first pattern that matches counts.
    fn take_map<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<Vec<(String, T)>, LoraError> {
        let object: Map<String, Value> = self.take(key, expected)?.unwrap_or_default();
        let mut pairs = Vec::with_capacity(object.len());
        for (name, value) in object {
            if let Some(value) = self.parsed(&format!("{key}.{name}"), value, expected)? {
                pairs.push((name, value));
            }
        }
        Ok(pairs)
    }

    fn parsed<T: DeserializeOwned>(
        &mut self,
        key: &str,
        value: Value,
        expected: &str,
    ) -> Result<Option<T>, LoraError> {
        match T::deserialize(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => {
                self.malformed(&format!("`{key}` is {value}, expected {expected}"))?;
                Ok(None)
            }
        }
    }

    fn malformed(&mut self, message: &str) -> Result<(), LoraError> {
        self.refuse(LoraError::Malformed {
            path: self.file.path.clone(),
            message: message.into(),
        })
    }

    fn unsupported(&mut self, key: &str, value: &Value, message: &str) -> Result<(), LoraError> {
        self.refuse(LoraError::UnsupportedKey {
            path: self.file.path.clone(),
            key: key.into(),
            value: value.to_string(),
            message: message.into(),
        })
    }

    fn refuse(&mut self, error: LoraError) -> Result<(), LoraError> {
        if !self.lenient {
            return Err(error);
        }
        self.first.get_or_insert(error);
        Ok(())
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

impl StoredAdapter {
    /// Returns the configuration that a file of this adapter has: rank, alpha and their patterns are those of the
    /// modules, targets name no slices, and an init that the tensors hold as a difference is none.
    pub(crate) fn file_config(&self) -> LoraConfig {
        let mut config = self.config.clone();
        let in_file = |factors: &super::StoredFactors| {
            let rank = factors.rank();
            (rank, rounded(config.scaling.alpha(factors.scale, rank)))
        };
        // The most frequent pair; the first by name of several such.
        let mut counts: Vec<((usize, f64), usize)> = Vec::new();
        for (rank, alpha) in self.modules.values().map(in_file) {
            match counts
                .iter_mut()
                .find(|((r, a), _)| *r == rank && same(*a, alpha))
            {
                Some((_, count)) => *count += 1,
                None => counts.push(((rank, alpha), 1)),
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max();
        let first = counts.iter().find(|(_, count)| Some(*count) == most);
        let (rank, alpha) = first.map_or((config.rank, rounded(config.alpha)), |(both, _)| *both);
        let (mut rank_pattern, mut alpha_pattern) = (Vec::new(), Vec::new());
        for (module, factors) in &self.modules {
            let (module_rank, module_alpha) = in_file(factors);
            if module_rank != rank {
                rank_pattern.push((regex::escape(module), module_rank));
            }
            if !same(module_alpha, alpha) {
                alpha_pattern.push((regex::escape(module), module_alpha));
            }
        }
        (config.rank, config.alpha) = (rank, alpha);
        (config.rank_pattern, config.alpha_pattern) = (rank_pattern, alpha_pattern);
        if let TargetModules::Names(names) = &mut config.targets {
            for name in names {
                name.truncate(name.find('[').unwrap_or(name.len()));
            }
        }
        config.init = match config.init {
            // What was read from PEFT unconverted is written so again.
            LoraInit::Pissa | LoraInit::Olora if self.needs_changed_base() => config.init,
            // Otherwise it is in the file as the change that it became, which fits the original base.
            LoraInit::Pissa | LoraInit::FastPissa { .. } | LoraInit::Olora => {
                LoraInit::KaimingUniform
            }
            init => init,
        };
        if config.layers.is_none() {
            config.layers_pattern.clear();
        }
        config
    }

    /// Returns `adapter_config.json` as PEFT reads it without a warning.
    pub(super) fn config_json(&self) -> Value {
        let (config, options) = (self.file_config(), &self.options);
        let ranks = config.rank_pattern.iter();
        let ranks: Map<String, Value> = ranks.map(|(k, r)| (k.clone(), json!(r))).collect();
        let alphas = config.alpha_pattern.iter();
        let alphas: Map<String, Value> = alphas.map(|(k, a)| (k.clone(), number(*a))).collect();
        let or_null = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
        json!({
            "alpha_pattern": alphas,
            "auto_mapping": null,
            "base_model_name_or_path": options.base_model,
            "bias": config.bias,
            "exclude_modules": config.exclude,
            "fan_in_fan_out": options.fan_in_fan_out,
            "inference_mode": true,
            "init_lora_weights": match config.init {
                LoraInit::KaimingUniform => json!(true),
                LoraInit::Random => json!(false),
                init => json!(init),
            },
            "layers_pattern": or_null(&config.layers_pattern),
            "layers_to_transform": config.layers,
            "lora_alpha": number(config.alpha),
            "lora_bias": config.lora_bias,
            "lora_dropout": number(config.dropout),
            "modules_to_save": or_null(&config.modules_to_save),
            "peft_type": "LORA",
            "r": config.rank,
            "rank_pattern": ranks,
            "revision": null,
            "target_modules": config.targets,
            "task_type": options.task_type,
            "use_dora": config.dora,
            "use_rslora": config.scaling == LoraScaling::RankStabilized,
        })
    }
}

/// Returns true if two numbers are equal but for the rounding of alpha → scale → alpha.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

/// Returns the whole number that a value is but for rounding, else the value.
fn rounded(value: f64) -> f64 {
    let whole = value.round();
    if same(value, whole) { whole } else { value }
}

/// Writes whole numbers without a fraction: PEFT's `lora_alpha` is one.
fn number(value: f64) -> Value {
    let value = rounded(value);
    if value.fract() == 0.0 && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}
