//! Models with tokenizer, with or without an adapter.

use crate::TrainError;
use crate::progress::{Bar, Screen};
use burn::tensor::Device;
use lora_core::{AttachReport, Quantization, QuantizeConfig, file};
use lora_models::hub::{self, HubOptions};
use lora_models::tokenizer::Tokenizer;
use lora_models::{FamilyConfig, ModelInfo, Pretrained};
use std::path::{Path, PathBuf};

/// Base of a run: tokenizer, directory and sizes, which stay while weights change.
#[derive(Clone)]
pub struct Base {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Directory of the model.
    pub dir: PathBuf,
    /// Sizes and token ids.
    pub info: ModelInfo,
}

/// Model read from files.
pub struct Loaded<M> {
    /// Model, with the adapter if there is one.
    pub model: M,
    /// Report of the adapter.
    pub adapter: Option<AttachReport>,
    /// Tokenizer and sizes.
    pub base: Base,
    /// Description of the loaded model.
    pub summary: String,
}

impl Base {
    fn new(info: ModelInfo, dir: &Path) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        match tokenizer.largest_id() {
            Some(largest) if largest as usize >= info.vocab_size => Err(TrainError::config(
                "model",
                format!(
                    "{}: the tokenizer has ids up to {largest}, the model knows {} tokens: they do not \
                     belong together",
                    dir.display(),
                    info.vocab_size
                ),
            )),
            _ => Ok(Self {
                tokenizer,
                dir: dir.into(),
                info,
            }),
        }
    }

    /// Returns the id of the end-of-text token: the tokenizer's, or else the model's.
    pub fn eos_id(&self) -> Option<u32> {
        self.tokenizer.eos_id().or(self.info.eos_id)
    }

    /// Returns the ids of the tokens that end a generated text.
    pub fn stop_tokens(&self) -> Vec<u32> {
        self.eos_id().into_iter().collect()
    }

    /// Returns the id of the padding token. If the model does not require a certain one, any token serves: padding is
    /// masked and never learned.
    pub fn pad_id(&self) -> u32 {
        let own = self.tokenizer.pad_id().or(self.eos_id());
        self.info.pad_id.or(own).unwrap_or(0)
    }

    /// Returns the maximum length of an example: the option's, or else 512 tokens or the model's maximum.
    ///
    /// # Errors
    /// If the option is below `least` or above the model's maximum.
    pub fn max_length(&self, option: Option<usize>, least: usize) -> Result<usize, TrainError> {
        let most = self.info.max_length;
        match option {
            None => Ok(512.min(most)),
            Some(length) if length < least => Err(TrainError::config(
                "max_length",
                format!(
                    "is {length}, expected at least {least}: there is nothing to learn in less"
                ),
            )),
            Some(length) if length > most => Err(TrainError::config(
                "max_length",
                format!("is {length}, but the model takes {most} tokens at most"),
            )),
            Some(length) => Ok(length),
        }
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

/// Returns the quantization of frozen weights: the fully trained modules of the adapters stay in floats.
///
/// # Errors
/// If an adapter's configuration cannot be read.
pub fn quantize_config(
    quantization: Option<Quantization>,
    adapters: &[&Path],
    modules_to_save: &[String],
) -> Result<Option<QuantizeConfig>, TrainError> {
    let Some(quantization) = quantization else {
        return Ok(None);
    };
    let mut skip = modules_to_save.to_vec();
    for adapter in adapters {
        skip.extend(file::read_config(adapter)?.modules_to_save);
    }
    Ok(Some(QuantizeConfig::new(quantization).with_skip(skip)))
}

/// Loads a model, with an adapter if there is one.
///
/// # Errors
/// If a file is missing, malformed or not supported, or a weight is larger than the device can
/// bind at once.
pub fn load_base<M: Pretrained>(
    dir: &Path,
    adapter: Option<&Path>,
    options: &M::Options,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let dir = &model_directory(dir)?;
    let config = M::Config::from_dir(dir)?;
    check_limits::<M>(&config, options, device)?;
    let (mut model, report) = M::load_weights(config, dir, options, device)?;
    let summary = model.load_summary(&report);
    let mut attached = None;
    if let Some(adapter) = adapter {
        let (with_adapter, report) = model.load_adapter(adapter)?.into_parts();
        model = with_adapter;
        attached = Some(report);
    }
    Ok(Loaded {
        adapter: attached,
        base: Base::new(model.info(), dir)?,
        summary,
        model,
    })
}

/// Warns that an adapter was trained on another base, or refuses it with `strict`.
///
/// # Errors
/// [`LoraError::OtherBase`](lora_core::LoraError::OtherBase) with `strict`, where the bases are known to differ.
pub(crate) fn check_base(
    dir: Option<&Path>,
    report: Option<&AttachReport>,
    strict: bool,
    screen: &Screen,
) -> Result<(), TrainError> {
    let (Some(dir), Some(report)) = (dir, report) else {
        return Ok(());
    };
    if strict {
        report.check_base(dir)?;
    }
    if let Some(difference) = &report.base_difference {
        let dir = dir.display();
        screen.line(&format!("warning: {dir}: {difference}"));
    }
    Ok(())
}

/// Loads a model for inference: every module must be trained.
///
/// # Errors
/// As [`load_base`]; [`TrainError::Config`] if the checkpoint lacks its head and no adapter brings one.
pub fn load_trained<M: Pretrained>(
    dir: &Path,
    adapter: Option<&Path>,
    options: &M::Options,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let loaded = load_base::<M>(dir, adapter, options, device)?;
    match (adapter, loaded.model.random_modules()) {
        (Some(_), _) | (None, []) => Ok(loaded),
        (None, modules) => Err(TrainError::config(
            "adapter",
            format!(
                "is missing: the checkpoint in {} has no {}, so the model alone would say something at \
                 random; give an adapter that was trained with it, or a merged model",
                dir.display(),
                modules.join(" and no ")
            ),
        )),
    }
}

/// Creates a model with random weights, for a directory with a configuration and a tokenizer only.
///
/// # Errors
/// If either is missing or not supported.
pub(crate) fn from_scratch<M: Pretrained>(
    dir: &Path,
    options: &M::Options,
    seed: u64,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let config = M::Config::from_dir(dir)?;
    check_limits::<M>(&config, options, device)?;
    let model = M::init_random(&config, options, seed, device)?;
    Ok(Loaded {
        summary: format!("random weights, {} parameters", model.num_params()),
        adapter: None,
        base: Base::new(model.info(), dir)?,
        model,
    })
}

/// Refuses a model with a weight that the device cannot bind in one buffer, before any weight is moved there.
///
/// Beyond that limit, 128 MiB on many WGPU adapters, Burn 0.22.1 was seen to return wrong losses
/// before it failed.
fn check_limits<M: Pretrained>(
    config: &M::Config,
    options: &M::Options,
    device: &Device,
) -> Result<(), TrainError> {
    let Some(limit) = lora_core::ops::max_buffer_bytes(device) else {
        return Ok(());
    };
    for (name, shape) in M::weight_shapes(config, options, device)? {
        let bytes = 4 * shape.iter().map(|&n| n as u64).product::<u64>();
        if bytes > limit {
            return Err(TrainError::config(
                "device",
                format!(
                    "`{name}` {shape:?} takes {} MiB, and this device binds at most {} MiB in one \
                     buffer; take `--device flex`, a GPU with a higher limit, or a model with a \
                     smaller vocabulary",
                    bytes >> 20,
                    limit >> 20
                ),
            ));
        }
    }
    Ok(())
}
