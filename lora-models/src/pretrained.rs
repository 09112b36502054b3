//! Models read from and written to the files of Hugging Face.

use crate::checkpoint::bounded::read_json;
use crate::checkpoint::{ExportReport, LoadReport};
use crate::error::ModelError;
use crate::export::{CONFIG_FILE, ExportOptions, write_model};
use crate::misplaced::without_config;
use crate::model::LoraModel;
use crate::weights::{Packed, ParamSpec, Parameters, Weights, meta_init, plan};
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::file::AdapterDir;
use lora_core::files::{Directory, Overwrite};
use lora_core::{BaseFloats, QuantizeConfig, widen};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Maximum size of a `config.json` in bytes.
const CONFIG_LIMIT: u64 = 4 << 20;

/// A model type with a configuration, which is created from a model directory or from random weights.
///
/// # Example
/// ```no_run
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_models::gpt2::Gpt2LmHead;
/// use lora_models::{LoadOptions, Pretrained};
///
/// let (model, report) = Gpt2LmHead::load("gpt2", &LoadOptions::default(), &Device::flex())?;
/// println!("{report}; {} tokens at most", model.info().max_length);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
pub trait Pretrained: LoraModel {
    /// Contents of `config.json`.
    type Config: FamilyConfig;
    /// Options for loading, beside the directory.
    type Options: Clone + Default + Send + Sync + 'static;

    /// Returns the options for a directory that a training run wrote: its head is the trained one.
    fn trained_options(options: &Self::Options) -> Self::Options {
        options.clone()
    }

    /// Returns the options for a base that an adapter is loaded on next: nothing of the checkpoint is needed that the adapter
    /// brings.
    ///
    /// # Errors
    /// If the file of the adapter's tensors is malformed.
    fn options_for_adapter(
        _config: &Self::Config,
        options: &Self::Options,
        _adapter: &AdapterDir,
    ) -> Result<Self::Options, ModelError> {
        Ok(options.clone())
    }

    /// Returns the options without quantization, and with all weights in f32.
    fn unquantized_options(options: &Self::Options) -> Self::Options;

    /// Loads a model from a directory, on disk or in memory, with `config.json` and weights in any form that
    /// [`Checkpoint`](crate::checkpoint::Checkpoint) reads, saved with a head or without.
    ///
    /// Names and shapes are compared with the configuration before any tensor is read. Then each tensor is read,
    /// converted to f32 unless the options keep it in fewer bits, and moved to the device, one after another. On the CPU,
    /// weights may stay in the pages of their file: those in f32, and those that are kept in 16 bits. On a GPU, an
    /// embedding in f32 above the size that the device binds in one buffer is held in frozen
    /// [parts](lora_core::SplitWeight).
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration of another model or out of range;
    /// [`ModelError::TensorMissing`], [`ModelError::TensorUnexpected`], [`ModelError::TensorShape`] or
    /// [`ModelError::TensorDtype`] if the weights do not match it; [`ModelError::HeadMismatch`] if the head has another
    /// number of outputs than the labels; [`ModelError::TooLargeForDevice`] for any other weight above that size; the errors of [`Checkpoint::open`](crate::checkpoint::Checkpoint::open);
    /// [`LoraError::UnsupportedTarget`](lora_core::LoraError::UnsupportedTarget) inside [`ModelError::Lora`] for a
    /// weight to quantize that is not finite, or a value that is infinite in 16 bits.
    fn load(
        dir: impl Into<Directory>,
        options: &Self::Options,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError> {
        let dir = dir.into();
        Self::load_weights(Self::Config::from_dir(&dir)?, dir, options, device)
    }

    /// Loads the weights of a directory whose `config.json` has been read.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_weights(
        config: Self::Config,
        dir: impl Into<Directory>,
        options: &Self::Options,
        device: &Device,
    ) -> Result<(Self, LoadReport), ModelError>;

