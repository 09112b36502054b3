//! Model directory and adapters of a command, each opened once.

use super::adapters::AdapterArg;
use super::foreign::{self, Converted};
use super::session::check_base;
use crate::TrainError;
use crate::progress::{Bar, Screen};
use crate::task::TaskName;
use lora_core::file::{AdapterDir, AdapterKind};
use lora_core::{AttachReport, BaseDType, BaseFloats, HalfFloat, Quantization, QuantizeConfig};
use lora_models::classifier::{AdapterLabels, HeadKind};
use lora_models::encoder::{EncoderConfig, Labels};
use lora_models::hub::{self, HubOptions};
use lora_models::{ModelConfig, ModelDir};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Model directory and adapters of a command.
pub(crate) struct Sources {
    /// Model directory.
    pub model: ModelDir,
    adapters: Vec<AdapterSource>,
    /// Directories of adapters that were converted.
    _converted: Vec<TempDir>,
}

/// Adapter of a command.
pub(crate) struct AdapterSource {
    /// Name, by which records choose it; `None` for the only adapter.
    pub name: Option<String>,
    /// Directory.
    pub dir: AdapterDir,
    /// File of another program that the directory was converted from.
    pub converted: Option<AdapterArg>,
    /// Head that the adapter was trained with; `None` for an adapter of a language model.
    labels: Option<AdapterLabels>,
}

impl Sources {
    /// Opens a model, given by its directory or its name on the Hub, and the selected adapters.
    ///
    /// # Errors
    /// If a configuration is missing, malformed or not supported.
    pub fn open(model: &Path, selection: &[AdapterArg]) -> Result<Self, TrainError> {
        Self::open_for(model, selection, None)
    }

    /// Opens a model for a task, as [`open_model`](Self::open_model), and the selected adapters.
    ///
    /// # Errors
    /// If a configuration is missing, malformed or not supported.
    pub fn open_for(
        model: &Path,
        selection: &[AdapterArg],
        task: Option<TaskName>,
    ) -> Result<Self, TrainError> {
        Self::with_model(Self::open_model(model, task)?, selection)
    }

    /// Opens a model, given by its directory or its name on the Hub, for a task: a language model is the base of a
    /// classifier where the task has labels.
    ///
    /// # Errors
    /// If its configuration is missing, malformed or not supported.
    pub fn open_model(model: &Path, task: Option<TaskName>) -> Result<ModelDir, TrainError> {
        let model = ModelDir::open(model_directory(model)?)?;
        Ok(match task {
            None | Some(TaskName::CausalLm) => model,
            Some(_) => model.with_head()?,
        })
    }

    /// Opens the selected adapters of an opened model. A language model is the base of a classifier where the first adapter
    /// has a head.
    ///
    /// # Errors
    /// If a configuration is missing, malformed or not supported.
    pub fn with_model(model: ModelDir, selection: &[AdapterArg]) -> Result<Self, TrainError> {
        let mut dirs = Vec::with_capacity(selection.len());
        let mut converted = Vec::new();
        for AdapterArg { dir, foreign, .. } in selection {
            dirs.push(match foreign::opened(dir, foreign)? {
                Some(Converted { dir, kept }) => {
                    converted.push(kept);
                    dir
                }
                None => AdapterDir::open(dir)?,
            });
        }
        let has_head =
            |dir: &AdapterDir| dir.task_type().and_then(HeadKind::from_task_type).is_some();
        let model = if dirs.first().is_some_and(has_head) {
            model.with_head()?
        } else {
            model
        };
        let mut adapters = Vec::with_capacity(dirs.len());
        for (arg, dir) in selection.iter().zip(dirs) {
            say_spelling(&dir)?;
            let labels = match model.config() {
                ModelConfig::Encoder(base) => Some(AdapterLabels::from_dir(&dir)?.on_base(base)),
                _ => None,
            };
            adapters.push(AdapterSource {
                name: arg.name.clone(),
                converted: (dir.path() != arg.dir).then(|| arg.clone()),
                dir,
                labels,
            });
        }
        Ok(Self {
            model,
            adapters,
            _converted: converted,
        })
    }

    /// Returns the adapter for all records.
    pub fn one(&self) -> Option<&AdapterDir> {
        let only = self.first().filter(|adapter| adapter.name.is_none());
        only.map(|adapter| &adapter.dir)
    }

    /// Warns that the adapter for all records was trained on another base, or refuses it with `strict`.
    ///
    /// # Errors
    /// As [`check_base`].
    pub fn check_base(
        &self,
        report: Option<&AttachReport>,
        strict: bool,
        screen: &Screen,
    ) -> Result<(), TrainError> {
        check_base(self.one().map(AdapterDir::path), report, strict, screen)
    }

    /// Returns the adapters by name; empty without names.
    pub fn named(&self) -> impl Iterator<Item = (&str, &AdapterSource)> {
        self.adapters
            .iter()
            .filter_map(|adapter| Some((adapter.name.as_deref()?, adapter)))
    }

    /// Returns true if the adapters have names.
    pub fn is_named(&self) -> bool {
        self.named().next().is_some()
    }

    /// Returns all adapters.
    pub fn adapters(&self) -> &[AdapterSource] {
        &self.adapters
    }

    /// Returns the first adapter.
    pub fn first(&self) -> Option<&AdapterSource> {
        self.adapters.first()
    }

    /// Returns the configuration of an encoder, or of a decoder with a head.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a language model.
    pub fn encoder(&self) -> Result<&EncoderConfig, TrainError> {
        if let ModelConfig::Encoder(config) = self.model.config() {
            return Ok(config);
        }
        let dir = self.model.path().display();
        let message = format!("{dir} is a language model, not an encoder with a head");
        Err(TrainError::config("model", message))
    }

