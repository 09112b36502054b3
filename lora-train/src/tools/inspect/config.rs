//! An adapter's configuration, as far as it can be understood. Strict reading says what is wrong with it.

use super::report::{Settings, Unusual};
use lora_core::files::read_bounded;
use lora_core::peft::{CONFIG_FILE, read_config};
use lora_core::{BiasTraining, ExcludeModules, LoraConfig, LoraInit, LoraScaling, TargetModules};
use lora_models::formats::AdapterFormat;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;

/// No configuration is anywhere near this size.
const LIMIT: u64 = 1 << 20;

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    /// All of the file.
    pub raw: Map<String, Value>,
    /// PEFT's kind of adapter.
    pub peft_type: Option<String>,
    /// What it says of low-rank factors.
    pub lora: Option<LoraConfig>,
    /// For the report.
    pub settings: Option<Settings>,
    /// mlx-lm's scale, which is taken as it is.
    pub scale: Option<f64>,
}

/// Reads the configuration of a directory.
pub(super) fn read(dir: &Path, format: AdapterFormat, unusual: &mut Vec<Unusual>) -> Found {
    let bytes = match read_bounded(&dir.join(CONFIG_FILE), LIMIT) {
        Ok(bytes) => bytes,
        Err(error) => {
            unusual.push(Unusual::new("config", error.to_string()));
            return Found::default();
        }
    };
    let raw: Map<String, Value> = match serde_json::from_slice(&bytes) {
        Ok(raw) => raw,
        Err(error) => {
            let message = format!("{CONFIG_FILE} is not a JSON object: {error}");
            unusual.push(Unusual::new("config", message));
            return Found::default();
        }
    };
    match format {
        AdapterFormat::Mlx => of_mlx(raw, unusual),
        _ => of_peft(dir, raw, unusual),
    }
}

fn of_peft(dir: &Path, raw: Map<String, Value>, unusual: &mut Vec<Unusual>) -> Found {
    let peft_type: Option<String> = value(&raw, "peft_type");
    if peft_type.as_deref().is_some_and(|kind| kind != "LORA") {
        return Found {
            raw,
            peft_type,
            ..Found::default()
        };
    }
    if let Err(error) = read_config(dir) {
        unusual.push(Unusual::new("config", error.to_string()));
    }
    let config = loose(&raw);
    let mut settings = settings(&config);
    settings.task_type = value(&raw, "task_type");
    settings.base_model = value(&raw, "base_model_name_or_path");
    Found {
        peft_type,
        settings: Some(settings),
        lora: Some(config),
        raw,
        scale: None,
    }
}

fn of_mlx(raw: Map<String, Value>, unusual: &mut Vec<Unusual>) -> Found {
    let parameters: Map<String, Value> = value(&raw, "lora_parameters").unwrap_or_default();
    let (rank, scale) = (value(&parameters, "rank"), value(&parameters, "scale"));
    if rank.is_none() || scale.is_none() {
        let message = format!("{CONFIG_FILE} has no `lora_parameters` with rank and scale");
        unusual.push(Unusual::new("config", message));
    }
    let dora = raw.get("fine_tune_type").and_then(Value::as_str) == Some("dora");
    let config = LoraConfig {
        rank: rank.unwrap_or(0),
        dropout: value(&parameters, "dropout").unwrap_or(0.0),
        dora,
        ..LoraConfig::default()
    };
    let settings = Settings {
        rank,
        alpha: None,
        scaling: "as_is",
        scale,
        targets: parameters.get("keys").cloned().unwrap_or_default(),
        init: Value::Null,
        base_model: value(&raw, "model"),
        ..settings(&config)
    };
    Found {
        raw,
        peft_type: None,
        lora: rank.map(|_| config),
        settings: Some(settings),
        scale,
    }
}

/// A configuration of what can be understood; what cannot has the default.
fn loose(raw: &Map<String, Value>) -> LoraConfig {
    let default = LoraConfig::default();
    let init = match raw.get("init_lora_weights") {
        Some(Value::Bool(false)) => LoraInit::Random,
        Some(Value::String(name)) => name.parse().unwrap_or(LoraInit::KaimingUniform),
        _ => LoraInit::KaimingUniform,
    };
    LoraConfig {
        rank: value(raw, "r").unwrap_or(default.rank),
        alpha: value(raw, "lora_alpha").unwrap_or(default.alpha),
        dropout: value(raw, "lora_dropout").unwrap_or(default.dropout),
        scaling: match value(raw, "use_rslora") {
            Some(true) => LoraScaling::RankStabilized,
            _ => LoraScaling::Standard,
        },
        init,
        dora: value(raw, "use_dora").unwrap_or(false),
        lora_bias: value(raw, "lora_bias").unwrap_or(false),
        bias: value(raw, "bias").unwrap_or(BiasTraining::None),
        targets: value(raw, "target_modules").unwrap_or(TargetModules::Names(Vec::new())),
        exclude: value::<ExcludeModules>(raw, "exclude_modules"),
        layers: match raw.get("layers_to_transform") {
            Some(Value::Number(layer)) => layer.as_u64().map(|layer| vec![layer as usize]),
            _ => value(raw, "layers_to_transform"),
        },
        modules_to_save: value(raw, "modules_to_save").unwrap_or_default(),
        rank_pattern: pairs(raw, "rank_pattern"),
        alpha_pattern: pairs(raw, "alpha_pattern"),
        ..default
    }
}

fn value<T: DeserializeOwned>(object: &Map<String, Value>, key: &str) -> Option<T> {
    serde_json::from_value(object.get(key)?.clone()).ok()
}

fn pairs<T: DeserializeOwned>(raw: &Map<String, Value>, key: &str) -> Vec<(String, T)> {
    let object: Map<String, Value> = value(raw, key).unwrap_or_default();
    let pairs = object.into_iter().filter_map(|(name, value)| {
        let value = serde_json::from_value(value).ok()?;
        Some((name, value))
    });
    pairs.collect()
}

fn settings(config: &LoraConfig) -> Settings {
    let patterns = |pairs: Vec<(&String, Value)>| -> Map<String, Value> {
        pairs.into_iter().map(|(k, v)| (k.clone(), v)).collect()
    };
    let ranks = config.rank_pattern.iter();
    let alphas = config.alpha_pattern.iter();
    Settings {
        rank: Some(config.rank),
        alpha: Some(config.alpha),
        scaling: match config.scaling {
            LoraScaling::Standard => "standard",
            LoraScaling::RankStabilized => "rank_stabilized",
        },
        scale: Some(config.scaling.factor(config.alpha, config.rank)),
        dropout: config.dropout,
        init: json!(config.init),
        dora: config.dora,
        lora_bias: config.lora_bias,
        bias: json!(config.bias),
        targets: json!(config.targets),
        exclude: json!(config.exclude),
        layers: config.layers.clone(),
        rank_pattern: patterns(ranks.map(|(k, v)| (k, json!(v))).collect()),
        alpha_pattern: patterns(alphas.map(|(k, v)| (k, json!(v))).collect()),
        modules_to_save: config.modules_to_save.clone(),
        task_type: None,
        base_model: None,
    }
}
