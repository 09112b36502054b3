//! A model with its tokenizer, with or without an adapter.

use crate::TrainError;
use crate::data::Encode;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use lora_core::AttachReport;
use lora_models::LoraModel;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// What stays of a model while its weights change: configuration, tokenizer, origin.
#[derive(Clone)]
pub struct Base {
    /// Its configuration.
    pub config: Gpt2Config,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it was read from.
    pub dir: PathBuf,
}

/// A model read from files.
pub struct Loaded {
    /// The model, with the adapter if one was asked for.
    pub model: Gpt2LmHead,
    /// What is on it.
    pub adapter: Option<AttachReport>,
    /// Configuration and tokenizer.
    pub base: Base,
    /// One line on what was loaded.
    pub summary: String,
}

impl Encode for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        Ok(Tokenizer::encode(self, text)?)
    }
}

impl Base {
    fn new(config: Gpt2Config, dir: &Path) -> Result<Self, TrainError> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        let vocab_size = config.vocab_size;
        match tokenizer.largest_id() {
            Some(largest) if largest as usize >= vocab_size => Err(TrainError::config(
                "model",
                format!(
                    "{}: the tokenizer has ids up to {largest}, the model knows {vocab_size} \
                     tokens: they do not belong together",
                    dir.display()
                ),
            )),
            _ => Ok(Self {
                config,
                tokenizer,
                dir: dir.into(),
            }),
        }
    }

    /// The token that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        let configured = self.config.eos_token_ids.first().copied();
        self.tokenizer.eos_id().or(configured)
    }

    /// The token that fills a batch up: any will do, since it is neither seen nor learned.
    pub fn pad_id(&self) -> u32 {
        self.tokenizer.pad_id().or(self.eos_id()).unwrap_or(0)
    }
}

/// Loads a model, and an adapter onto it.
///
/// # Errors
/// If a file is missing, malformed or not supported, or a weight is larger than the device can
/// bind at once.
pub fn load_base(
    dir: &Path,
    adapter: Option<&Path>,
    device: &Device,
) -> Result<Loaded, TrainError> {
    check_limits(&Gpt2Config::from_dir(dir)?, device)?;
    let (mut model, report) = Gpt2LmHead::load(dir, device)?;
    let config = model.config().clone();
    let mut attached = None;
    if let Some(adapter) = adapter {
        let (with_adapter, report) = model.load_adapter(adapter)?;
        model = with_adapter;
        attached = Some(report);
    }
    Ok(Loaded {
        model,
        adapter: attached,
        base: Base::new(config, dir)?,
        summary: report.to_string(),
    })
}

/// A model with random weights, for a directory with a configuration and a tokenizer only.
///
/// # Errors
/// If either is not there or not supported.
pub(crate) fn from_scratch(dir: &Path, seed: u64, device: &Device) -> Result<Loaded, TrainError> {
    let config = Gpt2Config::from_dir(dir)?;
    check_limits(&config, device)?;
    let model = Gpt2LmHead::init(&config, seed, device)?;
    Ok(Loaded {
        summary: format!("random weights, {} parameters", model.num_params()),
        model,
        adapter: None,
        base: Base::new(config, dir)?,
    })
}

/// Refuses a model with a weight that the device cannot bind in one buffer, before anything is
/// put there.
///
/// Beyond that limit, 128 MiB on many WGPU adapters, Burn 0.22.1 was seen to return wrong losses
/// before it failed.
fn check_limits(config: &Gpt2Config, device: &Device) -> Result<(), TrainError> {
    let Some(limit) = lora_core::ops::max_buffer_bytes(device) else {
        return Ok(());
    };
    for (name, shape) in config.weight_shapes() {
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

/// Refuses parameters that are not finite: training would only spread them.
///
/// # Errors
/// If one has a value that is not finite; the error names it.
pub(crate) fn check_finite<M: Module>(module: &M) -> Result<(), TrainError> {
    let mut check = Finite {
        path: Vec::new(),
        bad: None,
    };
    module.visit(&mut check);
    match check.bad {
        None => Ok(()),
        Some(name) => Err(TrainError::config(
            "model",
            format!("`{name}` has values that are not finite"),
        )),
    }
}

struct Finite {
    path: Vec<String>,
    bad: Option<String>,
}

impl ModuleVisitor for Finite {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.bad.is_some() {
            return;
        }
        // The sum of finite weights is finite: one number a parameter is read back.
        let sum = crate::host::values(param.base().without_autodiff().abs().sum());
        if !sum.is_ok_and(|sum| sum[0].is_finite()) {
            self.bad = Some(self.path.join("."));
        }
    }
}