    /// Returns kind and outputs of the head that is used with an adapter: the adapter's own, or else the model's. The
    /// kind is `None` if the files do not tell.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a language model.
    pub fn head(
        &self,
        adapter: Option<&AdapterSource>,
    ) -> Result<(Option<HeadKind>, Labels), TrainError> {
        let config = self.encoder()?;
        let own = || config.labels.clone();
        let (kind, labels) = match adapter.and_then(|adapter| adapter.labels.clone()) {
            Some(found) => (found.kind, found.labels.unwrap_or_else(own)),
            None => (HeadKind::from_config(config), own()),
        };
        Ok(match kind {
            Some(HeadKind::Token) => (kind, labels.for_tokens()),
            _ => (kind, labels),
        })
    }

    /// Returns the task of the model with its first adapter.
    ///
    /// # Errors
    /// Does not fail for a model with a head or a language model.
    pub fn task(&self) -> Result<TaskName, TrainError> {
        if self.model.config().labels().is_none() {
            return Ok(TaskName::CausalLm);
        }
        Ok(match self.head(self.first())? {
            (Some(HeadKind::Token), _) => TaskName::TokenClassification,
            (_, Labels::Score | Labels::Scores(_)) => TaskName::Regression,
            (_, Labels::MultiLabel(_)) => TaskName::MultiLabelClassification,
            (_, Labels::Classes(_)) => TaskName::Classification,
        })
    }

    /// Returns the quantization of frozen weights. The fully trained modules of the adapters, and the given ones, stay in
    /// floats.
    ///
    /// # Errors
    /// If the configuration of an adapter cannot be read.
    pub fn quantize(
        &self,
        quantization: Option<Quantization>,
        modules_to_save: &[String],
    ) -> Result<Option<QuantizeConfig>, TrainError> {
        let Some(quantization) = quantization else {
            return Ok(None);
        };
        let skip = self.trained(modules_to_save)?;
        Ok(Some(QuantizeConfig::new(quantization).with_skip(skip)))
    }

    /// Returns the float type of frozen weights that are not quantized, and of products with them in mixed precision. The fully
    /// trained modules of the adapters, and the given ones, stay in f32.
    ///
    /// # Errors
    /// If the configuration of an adapter cannot be read.
    pub fn floats(
        &self,
        dtype: Option<BaseDType>,
        mixed: Option<HalfFloat>,
        modules_to_save: &[String],
    ) -> Result<BaseFloats, TrainError> {
        match (dtype.unwrap_or_default(), mixed) {
            (BaseDType::F32, None) => Ok(BaseFloats::default()),
            (dtype, mixed) => Ok(BaseFloats::new(dtype)
                .with_linear(mixed)
                .with_skip(self.trained(modules_to_save)?)),
        }
    }

    /// Returns the given modules and the fully trained ones of the adapters.
    fn trained(&self, modules_to_save: &[String]) -> Result<Vec<String>, TrainError> {
        let mut modules = modules_to_save.to_vec();
        // Virtual tokens and adapter layers train no module but a head.
        for adapter in self.adapters.iter().filter(|a| !a.dir.kind().is_added()) {
            let config = adapter.dir.config()?;
            modules.extend(config.modules_to_save.iter().cloned());
            // An embedding of which single rows are trained stays in f32.
            if !config.token_indices.is_empty() {
                modules.push(self.model.config().token_embedding());
            }
        }
        Ok(modules)
    }
}

/// Says in which ways the names in an adapter's file differ from PEFT's.
fn say_spelling(dir: &AdapterDir) -> Result<(), TrainError> {
    // Another kind is refused later; adapter layers have names of their own.
    if matches!(dir.kind(), AdapterKind::Other(_) | AdapterKind::Layers) {
        return Ok(());
    }
    let tensors = dir.tensors()?;
    if !tensors.remarks().is_empty() {
        let (path, remarks) = (tensors.path().display(), tensors.remarks().join("; "));
        Screen::detect().line(&format!("adapter   {path}: read with {remarks}"));
    }
    Ok(())
}

impl AdapterSource {
    /// Returns the path that the user gave: the directory, or the file that it was converted from.
    pub fn path(&self) -> &Path {
        let converted = self.converted.as_ref();
        converted.map_or(self.dir.path(), |arg| &arg.dir)
    }

    /// Returns the kind of the adapter's head; `None` if the files do not tell.
    pub fn kind(&self) -> Option<HeadKind> {
        self.labels.as_ref()?.kind
    }

    /// Returns true if no configuration describes the adapter's head, so that the number of its outputs alone is known.
    pub fn is_undescribed(&self) -> bool {
        let labels = self.labels.as_ref();
        labels.is_some_and(|head| head.labels.is_some() && !head.are_described)
    }

    /// Returns the outputs of the adapter's head; `None` without a head.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()?.labels.as_ref()
    }
}

/// Returns the directory of a model given by its directory or its name on the Hub.
///
/// # Errors
/// If the model is neither, or cannot be downloaded.
pub fn model_directory(model: &Path) -> Result<PathBuf, TrainError> {
    if model.is_dir() {
        return Ok(model.into());
    }
    let name = model.to_string_lossy();
    let screen = Screen::detect();
    let mut file: Option<(String, Bar)> = None;
    let mut show = |name: &str, done: u64, total: u64| {
        if file.as_ref().is_none_or(|(other, _)| other != name) {
            if let Some((_, bar)) = file.take() {
                bar.finish();
            }
            file = Some((name.into(), screen.bar(name, total as usize)));
        }
        if let Some((_, bar)) = &mut file {
            bar.set(done as usize);
        }
    };
    Ok(hub::resolve(&name, &HubOptions::from_env(), &mut show)?)
}
