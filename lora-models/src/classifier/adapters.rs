//! LoRA adapters on encoders, and the labels beside them.

use super::head::has_dense;
use super::{Classifier, HeadKind, Trunk};
use crate::checkpoint::bounded::read_json;
use crate::checkpoint::{Checkpoint, ExportReport};
use crate::config_keys::ConfigKeys;
use crate::deberta::DebertaModel;
use crate::encoder::{EncoderConfig, EncoderFamily, Labels};
use crate::export::{CONFIG_FILE, write_model};
use crate::weights::Parameters;
use crate::{ExportOptions, LoraModel, ModelError};
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_core::peft::{PREFIX, WEIGHTS_FILE};
use lora_core::{Architecture, AttachReport, TargetModules};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The labels beside an adapter are read from a file of at most this many bytes.
const CONFIG_LIMIT: u64 = 4 << 20;

/// Names in Python, and what `all-linear` leaves out.
pub(super) fn architecture(config: &EncoderConfig, kind: HeadKind) -> Architecture {
    let mut names = vec![
        ("trunk", config.family.trunk()),
        ("Bert", ""),
        ("Deberta", ""),
        ("V1", ""),
        ("V2", ""),
        ("self_attn", "self"),
        ("layer_norm", "LayerNorm"),
    ];
    if config.family == EncoderFamily::Bert {
        names.push(("pooler", "bert.pooler"));
    }
    if !has_dense(config, kind) {
        names.push(("out_proj", ""));
    }
    Architecture {
        output_layers: ["classifier", "classifier.dense", "classifier.out_proj"]
            .map(String::from)
            .to_vec(),
        fused: DebertaModel::fused(config),
        names: names
            .into_iter()
            .map(|(here, there)| (here.to_string(), there.to_string()))
            .collect(),
        conv1d: Vec::new(),
    }
}

impl LoraModel for Classifier {
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
        match modules.is_empty() {
            true => Ok(()),
            false => Err(ModelError::StillRandom { modules }),
        }
    }

    fn device(&self) -> Device {
        match &self.trunk {
            Trunk::Bert(model) => model.embeddings.word_embeddings.weight.lazy_device(),
            Trunk::Deberta(model) => model.embeddings.word_embeddings.weight.lazy_device(),
        }
    }

    /// `config.json` with the labels, which PEFT has no place for.
    fn adapter_companions(&self) -> Vec<(String, Vec<u8>)> {
        let object = Value::Object(self.file_config());
        vec![(CONFIG_FILE.into(), format!("{object:#}\n").into_bytes())]
    }

    fn export(
        &self,
        dir: impl AsRef<Path>,
        options: &ExportOptions,
        overwrite: Overwrite,
    ) -> Result<ExportReport, ModelError> {
        let dir = dir.as_ref();
        let architecture = self.lora_architecture();
        let parameters = Parameters::collect(self, &architecture, dir)?;
        write_model(dir, &parameters, self.file_config(), options, overwrite)
    }
}

impl Classifier {
    fn file_config(&self) -> Map<String, Value> {
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

/// What a PEFT directory says about the head that it was trained with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterLabels {
    /// What the head is for, by PEFT's task type; `None` where it says something else.
    pub kind: Option<HeadKind>,
    /// What its outputs are called: by the `config.json` that this crate writes beside an adapter, else
    /// numbered; `None` where the adapter has no head.
    pub labels: Option<Labels>,
}

/// Reads it.
///
/// # Errors
/// Where a file cannot be read, or is not what it should be.
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
