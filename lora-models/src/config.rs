//! Model configurations of any family, from a directory or by the name of a published size.

use crate::config_keys::unsupported;
use crate::decoder::{DecoderConfig, DecoderFamily};
use crate::encoder::{EncoderConfig, EncoderFamily, HeadKind, Labels};
use crate::error::ModelError;
use crate::gpt2::Gpt2Config;
use crate::pretrained::{FamilyConfig, ModelSizes, read_object};
use lora_core::files::Directory;
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Configuration of a model of any family.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // A program has a few of them.
pub enum ModelConfig {
    /// Configuration of a GPT-2.
    Gpt2(Gpt2Config),
    /// Configuration of a decoder of the Llama kind.
    Decoder(DecoderConfig),
    /// Configuration of a model with a head on texts or tokens: an encoder, BERT, RoBERTa, XLM-RoBERTa or DeBERTa, or a decoder
    /// with a head in place of its output layer ([`HeadedDecoder`](crate::encoder::HeadedDecoder)).
    Encoder(EncoderConfig),
}

/// Evaluates an expression with the model type that belongs to a [`ModelConfig`]: the one place that tells families
/// apart.
///
/// The first form has one expression for all models, which are [`Pretrained`](crate::Pretrained). The second has one
/// for language models, which are [`CausalLm`](crate::CausalLm), and one for models with a head, encoders and the decoders among
/// them, as [`Classifier`](crate::classifier::Classifier). The type and the configuration are bound by the names given.
///
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_models::{Preset, Pretrained, dispatch};
///
/// let config = Preset::Minilm.config()?;
/// let shapes = dispatch!(&config, M(config) => {
///     M::weight_shapes(config, &<M as Pretrained>::Options::default(), &Device::flex())
/// })?;
/// let is_decoder = dispatch!(&config, causal M(_) => true, encoder M(_) => false);
/// assert!(!is_decoder && shapes.len() > 100);
/// # Ok::<(), lora_models::ModelError>(())
/// ```
#[macro_export]
macro_rules! dispatch {
    ($config:expr, $model:ident($bound:pat) => $body:expr $(,)?) => {
        $crate::dispatch!($config, causal $model($bound) => $body, encoder $model($bound) => $body)
    };
    (
        $config:expr,
        causal $decoder:ident($bound:pat) => $causal:expr,
        encoder $encoder:ident($labelled:pat) => $classify:expr $(,)?
    ) => {
        match $config {
            $crate::ModelConfig::Gpt2($bound) => {
                #[allow(dead_code)] // Not every arm names the model.
                type $decoder = $crate::gpt2::Gpt2LmHead;
                $causal
            }
            $crate::ModelConfig::Decoder($bound) => {
                #[allow(dead_code)] // Not every arm names the model.
                type $decoder = $crate::decoder::DecoderLm;
                $causal
            }
            $crate::ModelConfig::Encoder($labelled) => {
                #[allow(dead_code)] // Not every arm names the model.
                type $encoder = $crate::classifier::Classifier;
                $classify
            }
        }
    };
}

/// Reader of a family's configuration.
type Read = fn(&Path, Map<String, Value>) -> Result<ModelConfig, ModelError>;

/// Returns the reader for the configuration of a language model of this `model_type`.
fn decoder(model_type: &str) -> Option<Read> {
    if model_type == "gpt2" {
        return Some(|path, object| FamilyConfig::from_json(path, object).map(ModelConfig::Gpt2));
    }
    DecoderFamily::from_model_type(model_type)?;
    Some(|path, object| FamilyConfig::from_json(path, object).map(ModelConfig::Decoder))
}

/// Returns the `model_type` in the `config.json` of a model directory, such as `gpt2` or `roberta`.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Json`] or [`ModelError::TooLarge`] if the file cannot be read;
/// [`ModelError::UnsupportedConfig`] if it has no `model_type`.
pub fn model_type(dir: impl Into<Directory>) -> Result<String, ModelError> {
    let (path, object) = read_object(&dir.into())?;
    Ok(family(&path, &object)?.to_string())
}

fn family<'a>(path: &Path, object: &'a Map<String, Value>) -> Result<&'a str, ModelError> {
    let name = object.get("model_type").and_then(Value::as_str);
    name.ok_or_else(|| unknown_family(path, "not there"))
}

/// Returns the error for a `model_type` that is not supported, which lists those that are.
fn unknown_family(path: &Path, name: &str) -> ModelError {
    let encoders = EncoderFamily::ALL.map(EncoderFamily::model_type);
    let families = [ModelConfig::decoders(), encoders.to_vec()].concat();
    unsupported(path, "model_type", name, families.join(", "))
}

