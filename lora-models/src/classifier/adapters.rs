//! LoRA adapters on encoders, and the labels that are stored beside them.

use super::head::HeadKind;
use super::model::{Classifier, Trunk};
use super::names::architecture;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::bounded::read_bounded;
use crate::config_keys::ConfigKeys;
use crate::encoder::Labels;
use crate::error::ModelError;
use crate::export::CONFIG_FILE;
use crate::prefix::PrefixModel;
use crate::targets::LoraTargets;
use burn::tensor::Device;
use lora_core::file::{AdapterDir, ConfigFile, PREFIX, WEIGHTS_FILE};
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

impl AdapterLabels {
    /// Returns the head of an opened adapter.
    ///
    /// # Errors
    /// If the labels or the file of the tensors are malformed.
    pub fn from_dir(adapter: &AdapterDir) -> Result<Self, ModelError> {
        let kind = head_kind(adapter.task_type());
        if let Some(bytes) = adapter.companion(CONFIG_FILE) {
            return Self::from_config(kind, &adapter.path().join(CONFIG_FILE), bytes);
        }
        let tensors = adapter.tensors()?;
        Ok(Self::from_weights(kind, |name| tensors.shape(name)))
    }

    fn from_config(kind: Option<HeadKind>, path: &Path, bytes: &[u8]) -> Result<Self, ModelError> {
        let object = serde_json::from_slice(bytes).map_err(|error| ModelError::Json {
            path: path.into(),
            message: error.to_string(),
        })?;
        let labels = Some(Labels::read(&ConfigKeys::new(path, object))?);
        Ok(Self { kind, labels })
    }

    /// Numbers the outputs of the head, by the shape of its weight.
    fn from_weights<'a>(
        kind: Option<HeadKind>,
        shape: impl Fn(&str) -> Option<&'a [usize]>,
    ) -> Self {
        let names = ["classifier.weight", "classifier.out_proj.weight"];
        let mut shapes = names
            .iter()
            .filter_map(|name| shape(&format!("{PREFIX}{name}")));
        let outputs = shapes.next().and_then(|shape| shape.first().copied());
        let labels = outputs.map(|outputs| match outputs {
            1 => Labels::Score,
            outputs => Labels::numbered(outputs),
        });
        Self { kind, labels }
    }
}

/// Returns the kind of head of a PEFT task type.
fn head_kind(task_type: Option<&str>) -> Option<HeadKind> {
    match task_type {
        Some("SEQ_CLS") => Some(HeadKind::Sequence),
        Some("TOKEN_CLS") => Some(HeadKind::Token),
        _ => None,
    }
}

/// Reads the head of the adapter in a PEFT directory, whatever the other keys of its configuration.
///
/// # Errors
/// If a file cannot be read or is malformed.
pub fn adapter_labels(dir: impl AsRef<Path>) -> Result<AdapterLabels, ModelError> {
    let dir = dir.as_ref();
    let file = ConfigFile::read(dir)?;
    let kind = head_kind(file.keys().get("task_type").and_then(Value::as_str));
    let companion = dir.join(CONFIG_FILE);
    if companion.is_file() {
        let bytes = read_bounded(&companion, CONFIG_LIMIT)?;
        return AdapterLabels::from_config(kind, &companion, &bytes);
    }
    let checkpoint = Checkpoint::open(dir.join(WEIGHTS_FILE))?;
    Ok(AdapterLabels::from_weights(kind, |name| {
        checkpoint.shape(name)
    }))
}
