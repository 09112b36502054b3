//! An adapter's configuration, as far as it can be interpreted.

use super::report::Unusual;
use lora_core::LoraConfig;
use lora_core::file::{AdapterKind, CONFIG_FILE, ConfigFile, PeftOptions};
use lora_models::formats::AdapterFormat;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Configuration of an adapter that is described.
#[derive(Default)]
pub(super) struct Found {
    /// All keys of the file.
    pub raw: Map<String, Value>,
    /// PEFT's kind of adapter.
    pub peft_type: Option<String>,
    /// Configuration of low-rank factors.
    pub lora: Option<LoraConfig>,
    /// The same for the report.
    pub settings: Option<Map<String, Value>>,
    /// mlx-lm's scale, which is taken as it is.
    pub scale: Option<f64>,
}

/// Reads the configuration of a directory, leniently.
pub(super) fn read(dir: &Path, format: AdapterFormat, unusual: &mut Vec<Unusual>) -> Found {
    let mut note = |message: String| unusual.push(Unusual::new("config", message));
    let file = match ConfigFile::read(dir) {
        Ok(file) => file,
        Err(error) => {
            note(error.to_string());
            return Found::default();
        }
    };
    let raw = file.keys().clone();
    if format == AdapterFormat::Mlx {
        let found = mlx(raw);
        if found.lora.is_none() || found.scale.is_none() {
            let message = "has no `lora_parameters` with rank and scale";
            note(format!("{CONFIG_FILE} {message}"));
        }
        return found;
    }
    let kind = file.kind();
    let peft_type = kind.as_ref().map(|kind| kind.name().to_string());
    if kind.is_some_and(|kind| kind != AdapterKind::Lora) {
        return Found {
            raw,
            peft_type,
            ..Found::default()
        };
    }
    let (config, options, error) = file.lora_lenient();
    if let Some(error) = error {
        note(error.to_string());
    }
    Found {
        raw,
        peft_type,
        settings: Some(settings(&config, &options)),
        lora: Some(config),
        scale: None,
    }
}

fn mlx(raw: Map<String, Value>) -> Found {
    let parameters: Map<String, Value> = value(&raw, "lora_parameters").unwrap_or_default();
    let rank: Option<usize> = value(&parameters, "rank");
    let scale: Option<f64> = value(&parameters, "scale");
    let config = LoraConfig {
        rank: rank.unwrap_or(0),
        dropout: value(&parameters, "dropout").unwrap_or(0.0),
        dora: raw.get("fine_tune_type").and_then(Value::as_str) == Some("dora"),
        ..LoraConfig::default()
    };
    let options = PeftOptions {
        base_model: value(&raw, "model"),
        ..PeftOptions::default()
    };
    let mut settings = settings(&config, &options);
    for (key, value) in [
        ("rank", json!(rank)),
        ("alpha", Value::Null),
        ("scaling", json!("as_is")),
        ("scale", json!(scale)),
        ("init", Value::Null),
        ("targets", json!(parameters.get("keys"))),
    ] {
        settings.insert(key.into(), value);
    }
    Found {
        raw,
        peft_type: None,
        lora: rank.map(|_| config),
        settings: Some(settings),
        scale,
    }
}

fn value<T: DeserializeOwned>(object: &Map<String, Value>, key: &str) -> Option<T> {
    T::deserialize(object.get(key)?).ok()
}

/// Returns the settings that reports show, in their order. `scaling` is `as_is` if the file gives the scale and no alpha, and
/// `scale` holds where no pattern says otherwise.
pub(crate) fn settings(config: &LoraConfig, options: &PeftOptions) -> Map<String, Value> {
    let ranks = config.rank_pattern.iter();
    let ranks: Map<String, Value> = ranks.map(|(k, v)| (k.clone(), json!(v))).collect();
    let alphas = config.alpha_pattern.iter();
    let alphas: Map<String, Value> = alphas.map(|(k, v)| (k.clone(), json!(v))).collect();
    let settings = json!({
        "rank": config.rank,
        "alpha": config.alpha,
        "scaling": config.scaling,
        "scale": config.scaling.factor(config.alpha, config.rank),
        "dropout": config.dropout,
        "init": config.init,
        "dora": config.dora,
        "lora_bias": config.lora_bias,
        "bias": config.bias,
        "targets": config.targets,
        "exclude": config.exclude,
        "layers": config.layers,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "modules_to_save": config.modules_to_save,
        "task_type": options.task_type,
        "base_model": options.base_model,
    });
    match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    }
}
