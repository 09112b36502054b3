//! LoRA adapters on the models of this crate.

use crate::added::{AddedModel, HeadTensors, load_beside, save_parts};
use crate::error::ModelError;
use crate::prefix;
use crate::targets::LoraTargets;
use crate::vocabulary::{rows_with, saves, with_weights_of};
use lora_core::file::{AdapterDir, PeftOptions, attach_saved};
use lora_core::files::{Directory, Overwrite};
use lora_core::named::NamedAdapters;
use lora_core::{
    Adapted, AdaptedModule, AttachReport, BaseFloats, LayerKind, LoraConfig, QuantizeConfig,
    QuantizedModule, TargetModules, attach, attach_report, freeze, narrow, quantize,
};
use std::path::Path;

/// A model that takes LoRA adapters under the names of transformers.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_core::{LoraConfig, TargetModules};
/// use lora_models::LoraModel;
/// use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
///
/// let config = Gpt2Config { n_layer: 2, n_embd: 64, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
/// let model = Gpt2LmHead::init(&config, 0, &Device::flex())?;
/// let lora = LoraConfig::new(4).with_targets(TargetModules::names(["c_attn[q,v]"]));
/// let model = model.attach(&lora)?;
/// // Two slices in two layers, each with A [64, 4] and B [4, 64].
/// assert_eq!(model.report().parameters(), 2 * 2 * (64 * 4 + 4 * 64));
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub trait LoraModel: AddedModel {
    /// Makes the model the base of several named adapters; see [`ModelAdapters`](crate::ModelAdapters).
    ///
    /// # Errors
    /// [`LoraError::AlreadyAttached`](lora_core::LoraError::AlreadyAttached) if it has an adapter.
    fn named_adapters(self) -> Result<NamedAdapters<Self>, ModelError> {
        let architecture = self.lora_architecture();
        Ok(NamedAdapters::new(self, architecture)?)
    }

    /// Quantizes the frozen weights of the linear layers, except output layers and
    /// [`modules_to_save`](LoraTargets::modules_to_save). It comes before adapters; the options of
    /// [`load`](crate::Pretrained::load) quantize while reading, with less memory.
    ///
    /// # Errors
    /// As [`lora_core::quantize()`].
    fn quantize(self, config: &QuantizeConfig) -> Result<(Self, Vec<QuantizedModule>), ModelError> {
        let mut config = config.clone();
        config.skip.extend(self.modules_to_save());
        let architecture = self.lora_architecture();
        Ok(quantize(self, config.for_architecture(&architecture))?)
    }

    /// Holds the frozen weights of linear layers and embeddings in 16 bits, except quantized ones and
    /// [`modules_to_save`](LoraTargets::modules_to_save). It comes before adapters; the options of
    /// [`load`](crate::Pretrained::load) do the same while reading.
    ///
    /// # Errors
    /// As [`lora_core::narrow`].
    fn narrow(self, floats: &BaseFloats) -> Result<(Self, Vec<QuantizedModule>), ModelError> {
        let mut floats = floats.clone();
        floats.skip.extend(self.modules_to_save());
        let architecture = self.lora_architecture();
        Ok(narrow(self, floats.for_architecture(&architecture))?)
    }

    /// Freezes the model and attaches LoRA adapters to it. [`modules_to_save`](LoraTargets::modules_to_save) are fully
    /// trained, as well as those of the configuration.
    ///
    /// # Errors
    /// As [`lora_core::attach()`].
    fn attach(self, config: &LoraConfig) -> Result<Adapted<Self>, ModelError> {
        let config = with_saved_modules(&self, config);
        without_added(self, |model| {
            let model = model.prepare(&config)?;
            let architecture = model.lora_architecture();
            Ok(attach(model, config.for_architecture(&architecture))?)
        })
    }

    /// Returns the report of [`attach`](Self::attach) without changing the model.
    ///
    /// # Errors
    /// As [`lora_core::attach_report`].
    fn attach_report(&self, config: &LoraConfig) -> Result<AttachReport, ModelError> {
        let config = with_saved_modules(self, config);
        let mut model = self.clone();
        model.take_added();
        let model = model.prepare(&config)?;
        let architecture = model.lora_architecture();
        Ok(attach_report(
            &model,
            config.for_architecture(&architecture),
        )?)
    }

    /// Freezes the model, except the [`modules_to_save`](LoraTargets::modules_to_save), for training modules beside its weights.
    ///
    /// # Errors
    /// As [`lora_core::attach()`].
    fn freeze_all_but_head(self) -> Result<Adapted<Self>, ModelError> {
        if self.modules_to_save().is_empty() {
            return without_added(self, |model| Ok(freeze(model)));
        }
        self.attach(&head_alone(Vec::new()))
    }

    /// Loads the adapter of a directory, on disk or in memory, ready to be trained further: LoRA, virtual tokens or adapter layers,
    /// with the others in its subdirectories.
    ///
    /// # Errors
    /// As [`AdapterDir::open`] and [`load_opened_adapter`](Self::load_opened_adapter).
    fn load_adapter(self, dir: impl Into<Directory>) -> Result<Adapted<Self>, ModelError> {
        self.load_opened_adapter(&AdapterDir::open(dir)?, &AdapterLoadOptions::default())
    }

    /// Returns the number of tokens of the model once an adapter is loaded on it, which may bring tokens. The model needs no values.
    ///
    /// # Errors
    /// If the adapter's file is malformed, or its tokens are far beyond the model's.
    fn tokens_with(&self, adapter: &AdapterDir) -> Result<Option<usize>, ModelError> {
        if !adapter.is_lora() {
            return Ok(self.vocabulary().map(|own| own.rows));
        }
        rows_with(self, adapter)
    }

    /// Loads the adapter of an opened directory, as [`load_adapter`](Self::load_adapter) with options.
    ///
    /// # Errors
    /// As [`AdapterDir::load`], [`load_prefix`](AddedModel::load_prefix) and
    /// [`check_adapter`](LoraTargets::check_adapter).
    fn load_opened_adapter(
        self,
        adapter: &AdapterDir,
        options: &AdapterLoadOptions,
    ) -> Result<Adapted<Self>, ModelError> {
        if adapter.kind().is_added() {
            return load_added(self, adapter, options);
        }
        let mut config = adapter.config()?.clone();
        config.dropout = options.dropout.unwrap_or(config.dropout);
        let embeddings = if options.factors_only {
            // Tokens of the adapter keep their rows, which belong to no head.
            config
                .modules_to_save
                .retain(|entry| saves_embedding(&self, entry));
            config.ensure_weight_tying = false;
            let kept = config.modules_to_save.clone();
            config.modules_to_save.extend(self.modules_to_save());
            Some(kept)
        } else {
            None
        };
        let adapted = without_added(self, |model| {
            let prepared = with_weights_of(model, adapter, config)?;
            let (config, kept) = (&prepared.config, &prepared.kept);
            let model = prepared.model.prepare(config)?;
            let names = model.lora_architecture();
            let adapted = match &embeddings {
                Some(entries) => adapter.load_factors(model, config, &names, entries, kept)?,
                None => adapter.load_on(model, config, &names, kept)?,
            };
            let (model, mut report) = adapted.into_parts();
            report.notes.splice(0..0, prepared.notes);
            Ok(Adapted::from_parts(model, report))
        })?;
        if embeddings.is_some() {
            return Ok(adapted);
        }
        adapted.module().check_adapter(adapted.report())?;
        adapted.try_map(|model| load_beside(model, adapter.directory()))
    }

    /// Returns the options with which PEFT saves an adapter of this model. `base_model` is as for
    /// [`save_adapter`](SaveAdapter::save_adapter).
    fn peft_options(&self, report: &AttachReport, base_model: Option<&str>) -> PeftOptions {
        let architecture = self.lora_architecture();
        let is_conv1d = |module: &AdaptedModule| {
            module.kind == LayerKind::Linear && architecture.is_conv1d(&module.module)
        };
        PeftOptions {
            task_type: Some(self.task_type().into()),
            base_model: base_model.map(String::from),
            fan_in_fan_out: report.modules.iter().any(is_conv1d),
            companions: self.adapter_companions(),
        }
    }
}

