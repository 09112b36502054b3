//! What is the same about all models of this crate: adapters on them, and files out of them.

use crate::checkpoint::ExportReport;
use crate::checkpoint::bounded::read_json;
use crate::export::CONFIG_FILE;
use crate::prefix::{self, PREFIX_DIR, Prefix, PrefixConfig, PrefixShape};
use crate::{ExportOptions, ModelError};
use burn::module::Module;
use burn::tensor::Device;
use lora_core::files::{Overwrite, write_dir};
use lora_core::named::NamedAdapters;
use lora_core::peft::{self, PeftOptions};
use lora_core::{
    Architecture, AttachReport, LayerKind, LoraConfig, LoraError, QuantizeConfig, QuantizedModule,
    TargetModules, attach, attach_report, freeze, quantize,
};
use serde_json::{Map, Value};
use std::path::Path;

/// The `model_type` in the `config.json` of a model directory, such as `gpt2` or `roberta`.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Json`] or [`ModelError::TooLarge`] where it cannot be read;
/// [`ModelError::UnsupportedConfig`] where it says none.
pub fn model_type(dir: impl AsRef<Path>) -> Result<String, ModelError> {
    const LIMIT: u64 = 4 << 20;
    let path = dir.as_ref().join(CONFIG_FILE);
    let object: Map<String, Value> = read_json(&path, LIMIT)?;
    match object.get("model_type").and_then(Value::as_str) {
        Some(name) => Ok(name.to_string()),
        None => Err(ModelError::UnsupportedConfig {
            path,
            key: "model_type".into(),
            value: "not there".into(),
            expected: "gpt2, bert, roberta, xlm-roberta, deberta, deberta-v2".into(),
        }),
    }
}