impl ModelConfig {
    /// Reads `config.json` of a model directory; no other file is needed.
    ///
    /// # Errors
    /// As [`FamilyConfig::from_dir`].
    pub fn from_dir(dir: impl Into<Directory>) -> Result<Self, ModelError> {
        let (path, object) = read_object(&dir.into())?;
        Self::from_json(&path, object)
    }

    /// Reads the object of a `config.json`; messages name `path`.
    ///
    /// # Errors
    /// As [`FamilyConfig::from_dir`].
    pub fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        let name = family(path, &object)?;
        if HeadKind::of_class(&object).is_some() {
            return EncoderConfig::from_json(path, object).map(Self::Encoder);
        }
        let mut encoders = EncoderFamily::ALL.into_iter();
        match decoder(name) {
            Some(read) => read(path, object),
            None if encoders.any(|encoder| encoder.model_type() == name) => {
                EncoderConfig::from_json(path, object).map(Self::Encoder)
            }
            None => Err(unknown_family(path, name)),
        }
    }

    /// Reads the object of a `config.json` as that of a model with a head, also where it is a language model's.
    ///
    /// # Errors
    /// As [`FamilyConfig::from_dir`].
    pub fn with_head(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        EncoderConfig::from_json(path, object).map(Self::Encoder)
    }

    /// Returns the names of the last `count` layers, or of all if there are fewer.
    pub fn last_layers(&self, count: usize) -> Vec<String> {
        let layers = self.sizes().layers;
        let last = layers.saturating_sub(count)..layers;
        dispatch!(self, M(config) => last.map(|layer| config.layer_name(layer)).collect())
    }

    /// Returns the name of the embedding of tokens, whose rows are trained for single tokens.
    pub fn token_embedding(&self) -> String {
        dispatch!(self, M(config) => config.token_embedding())
    }

    /// Returns the `model_type`s of language models.
    pub fn decoders() -> Vec<&'static str> {
        let others = DecoderFamily::ALL.map(DecoderFamily::model_type);
        [&["gpt2"], &others[..]].concat()
    }

    /// Sets every dropout probability to 0: random draws differ between programs.
    pub fn without_dropout(mut self) -> Self {
        dispatch!(&mut self, M(config) => config.disable_dropout());
        self
    }

    /// Replaces the number of layers.
    pub fn with_layers(mut self, layers: usize) -> Self {
        dispatch!(&mut self, M(config) => config.set_layers(layers));
        self
    }

    /// Replaces the names of an encoder's outputs; a language model has none.
    pub fn with_labels(mut self, labels: Labels) -> Self {
        if let Self::Encoder(config) = &mut self {
            config.labels = labels;
        }
        self
    }

    /// Returns the family's name in `config.json`.
    pub fn model_type(&self) -> &'static str {
        dispatch!(self, M(config) => config.model_type())
    }

    /// Returns the sizes of the model.
    pub fn sizes(&self) -> ModelSizes {
        dispatch!(self, M(config) => config.sizes())
    }

    /// Names the modules that are usually adapted, as targets of LoRA.
    pub fn usual_targets(&self) -> Vec<&'static str> {
        dispatch!(self, M(config) => config.usual_targets())
    }

    /// Returns the names of the head's outputs; `None` for a language model.
    pub fn labels(&self) -> Option<&Labels> {
        dispatch!(self, causal M(_) => None, encoder M(config) => Some(&config.labels))
    }
}