impl<M: AddedModel> LoraModel for M {}

/// Options for loading an adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdapterLoadOptions {
    dropout: Option<f64>,
    factors_only: bool,
}

impl AdapterLoadOptions {
    /// Sets the dropout of further training. Default: that of the adapter.
    pub fn with_dropout(mut self, dropout: Option<f64>) -> Self {
        self.dropout = dropout;
        self
    }

    /// Leaves out the fully trained modules of the adapter, except the embedding of tokens: a start for another task, with a new
    /// head. New tokens of the adapter are kept.
    pub fn with_factors_only(mut self, factors_only: bool) -> Self {
        self.factors_only = factors_only;
        self
    }
}

/// Writing the adapter of a model as a PEFT directory.
pub trait SaveAdapter {
    /// Writes the adapter and the fully trained modules as a PEFT directory. Virtual tokens and adapter layers beside LoRA go to
    /// subdirectories; alone they are the directory itself, adapter layers in the form of the library `adapters`.
    ///
    /// `base_model` is the name or path of the base model, by which Python's `AutoPeftModel` finds it.
    ///
    /// # Errors
    /// As [`lora_core::file::save`].
    fn save_adapter(
        &self,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
        overwrite: Overwrite,
    ) -> Result<(), ModelError> {
        self.save_adapter_with(dir, base_model, Vec::new(), overwrite)
    }