/// A model that takes LoRA adapters under the names of Hugging Face, and that transformers loads
/// when it is exported.
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
/// let (model, report) = model.attach(&lora)?;
/// // Two slices in two layers, each with A [64, 4] and B [4, 64].
/// assert_eq!(report.parameters(), 2 * 2 * (64 * 4 + 4 * 64));
/// # let _ = model;
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub trait LoraModel: Module {
    /// Names of its modules in Python, what `all-linear` leaves out, and what can be adapted by
    /// slices.
    fn lora_architecture(&self) -> Architecture;

    /// PEFT's word for its task, such as `CAUSAL_LM`.
    fn task_type(&self) -> &'static str;

    /// The device that its weights are on.
    fn device(&self) -> Device;

    /// The modules that PEFT adapts by default.
    fn default_targets(&self) -> TargetModules;

    /// Modules that train whole beside any adapter, because they mean nothing before they are trained: a
    /// head, and what else a checkpoint lacked.
    fn modules_to_save(&self) -> Vec<String> {
        Vec::new()
    }

    /// Refuses an adapter that leaves something of the model at random values.
    ///
    /// # Errors
    /// [`ModelError::StillRandom`] with the modules.
    fn check_adapter(&self, _report: &AttachReport) -> Result<(), ModelError> {
        Ok(())
    }

    /// Makes the model ready for an adapter of this configuration.
    ///
    /// # Errors
    /// Where a weight cannot be read.
    fn prepare(self, _config: &LoraConfig) -> Result<Self, ModelError> {
        Ok(self)
    }

    /// Where it holds a prefix, and what one must be like; `None` where it takes none.
    fn prefix_slot(&mut self) -> Option<(&mut Option<Prefix>, PrefixShape)> {
        None
    }

    /// Its prefix, if it has one.
    fn prefix(&self) -> Option<&Prefix> {
        None
    }

    /// Files that are written beside an adapter, by name.
    fn adapter_companions(&self) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// The model as the base of several adapters with names; see [`ModelAdapters`](crate::ModelAdapters).
    ///
    /// # Errors
    /// [`LoraError::AlreadyAttached`](lora_core::LoraError::AlreadyAttached) if it has an adapter.
    fn named_adapters(self) -> Result<NamedAdapters<Self>, ModelError> {
        let architecture = self.lora_architecture();
        Ok(NamedAdapters::new(self, architecture)?)
    }

    /// Writes the model as a directory that transformers loads without a warning:
    /// `model.safetensors` (in shards above 5 GB), `config.json`, and the files of the base model
    /// beside them. The directory appears whole or not at all.
    ///
    /// # Errors
    /// [`ModelError::Export`] where the model has adapters: merge or detach them first; and where it has
    /// a prefix, which no weight can hold: [`take_prefix`](Self::take_prefix).
    /// [`ModelError::TensorOverflow`] where a weight does not fit in the element type,
    /// [`LoraError::AlreadyExists`](lora_core::LoraError::AlreadyExists) and
    /// [`LoraError::Io`](lora_core::LoraError::Io) inside [`ModelError::Lora`].
    fn export(
        &self,
        dir: impl AsRef<Path>,
        options: &ExportOptions,
        overwrite: Overwrite,
    ) -> Result<ExportReport, ModelError>;

    /// Quantises the frozen weights of its linear layers, but for output layers and what
    /// [`modules_to_save`](Self::modules_to_save) names: before adapters are put on it. A model that is loaded is better
    /// quantised as it is read, by its options.
    ///
    /// # Errors
    /// As [`lora_core::quantize()`].
    fn quantize(self, config: &QuantizeConfig) -> Result<(Self, Vec<QuantizedModule>), ModelError> {
        let mut config = config.clone();
        config.skip.extend(self.modules_to_save());
        let architecture = self.lora_architecture();
        Ok(quantize(self, config.for_architecture(&architecture))?)
    }

    /// Freezes the model and puts LoRA adapters on it. What [`modules_to_save`](Self::modules_to_save)
    /// names trains whole, beside those that the configuration names.
    ///
    /// # Errors
    /// As [`lora_core::attach()`].
    fn attach(self, config: &LoraConfig) -> Result<(Self, AttachReport), ModelError> {
        let config = with_saved(&self, config);
        without_prefix(self, |model| {
            let model = model.prepare(&config)?;
            let architecture = model.lora_architecture();
            Ok(attach(model, config.for_architecture(&architecture))?.into_parts())
        })
    }

    /// What [`attach`](Self::attach) would do, without doing it.
    ///
    /// # Errors
    /// As [`lora_core::attach_report`].
    fn attach_report(&self, config: &LoraConfig) -> Result<AttachReport, ModelError> {
        let config = with_saved(self, config);
        let (_, report) = without_prefix(self.clone(), |model| {
            let model = model.prepare(&config)?;
            let architecture = model.lora_architecture();
            let report = attach_report(&model, config.for_architecture(&architecture))?;
            Ok((model, report))
        })?;
        Ok(report)
    }

    /// Puts a prefix on the model, which trains; its weights are left as they are: [`attach`](Self::attach)
    /// or [`lora_core::freeze`] freezes them. One that is there already is replaced.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] inside [`ModelError::Lora`] where the model takes no prefix, or not one
    /// of so many tokens.
    fn with_prefix(mut self, config: &PrefixConfig) -> Result<Self, ModelError> {
        let device = self.device();
        let Some((slot, shape)) = self.prefix_slot() else {
            let error = LoraError::InvalidOption {
                option: "prefix",
                found: config.tokens.to_string(),
                expected: "none: of the models here GPT-2 alone takes a prefix".into(),
            };
            return Err(error.into());
        };
        *slot = Some(config.init(&shape, &device)?);
        Ok(self)
    }

    /// Puts the prefix of a PEFT directory on the model, ready to go on training; as
    /// [`with_prefix`](Self::with_prefix).
    ///
    /// # Errors
    /// If the model takes no prefix, a file cannot be read or is malformed, a key is not supported, the prefix is of
    /// another model, or its tensor is missing, misshapen or not finite.
    fn load_prefix(mut self, dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let (dir, device) = (dir.as_ref(), self.device());
        let Some((slot, shape)) = self.prefix_slot() else {
            return Err(prefix::refused(dir));
        };
        *slot = Some(prefix::read(dir, &shape, &device)?);
        Ok(self)
    }

    /// Takes the prefix off.
    fn take_prefix(&mut self) -> Option<Prefix> {
        self.prefix_slot()?.0.take()
    }

    /// Writes the prefix as a PEFT directory.
    ///
    /// # Errors
    /// [`ModelError::Export`] where the model has none; [`LoraError::AlreadyExists`] or [`LoraError::Io`] inside
    /// [`ModelError::Lora`].
    fn save_prefix(
        &self,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
        overwrite: Overwrite,
    ) -> Result<(), ModelError> {
        let dir = dir.as_ref();
        let prefix = self.prefix().ok_or_else(|| ModelError::Export {
            path: dir.into(),
            message: "the model has no prefix".into(),
        })?;
        prefix::save(prefix, dir, self.task_type(), base_model, overwrite)
    }

    /// Puts the adapter of a PEFT directory on the model, ready to go on training: LoRA, a prefix, or LoRA
    /// with the prefix in [`PREFIX_DIR`] inside it.
    ///
    /// # Errors
    /// As [`lora_core::peft::load`], [`load_prefix`](Self::load_prefix) and
    /// [`check_adapter`](Self::check_adapter).
    fn load_adapter(self, dir: impl AsRef<Path>) -> Result<(Self, AttachReport), ModelError> {
        if prefix::is_prefix(dir.as_ref())? {
            let (model, report) = freeze(self).into_parts();
            return Ok((model.load_prefix(dir)?, report));
        }
        let config = peft::read_config(dir.as_ref())?;
        self.load_adapter_with(dir, &config)
    }

    /// [`load_adapter`](Self::load_adapter) with a configuration that was read before, and may have
    /// been changed where the tensors do not depend on it: another dropout to train with.
    ///
    /// # Errors
    /// As [`lora_core::peft::load_with`], [`load_prefix`](Self::load_prefix) and
    /// [`check_adapter`](Self::check_adapter).
    fn load_adapter_with(
        self,
        dir: impl AsRef<Path>,
        config: &LoraConfig,
    ) -> Result<(Self, AttachReport), ModelError> {
        let dir = dir.as_ref();
        let (model, report) = without_prefix(self, |model| {
            let model = model.prepare(config)?;
            let architecture = model.lora_architecture();
            Ok(peft::load_with(model, dir, config, &architecture)?.into_parts())
        })?;
        model.check_adapter(&report)?;
        match prefix::beside(dir)? {
            None => Ok((model, report)),
            Some(dir) => Ok((model.load_prefix(dir)?, report)),
        }
    }

    /// Puts the factors of a PEFT directory's adapter on the model, and leaves what it saved whole: to
    /// start another task from them, with a head of its own.
    ///
    /// # Errors
    /// As [`lora_core::peft::load_factors`].
    fn load_adapter_factors(
        self,
        dir: impl AsRef<Path>,
        config: &LoraConfig,
    ) -> Result<(Self, AttachReport), ModelError> {
        let mut config = config.clone();
        config.modules_to_save = self.modules_to_save();
        let model = self.prepare(&config)?;
        let architecture = model.lora_architecture();
        Ok(peft::load_factors(model, dir.as_ref(), &config, &architecture)?.into_parts())
    }

    /// What PEFT keeps beside an adapter on this model.
    ///
    /// `base_model` is as for [`save_adapter`](Self::save_adapter).
    fn peft_options(&self, report: &AttachReport, base_model: Option<&str>) -> PeftOptions {
        let architecture = self.lora_architecture();
        let is_conv1d = |module: &lora_core::AdaptedModule| {
            module.kind == LayerKind::Linear && architecture.is_conv1d(&module.module)
        };
        PeftOptions {
            task_type: Some(self.task_type().into()),
            base_model: base_model.map(String::from),
            fan_in_fan_out: report.modules.iter().any(is_conv1d),
            companions: self.adapter_companions(),
        }
    }

    /// Writes the adapters, and what trained whole beside them, as a PEFT directory; a prefix beside them into
    /// [`PREFIX_DIR`] in it, and one that is alone as the directory itself.
    ///
    /// `base_model` is the name or path of the base model, by which Python's `AutoPeftModel` finds
    /// it.
    ///
    /// # Errors
    /// As [`lora_core::peft::save`].
    fn save_adapter(
        &self,
        report: &AttachReport,
        dir: impl AsRef<Path>,
        base_model: Option<&str>,
        overwrite: Overwrite,
    ) -> Result<(), ModelError> {
        let options = self.peft_options(report, base_model);
        let dir = dir.as_ref();
        match self.prefix() {
            None => Ok(peft::save(self, report, dir, &options, overwrite)?),
            Some(_) if report.is_empty() => self.save_prefix(dir, base_model, overwrite),
            Some(_) => write_dir(dir, overwrite, |dir| {
                peft::save(self, report, dir, &options, Overwrite::Replace)?;
                self.save_prefix(dir.join(PREFIX_DIR), base_model, Overwrite::Refuse)
            }),
        }
    }
}

/// The configuration with what trains whole on this model whatever is asked for.
fn with_saved<M: LoraModel>(model: &M, config: &LoraConfig) -> LoraConfig {
    let mut config = config.clone();
    for module in model.modules_to_save() {
        if !config.modules_to_save.contains(&module) {
            config.modules_to_save.push(module);
        }
    }
    config
}

/// Does something to a model while its prefix is away: what is about its weights is not about that.
fn without_prefix<M: LoraModel, T>(
    mut model: M,
    work: impl FnOnce(M) -> Result<(M, T), ModelError>,
) -> Result<(M, T), ModelError> {
    let prefix = model.take_prefix();
    let (mut model, result) = work(model)?;
    if let Some((slot, _)) = model.prefix_slot() {
        *slot = prefix;
    }
    Ok((model, result))
}
