//! LoRA adapters on classifiers, and the labels that are stored beside them.

use super::HeadKind;
use super::model::{Classifier, Trunk};
use super::names::{architecture, head_name, projection_weights};
use crate::config_keys::ConfigKeys;
use crate::encoder::{EncoderConfig, Labels};
use crate::error::ModelError;
use crate::export::CONFIG_FILE;
use crate::prefix::PrefixModel;
use crate::pretrained::read_object;
use crate::targets::{LoraTargets, NewVocabulary, Vocabulary};
use crate::vocabulary::{resized, values_of};
use crate::weights::embedding_of;
use burn::tensor::Device;
use lora_core::file::{AdapterDir, PREFIX};
use lora_core::files::Directory;
use lora_core::{Architecture, AttachReport, TargetModules};
use serde_json::{Map, Value, json};

/// Token embedding, in messages.
const EMBEDDING: &str = "word_embeddings.weight";

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
        let head = head_name(self.config.family, self.kind);
        let mut modules = vec![head.to_string()];
        modules.extend(self.fresh.iter().filter(|m| *m != head).cloned());
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
        self.trunk.word_embeddings().weight.lazy_device()
    }

    fn vocabulary(&self) -> Option<Vocabulary> {
        Some(Vocabulary {
            rows: self.config.vocab_size,
            d: self.config.embedding_size,
            tied: false,
        })
    }

    fn vocabulary_values(&self, _input: bool) -> Result<Vec<f32>, ModelError> {
        values_of(EMBEDDING, self.trunk.word_embeddings())
    }

    fn with_vocabulary(mut self, new: NewVocabulary) -> Result<Self, ModelError> {
        let (rows, d, device) = (new.rows, self.config.embedding_size, self.device());
        let values = match new.input {
            Some(values) => values,
            None => resized(self.vocabulary_values(true)?, d, rows),
        };
        let path = match &self.trunk {
            Trunk::Bert(_) => "trunk.Bert.embeddings.word_embeddings",
            Trunk::Deberta(_) => "trunk.Deberta.embeddings.word_embeddings",
            Trunk::Gpt2(_) => "trunk.Gpt2.wte",
        };
        let architecture = architecture(&self.config, self.kind);
        let embedding = embedding_of(path, [rows, d], values, &architecture, &device)?;
        *self.trunk.word_embeddings_mut() = embedding;
        self.config.set_vocabulary(rows);
        Ok(self)
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
    /// True if a configuration describes the outputs: the adapter's own `config.json`, or that of a base with such a head. Else
    /// their number alone is known.
    pub are_described: bool,
}

impl AdapterLabels {
    /// Returns the head of an opened adapter.
    ///
    /// # Errors
    /// If the labels or the file of the tensors are malformed.
    pub fn from_dir(adapter: &AdapterDir) -> Result<Self, ModelError> {
        let kind = adapter.task_type().and_then(HeadKind::from_task_type);
        let companion = adapter.companion(CONFIG_FILE);
        let labels = match companion {
            Some(bytes) => {
                let path = &adapter.path().join(CONFIG_FILE);
                let malformed = |error: serde_json::Error| ModelError::Json {
                    path: path.into(),
                    message: error.to_string(),
                };
                let object = serde_json::from_slice(bytes).map_err(malformed)?;
                Some(Labels::read(&ConfigKeys::new(path, object))?)
            }
            None => {
                let tensors = adapter.tensors()?;
                let mut heads = projection_weights();
                let shape = heads.find_map(|name| tensors.shape(&format!("{PREFIX}{name}")));
                match shape.and_then(|shape| shape.first()) {
                    None => None,
                    Some(1) => Some(Labels::Score),
                    Some(&outputs) => Some(Labels::numbered(outputs)),
                }
            }
        };
        Ok(Self {
            kind,
            labels,
            are_described: companion.is_some(),
        })
    }

    /// Returns the head with what the adapter's files do not tell taken from its base, as in PEFT, where the configuration is
    /// the base's: the kind, and names for as many outputs as the adapter's head has.
    pub fn on_base(mut self, base: &EncoderConfig) -> Self {
        let kind = HeadKind::from_config(base);
        self.kind = self.kind.or(kind);
        let Some(own) = self.labels.as_ref().filter(|_| !self.are_described) else {
            return self;
        };
        if kind.is_some() && self.kind != kind {
            return self;
        }
        let outputs = own.outputs();
        match &base.labels {
            labels if labels.outputs() == outputs => self.labels = Some(labels.clone()),
            // Another number of classes for the same problem.
            Labels::MultiLabel(_) => {
                self.labels = Some(Labels::MultiLabel(Labels::numbered_names(outputs)));
            }
            _ => return self,
        }
        self.are_described = kind.is_some();
        self
    }
}

/// Reads the labels in the `config.json` beside an adapter, whatever the adapter's own configuration.
///
/// # Errors
/// If the file cannot be read or is malformed.
pub fn adapter_labels(dir: impl Into<Directory>) -> Result<Labels, ModelError> {
    let (path, object) = read_object(&dir.into())?;
    Labels::read(&ConfigKeys::new(&path, object))
}
