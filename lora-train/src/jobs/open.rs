//! A model with its tokenizer, with or without an adapter.

use crate::TrainError;
use crate::progress::{Bar, Screen};
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::{AttachReport, Quantization, QuantizeConfig, peft};
use lora_models::LoraModel;
use lora_models::hub::{self, HubOptions};
use lora_models::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// What stays of a model while its weights change: tokenizer, origin, sizes.
#[derive(Clone)]
pub struct Base {
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it was read from.
    pub dir: PathBuf,
    /// What of its configuration others ask for.
    pub traits: Traits,
}

/// Numbers of a model that data is prepared by.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Number of tokens.
    pub vocab_size: usize,
    /// The most tokens in an input.
    pub max_length: usize,
    /// The token that ends a text.
    pub eos_id: Option<u32>,
    /// The token that fills a batch up, where the model insists on one.
    pub pad_id: Option<u32>,
}

/// A model read from files.
pub struct Loaded<M> {
    /// The model, with the adapter if one was asked for.
    pub model: M,
    /// What is on it.
    pub adapter: Option<AttachReport>,
    /// Tokenizer and sizes.
    pub base: Base,
    /// One line on what was loaded.
    pub summary: String,
}

/// A kind of model that is opened by its directory.
pub trait Opens: LoraModel {
    /// What must be known to open it beside the directory.
    type How: Clone + Default + Send;

    /// How it is opened once it was trained: with the head that was.
    fn trained(how: &Self::How) -> Self::How {
        how.clone()
    }

    /// The same with nothing quantised.
    fn in_floats(how: &Self::How) -> Self::How;

    /// Reads it; a line on what was read comes with it.
    ///
    /// # Errors
    /// If a file is missing, malformed or not supported.
    fn open(dir: &Path, how: &Self::How, device: &Device) -> Result<(Self, String), TrainError>;

    /// With random weights, for a directory with a configuration and a tokenizer only.
    ///
    /// # Errors
    /// If the configuration is missing, malformed or not supported.
    fn random(dir: &Path, how: &Self::How, seed: u64, device: &Device) -> Result<Self, TrainError>;

    /// Names and shapes of its weights, before any is made.
    ///
    /// # Errors
    /// If the configuration is missing, malformed or not supported.
    fn weight_shapes(
        dir: &Path,
        how: &Self::How,
        device: &Device,
    ) -> Result<Vec<(String, Vec<usize>)>, TrainError>;

    /// What of its configuration others ask for.
    fn traits(&self) -> Traits;

    /// What it says of inputs, a row for each output: of a language model or a head on tokens one for each token,
    /// padding too, of a head on sequences one for each input.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch · seq, outputs]` or `[batch, outputs]`
    fn outputs(
        &self,
        ids: Tensor<2, Int>,
        mask: Tensor<2, Bool>,
        type_ids: Tensor<2, Int>,
    ) -> Tensor<2>;

    /// Modules that started at random because the checkpoint lacks them.
    fn random_modules(&self) -> &[String] {
        &[]
    }
}

impl Base {
    fn new(traits: Traits, dir: &Path) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        match tokenizer.largest_id() {
            Some(largest) if largest as usize >= traits.vocab_size => Err(TrainError::config(
                "model",
                format!(
                    "{}: the tokenizer has ids up to {largest}, the model knows {} tokens: they do not \
                     belong together",
                    dir.display(),
                    traits.vocab_size
                ),
            )),
            _ => Ok(Self {
                tokenizer,
                dir: dir.into(),
                traits,
            }),
        }
    }

    /// The token that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.tokenizer.eos_id().or(self.traits.eos_id)
    }

    /// The token that fills a batch up: where the model does not insist on one any will do, since it is
    /// neither seen nor learned.
    pub fn pad_id(&self) -> u32 {
        let own = self.tokenizer.pad_id().or(self.eos_id());
        self.traits.pad_id.or(own).unwrap_or(0)
    }

    /// The longest example: as asked for, else 512 tokens or what the model takes.
    ///
    /// # Errors
    /// If it is below `least`, or more than the model takes.
    pub fn max_length(&self, asked: Option<usize>, least: usize) -> Result<usize, TrainError> {
        let most = self.traits.max_length;
        match asked {
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

/// The directory of a model that is given by its directory or by its name on the Hub.
///
/// # Errors
/// If it is neither, or cannot be downloaded.
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

/// How a model's frozen weights are quantised: what trains whole with one of the adapters stays in floats.
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
        skip.extend(peft::read_config(adapter)?.modules_to_save);
    }
    Ok(Some(QuantizeConfig::new(quantization).with_skip(skip)))
}

/// Loads a model, and an adapter onto it.
///
/// # Errors
/// If a file is missing, malformed or not supported, or a weight is larger than the device can
/// bind at once.
pub fn load_base<M: Opens>(
    dir: &Path,
    adapter: Option<&Path>,
    how: &M::How,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let dir = &model_directory(dir)?;
    check_limits::<M>(dir, how, device)?;
    let (mut model, summary) = M::open(dir, how, device)?;
    let mut attached = None;
    if let Some(adapter) = adapter {
        let (with_adapter, report) = model.load_adapter(adapter)?;
        model = with_adapter;
        attached = Some(report);
    }
    Ok(Loaded {
        adapter: attached,
        base: Base::new(model.traits(), dir)?,
        summary,
        model,
    })
}

/// Says once that an adapter was trained on another base, or refuses it.
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

/// [`load_base`] for a model that is to say something: it must be whole.
///
/// # Errors
/// As [`load_base`]; [`TrainError::Config`] where the model lacks its head, and no adapter brings one.
pub fn load_trained<M: Opens>(
    dir: &Path,
    adapter: Option<&Path>,
    how: &M::How,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    let loaded = load_base::<M>(dir, adapter, how, device)?;
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

/// A model with random weights, for a directory with a configuration and a tokenizer only.
///
/// # Errors
/// If either is not there or not supported.
pub(crate) fn from_scratch<M: Opens>(
    dir: &Path,
    how: &M::How,
    seed: u64,
    device: &Device,
) -> Result<Loaded<M>, TrainError> {
    check_limits::<M>(dir, how, device)?;
    let model = M::random(dir, how, seed, device)?;
    Ok(Loaded {
        summary: format!("random weights, {} parameters", model.num_params()),
        adapter: None,
        base: Base::new(model.traits(), dir)?,
        model,
    })
}

/// Refuses a model with a weight that the device cannot bind in one buffer, before anything is
/// put there.
///
/// Beyond that limit, 128 MiB on many WGPU adapters, Burn 0.22.1 was seen to return wrong losses
/// before it failed.
fn check_limits<M: Opens>(dir: &Path, how: &M::How, device: &Device) -> Result<(), TrainError> {
    let Some(limit) = lora_core::ops::max_buffer_bytes(device) else {
        return Ok(());
    };
    for (name, shape) in M::weight_shapes(dir, how, device)? {
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
