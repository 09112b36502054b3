//! Adapters in several directories: the main one, and those beside it in subdirectories.
//!
//! The main directory is that of LoRA and other changes of the model's own parameters, if there are any; else that of the adapter
//! layers, or of the virtual tokens. A trained head is in the main one, in the form of its library.

use super::{Added, AddedModel};
use crate::adapter_layers::{self, ADAPTER_LAYERS_DIR, SavedHead};
use crate::error::ModelError;
use crate::prefix::{self, HEAD_PREFIX, beside};
use lora_core::file::{self, AdapterDir, AdapterKind, AdapterTensors, CONFIG_FILE, PeftOptions};
use lora_core::files::{Directory, Overwrite, write_dir, write_file};
use lora_core::{AttachReport, BiasTraining};
use std::collections::BTreeMap;
use std::path::Path;

/// Main part of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Changes of the model's own parameters, in PEFT's directory for LoRA.
    Own,
    /// Adapter layers.
    Layers,
    /// Virtual tokens.
    Prefix,
}

impl Part {
    /// Returns the main part of a model with these modules.
    pub fn main<M: AddedModel>(model: &M, report: &AttachReport) -> Self {
        let head = model.modules_to_save();
        let config = &report.config;
        let mut saved = config.modules_to_save.iter();
        let is_head_alone = report.modules.is_empty()
            && report.tokens.is_empty()
            && report.base_weights.is_empty()
            && config.bias == BiasTraining::None
            && saved.all(|entry| head.contains(entry) || HEAD_MODULES.contains(&entry.as_str()));
        match model.added() {
            Added {
                adapters: Some(_), ..
            } if is_head_alone => Self::Layers,
            Added {
                prefix: Some(_), ..
            } if is_head_alone => Self::Prefix,
            _ => Self::Own,
        }
    }
}

/// Modules that are a part of a head in any family.
const HEAD_MODULES: [&str; 3] = ["classifier", "score", "pooler"];

/// Tensors of a head in an opened directory of virtual tokens or adapter layers.
pub(crate) struct HeadTensors<'a> {
    tensors: Tensors<'a>,
    /// Text before the names in transformers.
    prefix: &'static str,
}

enum Tensors<'a> {
    Borrowed(&'a AdapterTensors),
    Owned(Box<AdapterTensors>),
}

impl<'a> HeadTensors<'a> {
    /// Finds the head of a directory; `None` without one.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed.
    pub fn of(adapter: &'a AdapterDir) -> Result<Option<Self>, ModelError> {
        let found = match adapter.kind() {
            AdapterKind::Layers => adapter_layers::head(adapter.directory())?.map(|tensors| Self {
                tensors: Tensors::Owned(Box::new(tensors)),
                prefix: "",
            }),
            _ => Some(Self {
                tensors: Tensors::Borrowed(adapter.tensors()?),
                prefix: HEAD_PREFIX,
            }),
        };
        Ok(found.filter(|head| !head.names().is_empty()))
    }

    fn tensors(&self) -> &AdapterTensors {
        match &self.tensors {
            Tensors::Borrowed(tensors) => tensors,
            Tensors::Owned(tensors) => tensors,
        }
    }

    /// Returns the names of all tensors in transformers.
    pub fn names(&self) -> Vec<String> {
        let names = self.tensors().names().into_iter();
        names
            .filter_map(|name| Some(name.strip_prefix(self.prefix)?.to_string()))
            .collect()
    }

    /// Returns the shape of a tensor by its name in transformers.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors().shape(&format!("{}{name}", self.prefix))
    }

    /// Reads the values of a tensor by its name in transformers.
    ///
    /// # Errors
    /// If it is missing, misshapen or not finite.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, lora_core::LoraError> {
        let name = format!("{}{name}", self.prefix);
        self.tensors().values(&name, shape)
    }

    /// Returns the modules of the head that the tensors belong to.
    pub fn modules(&self) -> Vec<String> {
        let names = self.names();
        let mut modules: Vec<String> = names
            .iter()
            .filter_map(|name| Some(name.split('.').next()?.to_string()))
            .collect();
        modules.dedup();
        modules
    }

    /// Checks that all tensors are among those that were used.
    ///
    /// # Errors
    /// [`ModelError::TensorUnexpected`] with the others.
    pub fn check_used(&self, report: &AttachReport) -> Result<(), ModelError> {
        let is_used = |name: &String| report.saved.iter().any(|saved| saved.name == *name);
        let mut names = self.names();
        names.retain(|name| !is_used(name));
        if names.is_empty() {
            return Ok(());
        }
        Err(ModelError::TensorUnexpected {
            path: self.tensors().path().into(),
            names,
        })
    }
}