    /// Writes the adapter with further files beside it, given by name and content, such as a tokenizer with new tokens.
    ///
    /// # Errors
    /// As [`save_adapter`](Self::save_adapter).
    fn save_adapter_with(
        &self,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
        files: Vec<(String, Vec<u8>)>,
        overwrite: Overwrite,
    ) -> Result<(), ModelError>;
}

impl<M: LoraModel> SaveAdapter for Adapted<M> {
    fn save_adapter_with(
        &self,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
        files: Vec<(String, Vec<u8>)>,
        overwrite: Overwrite,
    ) -> Result<(), ModelError> {
        let (dir, model, report) = (dir.as_ref(), self.module(), self.report());
        let mut options = model.peft_options(report, base_model);
        options.companions.extend(files);
        save_parts(model, report, dir, &options, overwrite)
    }
}

/// Adds the model's own fully trained modules to a configuration.
fn with_saved_modules<M: LoraTargets>(model: &M, config: &LoraConfig) -> LoraConfig {
    let mut config = config.clone();
    for module in model.modules_to_save() {
        if !config.modules_to_save.contains(&module) {
            config.modules_to_save.push(module);
        }
    }
    config
}

/// Returns true if an entry of `modules_to_save` saves the embedding of tokens.
fn saves_embedding<M: LoraTargets>(model: &M, entry: &str) -> bool {
    let names = model.lora_architecture().vocabulary;
    names.first().is_some_and(|input| saves(entry, input))
}

/// Returns the configuration that trains these modules alone.
fn head_alone(modules: Vec<String>) -> LoraConfig {
    LoraConfig {
        targets: TargetModules::Names(Vec::new()),
        modules_to_save: modules,
        ..LoraConfig::default()
    }
}

/// Loads a directory of virtual tokens or adapter layers, with the head that it brings.
fn load_added<M: LoraModel>(
    model: M,
    adapter: &AdapterDir,
    options: &AdapterLoadOptions,
) -> Result<Adapted<M>, ModelError> {
    let takes_head = !model.modules_to_save().is_empty();
    if !takes_head && adapter.is_prefix() {
        prefix::refuse_saved_modules(adapter)?;
    }
    let has_head = takes_head && !options.factors_only;
    let head = if has_head {
        HeadTensors::of(adapter)?
    } else {
        None
    };
    let adapted = match &head {
        None => model.freeze_all_but_head()?,
        Some(head) => {
            let config = with_saved_modules(&model, &head_alone(head.modules()));
            let adapted = without_added(model, |model| {
                let names = model.lora_architecture();
                let config = config.for_architecture(&names);
                Ok(attach_saved(model, config, |saved, shape| {
                    head.values(&saved.name, shape)
                })?)
            })?;
            head.check_used(adapted.report())?;
            adapted
        }
    };
    if has_head {
        match &head {
            Some(_) => adapted.module().check_adapter(adapted.report())?,
            None => adapted
                .module()
                .check_adapter(&freeze(adapted.module().clone()).into_parts().1)?,
        }
    }
    adapted.try_map(|model| load_beside(model.load_added(adapter)?, adapter.directory()))
}

/// Attaches adapters while the modules beside the weights are taken off: their parameters are no target.
fn without_added<M: AddedModel>(
    mut model: M,
    attach: impl FnOnce(M) -> Result<Adapted<M>, ModelError>,
) -> Result<Adapted<M>, ModelError> {
    let added = model.take_added();
    let mut adapted = attach(model)?;
    *adapted.module_mut().added_mut() = added;
    Ok(adapted)
}
