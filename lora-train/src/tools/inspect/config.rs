//! An adapter's configuration, as far as it can be interpreted.

use super::report::AdapterReport;
use lora_core::LoraConfig;
use lora_core::file::{AdapterKind, CONFIG_FILE, ConfigFile, PeftOptions};
use lora_models::formats::AdapterFormat;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Reads the configuration of a directory leniently, and adds it to the report. Returns that of low-rank factors, as far as it
/// is known.
pub(super) fn read(
    dir: &Path,
    format: AdapterFormat,
    report: &mut AdapterReport,
) -> Option<LoraConfig> {
    let file = match ConfigFile::read(dir) {
        Ok(file) => file,
        Err(error) => {
            report.unusual.add("config", error);
            return None;
        }
    };
    report.config = file.keys().clone();
    if format == AdapterFormat::Mlx {
        return mlx(report);
    }
    let kind = file.kind();
    report.peft_type = kind.as_ref().map(|kind| kind.name().to_string());
    if kind.is_some_and(|kind| kind != AdapterKind::Lora) {
        return None;
    }
    let (config, options, error) = file.lora_lenient();
    if let Some(error) = error {
        report.unusual.add("config", error);
    }
    report.settings = Some(settings(&config, &options));
    Some(config)
}

fn mlx(report: &mut AdapterReport) -> Option<LoraConfig> {
    let raw = &report.config;
    let parameters: Map<String, Value> = value(raw, "lora_parameters").unwrap_or_default();
    let rank: Option<usize> = value(&parameters, "rank");
    let scale: Option<f64> = value(&parameters, "scale");
    let config = LoraConfig {
        rank: rank.unwrap_or(0),
        dropout: value(&parameters, "dropout").unwrap_or(0.0),
        dora: raw.get("fine_tune_type").and_then(Value::as_str) == Some("dora"),
        ..LoraConfig::default()
    };
    let options = PeftOptions {
        base_model: value(raw, "model"),
        ..PeftOptions::default()
    };
    let mut settings = settings(&config, &options);
    let own = [
        ("rank", json!(rank)),
        ("alpha", Value::Null),
        ("scaling", json!("as_is")),
        ("scale", json!(scale)),
        ("init", Value::Null),
        ("targets", json!(parameters.get("keys"))),
    ];
    settings.extend(own.map(|(key, value)| (key.to_string(), value)));
    report.settings = Some(settings);
    if rank.is_none() || scale.is_none() {
        let message = format!("{CONFIG_FILE} has no `lora_parameters` with rank and scale");
        report.unusual.add("config", message);
    }
    rank.map(|_| config)
}

fn value<T: DeserializeOwned>(object: &Map<String, Value>, key: &str) -> Option<T> {
    T::deserialize(object.get(key)?).ok()
}

/// Returns the settings that reports show, in their order. `scaling` is `as_is` if the file gives the scale and no alpha, and
/// `scale` holds where no pattern says otherwise.
pub(crate) fn settings(config: &LoraConfig, options: &PeftOptions) -> Map<String, Value> {
    let settings = [
        ("rank", json!(config.rank)),
        ("alpha", json!(config.alpha)),
        ("scaling", json!(config.scaling)),
        (
            "scale",
            json!(config.scaling.factor(config.alpha, config.rank)),
        ),
        ("dropout", json!(config.dropout)),
        ("init", json!(config.init)),
        ("dora", json!(config.dora)),
        ("lora_bias", json!(config.lora_bias)),
        ("bias", json!(config.bias)),
        ("targets", json!(config.targets)),
        ("exclude", json!(config.exclude)),
        ("layers", json!(config.layers)),
        ("rank_pattern", object(&config.rank_pattern)),
        ("alpha_pattern", object(&config.alpha_pattern)),
        ("modules_to_save", json!(config.modules_to_save)),
        ("task_type", json!(options.task_type)),
        ("base_model", json!(options.base_model)),
    ];
    let settings = settings.into_iter();
    settings
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}

/// Returns the entries of a pattern as an object.
fn object<T: Serialize>(pattern: &[(String, T)]) -> Value {
    let entries = pattern.iter();
    entries
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect()
}