/// Published model sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// GPT-2 small (Radford et al. 2019).
    #[default]
    Gpt2,
    /// GPT-2 medium.
    Gpt2Medium,
    /// RoBERTa base (Liu et al. 2019).
    RobertaBase,
    /// DeBERTa v3 base (He et al. 2021).
    DebertaV3Base,
    /// all-MiniLM-L6-v2, a BERT of 6 narrow layers (Wang et al. 2020).
    Minilm,
    /// SmolLM2 135M (Allal et al. 2025), a small Llama.
    Smollm2,
    /// Qwen 3 0.6B (Yang et al. 2025).
    Qwen3,
    /// Llama 3.2 1B.
    Llama3,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 8] = [
        Self::Gpt2,
        Self::Gpt2Medium,
        Self::RobertaBase,
        Self::DebertaV3Base,
        Self::Minilm,
        Self::Smollm2,
        Self::Qwen3,
        Self::Llama3,
    ];

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Gpt2Medium => "gpt2-medium",
            Self::RobertaBase => "roberta-base",
            Self::DebertaV3Base => "deberta-v3-base",
            Self::Minilm => "minilm",
            Self::Smollm2 => "smollm2-135m",
            Self::Qwen3 => "qwen3-0.6b",
            Self::Llama3 => "llama-3.2-1b",
        }
    }

    /// Returns the configuration.
    ///
    /// # Errors
    /// Does not fail: a test builds every preset.
    pub fn config(self) -> Result<ModelConfig, ModelError> {
        let keys = match self {
            Self::Gpt2 => return Ok(ModelConfig::Gpt2(Gpt2Config::default())),
            Self::Gpt2Medium => return Ok(ModelConfig::Gpt2(Gpt2Config::medium())),
            Self::RobertaBase => json!({
                "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
                "layer_norm_eps": 1e-5, "pad_token_id": 1
            }),
            Self::DebertaV3Base => json!({
                "vocab_size": 128100, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                "intermediate_size": 3072, "relative_attention": true, "position_buckets": 256,
                "norm_rel_ebd": "layer_norm", "share_att_key": true, "pos_att_type": "p2c|c2p",
                "layer_norm_eps": 1e-7, "max_relative_positions": -1, "position_biased_input": false,
                "pooler_dropout": 0, "pooler_hidden_act": "gelu", "pooler_hidden_size": 768
            }),
            Self::Minilm => json!({
                "hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536
            }),
            Self::Smollm2 => json!({
                "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
                "rope_theta": 1e5, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2
            }),
            Self::Qwen3 => json!({
                "vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
                "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                "max_position_embeddings": 40960, "rope_theta": 1e6, "tie_word_embeddings": true,
                "bos_token_id": 151_643, "eos_token_id": 151_645
            }),
            Self::Llama3 => json!({
                "vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
                "max_position_embeddings": 131_072, "rope_theta": 5e5, "rms_norm_eps": 1e-5,
                "tie_word_embeddings": true, "bos_token_id": 128_000, "eos_token_id": 128_001,
                "rope_scaling": {
                    "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192
                }
            }),
        };
        let model_type = match self {
            Self::RobertaBase => EncoderFamily::Roberta.model_type(),
            Self::DebertaV3Base => EncoderFamily::DebertaV2.model_type(),
            Self::Smollm2 | Self::Llama3 => DecoderFamily::Llama.model_type(),
            Self::Qwen3 => DecoderFamily::Qwen3.model_type(),
            _ => EncoderFamily::Bert.model_type(),
        };
        let mut object: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
        object.insert("model_type".into(), model_type.into());
        ModelConfig::from_json(Path::new(self.name()), object)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|preset| preset.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("expected one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pretrained;
    use burn::tensor::Device;

    #[test]
    fn another_model_type_lists_all_that_are_supported() {
        for object in [json!({"model_type": "llama4"}), json!({})] {
            let object = object.as_object().unwrap().clone();
            let error = ModelConfig::from_json(Path::new("config.json"), object).unwrap_err();
            let message = error.to_string();
            for name in [
                "gpt2",
                "qwen3",
                "bert",
                "roberta",
                "xlm-roberta",
                "deberta",
                "deberta-v2",
            ] {
                assert!(message.contains(name), "{name}: {message}");
            }
        }
    }

    /// As transformers counts them, without a head.
    #[test]
    fn presets_have_the_parameters_of_the_published_models() {
        for (preset, expected) in [
            (Preset::Gpt2, 124_439_808),
            (Preset::Gpt2Medium, 354_823_168),
            (Preset::RobertaBase, 124_055_040),
            (Preset::DebertaV3Base, 183_831_552),
            (Preset::Minilm, 22_713_216),
            (Preset::Smollm2, 134_515_008),
            (Preset::Qwen3, 596_049_920),
            (Preset::Llama3, 1_235_814_400),
        ] {
            assert_eq!(preset.name().parse(), Ok(preset));
            let device = Device::flex();
            let config = preset.config().unwrap().without_dropout();
            let shapes = dispatch!(&config, M(config) => {
                M::weight_shapes(config, &<M as Pretrained>::Options::default(), &device).unwrap()
            });
            let trunk = shapes.iter().filter(|(name, _)| {
                let head = ["classifier.", "pooler."];
                !head.iter().any(|head| name.starts_with(head))
            });
            let parameters: usize = trunk
                .map(|(_, shape)| shape.iter().product::<usize>())
                .sum();
            assert_eq!(parameters, expected, "{preset}");
        }
        assert!("gpt3".parse::<Preset>().unwrap_err().contains("minilm"));
    }
}