/// Returns true if the adapter of a model has a part in the model's own parameters, beside a head; virtual tokens or adapter layers
/// alone have none.
pub fn has_own_part<M: AddedModel>(model: &M, report: &AttachReport) -> bool {
    Part::main(model, report) == Part::Own
}

/// Loads the virtual tokens and adapter layers of an adapter, without anything else of it.
///
/// # Errors
/// As [`AddedModel::load_added`].
pub fn load_modules<M: AddedModel>(model: M, adapter: &AdapterDir) -> Result<M, ModelError> {
    let model = if adapter.kind().is_added() {
        model.load_added(adapter)?
    } else {
        model
    };
    load_beside(model, adapter.directory())
}

/// Loads the virtual tokens and adapter layers in the subdirectories of an adapter.
///
/// # Errors
/// As [`AddedModel::load_prefix`] and [`AddedModel::load_adapter_layers`].
pub(crate) fn load_beside<M: AddedModel>(model: M, dir: &Directory) -> Result<M, ModelError> {
    let mut model = model;
    if let Some(prefix) = beside(dir)? {
        model = model.load_prefix(&prefix)?;
    }
    let layers = dir.subdirectory(ADAPTER_LAYERS_DIR);
    if let Some(layers) = layers.filter(|dir| dir.file(CONFIG_FILE).exists()) {
        model = model.load_adapter_layers(&AdapterDir::open(layers)?)?;
    }
    Ok(model)
}

/// Writes the virtual tokens and adapter layers of a model, except the main part, into the subdirectories of `dir`.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn save_beside<M: AddedModel>(
    model: &M,
    main: Part,
    dir: &Path,
    base_model: Option<&str>,
) -> Result<(), ModelError> {
    let added = model.added();
    if let Some(prefix) = added.prefix.as_ref().filter(|_| main != Part::Prefix) {
        let dir = dir.join(prefix.kind().name());
        model.save_prefix(dir, base_model, Overwrite::Refuse)?;
    }
    if let Some(layers) = added.adapters.as_ref().filter(|_| main != Part::Layers) {
        let (names, class) = (model.layer_names(), model.model_class());
        let dir = dir.join(ADAPTER_LAYERS_DIR);
        adapter_layers::save(layers, None, &names, &class, &dir, Overwrite::Refuse)?;
    }
    Ok(())
}

/// Writes the virtual tokens and adapter layers of a model into the subdirectories of `dir`, such as the directory of a merged
/// model.
///
/// # Errors
/// [`LoraError::AlreadyExists`](lora_core::LoraError::AlreadyExists) for a subdirectory that exists, or an error of the file
/// system.
pub fn save_added<M: AddedModel>(
    model: &M,
    dir: &Path,
    base_model: Option<&str>,
) -> Result<(), ModelError> {
    save_beside(model, Part::Own, dir, base_model)
}

/// Writes the adapter of a model with all its parts.
///
/// # Errors
/// As [`file::save`].
pub(crate) fn save_parts<M: AddedModel>(
    model: &M,
    report: &AttachReport,
    dir: &Path,
    options: &PeftOptions,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    if model.added().is_empty() {
        return Ok(file::save(model, report, dir, options, overwrite)?);
    }
    let (main, base) = (Part::main(model, report), options.base_model.as_deref());
    let head = match main {
        Part::Own => BTreeMap::new(),
        _ => file::extract(model, report, &PeftOptions::default())?.saved,
    };
    write_dir(dir, overwrite, |dir| {
        let added = model.added();
        match main {
            Part::Own => file::save(model, report, dir, options, Overwrite::Replace)?,
            Part::Layers => {
                let class = model.model_class();
                let saved = SavedHead {
                    tensors: &head,
                    model_class: class.clone(),
                    labels: model.output_names(),
                };
                let saved = Some(&saved).filter(|_| !head.is_empty());
                if let Some(layers) = &added.adapters {
                    let names = model.layer_names();
                    adapter_layers::save(layers, saved, &names, &class, dir, Overwrite::Replace)?;
                }
            }
            Part::Prefix => {
                if let Some(prefix) = &added.prefix {
                    let task = model.task_type();
                    prefix::save(prefix, &head, dir, task, base, Overwrite::Replace)?;
                }
            }
        }
        if main != Part::Own {
            let mut files = options.companions.iter();
            files.try_for_each(|(name, bytes)| {
                write_file(&dir.join(name), Overwrite::Refuse, |file| {
                    file.write_all(bytes)
                })
            })?;
        }
        save_beside(model, main, dir, base)
    })
}
