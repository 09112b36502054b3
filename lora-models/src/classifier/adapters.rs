//! LoRA adapters on encoders, and the labels that are stored beside them.

use super::head::HeadKind;
use super::model::{Classifier, Trunk};
use super::names::architecture;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::bounded::read_json;
use crate::config_keys::ConfigKeys;
use crate::encoder::Labels;
use crate::error::ModelError;
use crate::export::CONFIG_FILE;
use crate::prefix::PrefixModel;
use crate::targets::LoraTargets;
use burn::tensor::Device;
use lora_core::peft::{PREFIX, WEIGHTS_FILE};
use lora_core::{Architecture, AttachReport, TargetModules};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Maximum size in bytes of the file with the labels beside an adapter.
const CONFIG_LIMIT: u64 = 4 << 20;

impl LoraTargets for Classifier {
    fn lora_architecture(&self) -> Architecture {
        architecture(&self.config, self.kind)
    }

    fn task_type(&self) -> &'static str {
        self.kind.task_type()
    }

    fn default_targets(&self) -> TargetModules {
        TargetModules::names(self.config.family.default_targets().iter().copied())
    }

    fn modules_to_save(&self) -> Vec<String> {
        let mut modules = vec!["classifier".to_string()];
        modules.extend(self.fresh.iter().filter(|m| *m != "classifier").cloned());
        modules
    }

    fn check_adapter(&self, report: &AttachReport) -> Result<(), ModelError> {
        let brought = |module: &String| {
            let inside = |name: &str| {
                let mut components = name.split('.').rev().skip(1);
                components.any(|component| component == module)
            };
            report.saved.iter().any(|saved| inside(&saved.name))
        };
        let missing = self.fresh.iter().filter(|module| !brought(module));
        let modules: Vec<String> = missing.cloned().collect();
        if modules.is_empty() {
            Ok(())
        } else {
            Err(ModelError::StillRandom { modules })
        }
    }

    fn device(&self) -> Device {
        match &self.trunk {
            Trunk::Bert(model) => model.embeddings.word_embeddings.weight.lazy_device(),
            Trunk::Deberta(model) => model.embeddings.word_embeddings.weight.lazy_device(),
        }
    }

    /// Returns `config.json` with the labels, which PEFT's own files lack.
    fn adapter_companions(&self) -> Vec<(String, Vec<u8>)> {
        let object = Value::Object(self.file_config());
        vec![(CONFIG_FILE.into(), format!("{object:#}\n").into_bytes())]
    }
}

impl PrefixModel for Classifier {}

impl Classifier {
    /// Returns the object of `config.json`.
    pub(super) fn file_config(&self) -> Map<String, Value> {
        let mut object = self.config.to_json();
        let class = format!(
            "{}{}",
            self.config.family.class_prefix(),
            self.kind.class_suffix()
        );
        object.insert("architectures".into(), json!([class]));
        object
    }
}

/// Head that a PEFT directory's adapter was trained with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterLabels {
    /// Kind of the head by PEFT's task type; `None` for another task type.
    pub kind: Option<HeadKind>,
    /// Names of the outputs, from the `config.json` that this crate writes beside an adapter, or else numbered; `None` for
    /// an adapter without a head.
    pub labels: Option<Labels>,
}

/// Reads the head that a PEFT directory's adapter was trained with.
///
/// # Errors
/// If a file cannot be read or is malformed.
pub fn adapter_labels(dir: impl AsRef<Path>) -> Result<AdapterLabels, ModelError> {
    let dir = dir.as_ref();
    let path = dir.join(lora_core::peft::CONFIG_FILE);
    let object: Map<String, Value> = read_json(&path, CONFIG_LIMIT)?;
    let kind = match object.get("task_type").and_then(Value::as_str) {
        Some("SEQ_CLS") => Some(HeadKind::Sequence),
        Some("TOKEN_CLS") => Some(HeadKind::Token),
        _ => None,
    };
    let companion = dir.join(CONFIG_FILE);
    if companion.is_file() {
        let object: Map<String, Value> = read_json(&companion, CONFIG_LIMIT)?;
        let labels = Labels::read(&ConfigKeys::new(&companion, object))?;
        return Ok(AdapterLabels {
            kind,
            labels: Some(labels),
        });
    }
    let checkpoint = Checkpoint::open(dir.join(WEIGHTS_FILE))?;
    let names = ["classifier.weight", "classifier.out_proj.weight"];
    let mut shapes = names
        .iter()
        .filter_map(|name| checkpoint.shape(&format!("{PREFIX}{name}")));
    let outputs = shapes.next().and_then(|shape| shape.first().copied());
    Ok(AdapterLabels {
        kind,
        labels: outputs.map(|outputs| match outputs {
            1 => Labels::Score,
            outputs => Labels::numbered(outputs),
        }),
    })
}