    /// Builds the modules from a source of parameters.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration out of range, and the errors of the source.
    #[doc(hidden)]
    fn from_weights(
        config: &Self::Config,
        options: &Self::Options,
        device: &Device,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError>;

    /// Returns the source of random parameters.
    #[doc(hidden)]
    fn random_weights(config: &Self::Config, seed: u64) -> impl Weights;

    /// Creates a model with random weights, initialized as in transformers.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration out of range.
    fn init_random(
        config: &Self::Config,
        options: &Self::Options,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let weights = &mut Self::random_weights(config, seed);
        Self::from_weights(config, options, device, weights)
    }

    /// Creates the model of [`init_random`](Self::init_random) with packed weights, which are never all in memory as f32: quantized
    /// linear layers, and other linear layers and embeddings in 16 bits. The model's own
    /// [`modules_to_save`](crate::LoraTargets::modules_to_save) stay in f32.
    ///
    /// # Errors
    /// As [`init_random`](Self::init_random); [`LoraError::UnsupportedTarget`](lora_core::LoraError::UnsupportedTarget) inside
    /// [`ModelError::Lora`] for a value that does not fit.
    fn init_random_packed(
        config: &Self::Config,
        options: &Self::Options,
        quantize: Option<&QuantizeConfig>,
        floats: &BaseFloats,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let saved = Self::init_meta(config, options, device)?.modules_to_save();
        let mut quantize = quantize.cloned();
        let mut floats = floats.clone();
        if let Some(quantize) = &mut quantize {
            quantize.skip.extend(saved.iter().cloned());
        }
        floats.skip.extend(saved);
        let mut weights = Packed {
            weights: Self::random_weights(config, seed),
            quantize: quantize.as_ref(),
            floats: &floats,
        };
        Self::from_weights(config, options, device, &mut weights)
    }

    /// Creates a model whose parameters have shapes but no values, to count them and to plan adapters (PyTorch's
    /// `meta` device).
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration out of range.
    fn init_meta(
        config: &Self::Config,
        options: &Self::Options,
        device: &Device,
    ) -> Result<Self, ModelError> {
        meta_init(|weights| Self::from_weights(config, options, device, weights))
    }

    /// Returns name and shape of each weight, as they are in a file.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a configuration out of range.
    fn weight_shapes(
        config: &Self::Config,
        options: &Self::Options,
        device: &Device,
    ) -> Result<Vec<(String, Vec<usize>)>, ModelError> {
        let specs = plan(|weights| Self::from_weights(config, options, device, weights))?;
        Ok(specs.iter().map(ParamSpec::in_file).collect())
    }

    /// Returns the sizes and token ids that data is prepared by.
    fn info(&self) -> ModelInfo;

    /// Returns the outputs of the model: a row per token, padding included, for a language model or a token
    /// classifier, and a row per input for a sequence classifier.
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

    /// Names the modules that the checkpoint lacks and that were initialized at random.
    fn random_modules(&self) -> &[String] {
        &[]
    }

    /// Describes in a line how the model was loaded.
    fn load_summary(&self, report: &LoadReport) -> String {
        report.to_string()
    }

    /// Writes the model as a directory that transformers loads without a warning: `model.safetensors` (in shards above
    /// 5 GB), `config.json`, and the files of the base model beside them. The write is atomic.
    ///
    /// # Errors
    /// [`ModelError::Export`] for a model with adapters (merge or detach them first) or with a prefix
    /// ([`take_prefix`](crate::AddedModel::take_prefix)); [`ModelError::TensorOverflow`] for a weight that exceeds the
    /// element type; [`LoraError::AlreadyExists`](lora_core::LoraError::AlreadyExists) and
    /// [`LoraError::Io`](lora_core::LoraError::Io) inside [`ModelError::Lora`].
    fn export(
        &self,
        dir: impl AsRef<Path>,
        options: &ExportOptions,
        overwrite: Overwrite,
    ) -> Result<ExportReport, ModelError> {
        let dir = dir.as_ref();
        exported(self, dir, |parameters, config| {
            write_model(dir, parameters, config, options, overwrite)
        })
    }

    /// Returns the object of `config.json` for an export of these parameters, from which it may leave some out.
    ///
    /// # Errors
    /// If a parameter cannot be read.
    #[doc(hidden)]
    fn export_config(
        &self,
        parameters: &mut Parameters<'_>,
    ) -> Result<Map<String, Value>, ModelError>;
}

/// Collects the parameters and the configuration of a model that is to be exported to `dir`.
pub(crate) fn exported<M: Pretrained, R>(
    model: &M,
    dir: &Path,
    write: impl FnOnce(&Parameters<'_>, Map<String, Value>) -> Result<R, ModelError>,
) -> Result<R, ModelError> {
    if model.prefix().is_some() {
        let message = "the model has a prefix, which is not part of its weights; take it off and save it by itself \
                       first";
        return Err(ModelError::export(dir, message));
    }
    let architecture = model.lora_architecture();
    // Weights in 16 bits are written as the values that they are.
    let wide = widen(model.clone());
    let mut parameters = Parameters::collect(&wide, &architecture, dir)?;
    let config = model.export_config(&mut parameters)?;
    write(&parameters, config)
}

/// Configuration of a model family.
pub trait FamilyConfig: Clone + Send + Sync + 'static {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for another family, a value out of range or an option without support;
    /// [`ModelError::Json`], [`ModelError::TooLarge`] and [`ModelError::Io`] if the file cannot be read.
    fn from_dir(dir: impl Into<Directory>) -> Result<Self, ModelError> {
        let (path, object) = read_object(&dir.into())?;
        Self::from_json(&path, object)
    }

    /// Reads the object of a `config.json`; messages name `path`.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError>;

    /// Returns the family's name in `config.json`.
    fn model_type(&self) -> &'static str;

    /// Returns the sizes of the model.
    fn sizes(&self) -> ModelSizes;

    /// Returns the name of the embedding of tokens.
    fn token_embedding(&self) -> String;

    /// Returns the name of a layer.
    fn layer_name(&self, layer: usize) -> String;

    /// Names the modules that are usually adapted, as targets of LoRA.
    fn usual_targets(&self) -> Vec<&'static str>;

    /// Replaces the number of layers.
    fn set_layers(&mut self, layers: usize);

    /// Sets every dropout probability to 0.
    fn disable_dropout(&mut self);
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSizes {
    /// Number of layers.
    pub layers: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Number of attention heads in a layer.
    pub heads: usize,
    /// Number of tokens with an embedding.
    pub vocab_size: usize,
    /// Maximum number of tokens in an input.
    pub max_length: usize,
    /// For a language model: true if the output layer is the token embedding.
    pub tied_head: Option<bool>,
    /// Number of features of a token in the widest layer.
    pub widest: usize,
    /// True if the scores of tokens against distances exist for a whole batch at once, as in DeBERTa.
    pub distance_scores: bool,
}

impl ModelSizes {
    /// Returns the number of values in the largest activation of a batch of `rows` inputs of `length` tokens. The scores of
    /// attention and the logits of a loss, which are computed in parts, do not count.
    pub fn largest_activation(&self, rows: usize, length: usize) -> usize {
        let product =
            |factors: &[usize]| factors.iter().fold(1usize, |all, &n| all.saturating_mul(n));
        let features = product(&[rows, length, self.widest]);
        let scores = product(&[rows, self.heads, length, 2, length]);
        features.max(if self.distance_scores { scores } else { 0 })
    }
}

/// Sizes and token ids of a model that data is prepared by.
#[derive(Clone, Copy, Debug)]
pub struct ModelInfo {
    /// Number of tokens with an embedding.
    pub vocab_size: usize,
    /// Maximum number of tokens in an input, without the virtual tokens of a prefix.
    pub max_length: usize,
    /// Id of the end-of-text token in `config.json`.
    pub eos_id: Option<u32>,
    /// Id of the padding token, if the model requires a certain one.
    pub pad_id: Option<u32>,
}

/// Options for loading a language model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    quantize: Option<QuantizeConfig>,
    floats: BaseFloats,
}

impl LoadOptions {
    /// Quantizes the frozen weights of linear layers while they are read, so that they are never all in memory as f32.
    pub fn with_quantize(mut self, config: Option<QuantizeConfig>) -> Self {
        self.quantize = config;
        self
    }

    /// Returns the quantization of frozen weights; `None` if they are not quantized.
    pub fn quantize(&self) -> Option<&QuantizeConfig> {
        self.quantize.as_ref()
    }

    /// Sets the float type of the frozen weights of linear layers and embeddings that are not quantized. Default: f32.
    ///
    /// With the type of the checkpoint, weights are neither converted nor copied on the CPU.
    pub fn with_floats(mut self, floats: BaseFloats) -> Self {
        self.floats = floats;
        self
    }

    /// Returns the float type of frozen weights that are not quantized.
    pub fn floats(&self) -> &BaseFloats {
        &self.floats
    }
}

/// Reads the object of the `config.json` in a model directory, and returns the file's path with it.
pub(crate) fn read_object(dir: &Directory) -> Result<(PathBuf, Map<String, Value>), ModelError> {
    let file = dir.file(CONFIG_FILE);
    if !file.exists()
        && let Some(error) = without_config(dir)
    {
        return Err(error);
    }
    let object = read_json(&file, CONFIG_LIMIT)?;
    Ok((file.path().into(), object))
}
