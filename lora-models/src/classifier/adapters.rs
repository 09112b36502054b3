//! LoRA adapters on classifiers, and the labels that are stored beside them.

use super::HeadKind;
use super::model::{Classifier, Trunk};
use super::names::{architecture, head_name, projection_weights};
use crate::adapter_layers::{self, LayerNames};
use crate::added::{Added, AddedModel, HeadTensors};
use crate::config_keys::ConfigKeys;
use crate::encoder::{EncoderConfig, Labels};
use crate::error::ModelError;
use crate::export::CONFIG_FILE;
use crate::prefix::PrefixShape;
use crate::pretrained::FamilyConfig;
use crate::pretrained::read_object;
use crate::targets::{LoraTargets, NewVocabulary, Vocabulary};
use crate::vocabulary::{resized, values_of};
use crate::weights::embedding_of;
use burn::tensor::{Device, Int, Tensor};
use lora_core::file::{AdapterDir, AdapterKind, PREFIX};
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
            Trunk::Decoder(_) => "trunk.Decoder.embed_tokens",
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

impl AddedModel for Classifier {
    fn added(&self) -> &Added {
        match &self.trunk {
            Trunk::Bert(model) => &model.added,
            Trunk::Deberta(model) => &model.added,
            Trunk::Gpt2(model) => &model.added,
            Trunk::Decoder(model) => &model.added,
        }
    }

    fn added_mut(&mut self) -> &mut Added {
        match &mut self.trunk {
            Trunk::Bert(model) => &mut model.added,
            Trunk::Deberta(model) => &mut model.added,
            Trunk::Gpt2(model) => &mut model.added,
            Trunk::Decoder(model) => &mut model.added,
        }
    }

    fn added_shape(&self) -> PrefixShape {
        let config = &self.config;
        match &config.decoder {
            Some(decoder) => decoder.added_shape(),
            None => PrefixShape {
                layers: config.num_hidden_layers,
                heads: config.num_attention_heads,
                query_heads: config.num_attention_heads,
                d_keys: config.hidden_size,
                d_model: config.hidden_size,
                positions: config.max_length(),
            },
        }
    }

    fn layer_names(&self) -> LayerNames {
        let config = &self.config;
        match &config.decoder {
            Some(decoder) => decoder.layer_names(),
            None => LayerNames {
                model_type: config.family.model_type(),
                trunk: config.family.trunk(),
                layers: (0..config.num_hidden_layers)
                    .map(|layer| config.layer_name(layer))
                    .collect(),
                places: ["attention.output", "output"],
            },
        }
    }

    fn model_class(&self) -> String {
        let (prefix, suffix) = (self.config.family.class_prefix(), self.kind.class_suffix());
        format!("{prefix}{suffix}")
    }

    fn output_names(&self) -> Vec<String> {
        match self.config.labels.names() {
            [] => Labels::numbered_names(self.config.labels.outputs()),
            names => names.to_vec(),
        }
    }

    fn token_embeddings(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.trunk.word_embeddings().forward(ids)
    }
}

impl Classifier {
    /// Returns the object of `config.json`.
    pub(super) fn file_config(&self) -> Map<String, Value> {
        let mut object = self.config.to_json();
        object.insert("architectures".into(), json!([self.model_class()]));
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
            None if adapter.kind().is_added() => Self::of_added(adapter)?,
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

    /// Returns the outputs of the head in a directory of virtual tokens or adapter layers: by the names in `head_config.json`, or by
    /// the tensors.
    fn of_added(adapter: &AdapterDir) -> Result<Option<Labels>, ModelError> {
        let Some(head) = HeadTensors::of(adapter)? else {
            return Ok(None);
        };
        if *adapter.kind() == AdapterKind::Layers {
            let (path, mut object) = adapter_layers::head_config(adapter.directory())?;
            let names = object.get("label2id").and_then(Value::as_object);
            let by_index = names.map(|names| {
                let pairs = names.iter();
                pairs
                    .map(|(name, index)| (index.to_string(), Value::from(name.as_str())))
                    .collect::<Map<String, Value>>()
            });
            if let Some(by_index) = by_index {
                object.insert("id2label".into(), by_index.into());
                return Ok(Some(Labels::read(&ConfigKeys::new(&path, object))?));
            }
        }
        let mut heads = projection_weights();
        let outputs = heads.find_map(|name| head.shape(&name)?.first().copied());
        Ok(outputs.map(|outputs| match outputs {
            1 => Labels::Score,
            outputs => Labels::numbered(outputs),
        }))
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
