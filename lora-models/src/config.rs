//! The configuration of any model of this crate, from a directory or by the name of a published size.

use crate::encoder::{EncoderConfig, EncoderFamily};
use crate::gpt2::Gpt2Config;
use crate::{ModelError, model_type};
use serde_json::{Map, Value, json};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What a model is made of, whichever it is.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // There is one.
pub enum ModelConfig {
    /// GPT-2.
    Gpt2(Gpt2Config),
    /// BERT, RoBERTa, XLM-RoBERTa, DeBERTa.
    Encoder(EncoderConfig),
}

impl ModelConfig {
    /// Reads `config.json` of a model directory; no other file has to be there.
    ///
    /// # Errors
    /// As [`Gpt2Config::from_dir`] and [`EncoderConfig::from_dir`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        match model_type(&dir)?.as_str() {
            "gpt2" => Gpt2Config::from_dir(dir).map(Self::Gpt2),
            _ => EncoderConfig::from_dir(dir).map(Self::Encoder),
        }
    }

    /// The same without any dropout, whose draws no two programs share.
    pub fn without_dropout(mut self) -> Self {
        match &mut self {
            Self::Gpt2(config) => {
                config.resid_pdrop = 0.0;
                config.embd_pdrop = 0.0;
                config.attn_pdrop = 0.0;
            }
            Self::Encoder(config) => {
                config.hidden_dropout = 0.0;
                config.attention_dropout = 0.0;
                config.pooler_dropout = 0.0;
                config.classifier_dropout = config.classifier_dropout.map(|_| 0.0);
            }
        }
        self
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.n_layer,
            Self::Encoder(config) => config.num_hidden_layers,
        }
    }

    /// The same with another number of layers.
    pub fn with_layers(mut self, layers: usize) -> Self {
        match &mut self {
            Self::Gpt2(config) => config.n_layer = layers,
            Self::Encoder(config) => config.num_hidden_layers = layers,
        }
        self
    }

    /// The name of its family in `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Gpt2(_) => "gpt2",
            Self::Encoder(config) => config.family.model_type(),
        }
    }

    /// Number of tokens that have an embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.vocab_size,
            Self::Encoder(config) => config.vocab_size,
        }
    }

    /// The most tokens in an input.
    pub fn max_length(&self) -> usize {
        match self {
            Self::Gpt2(config) => config.n_positions,
            Self::Encoder(config) => config.max_length(),
        }
    }
}

/// Sizes that are published under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// GPT-2 small (Radford et al. 2019).
    Gpt2,
    /// GPT-2 medium.
    Gpt2Medium,
    /// RoBERTa base (Liu et al. 2019).
    RobertaBase,
    /// DeBERTa v3 base (He et al. 2021).
    DebertaV3Base,
    /// all-MiniLM-L6-v2, a BERT of 6 narrow layers (Wang et al. 2020).
    Minilm,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Gpt2,
        Self::Gpt2Medium,
        Self::RobertaBase,
        Self::DebertaV3Base,
        Self::Minilm,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Gpt2Medium => "gpt2-medium",
            Self::RobertaBase => "roberta-base",
            Self::DebertaV3Base => "deberta-v3-base",
            Self::Minilm => "minilm",
        }
    }

    /// Its configuration.
    ///
    /// # Errors
    /// None that a test would not have seen.
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
        };
        let family = match self {
            Self::RobertaBase => EncoderFamily::Roberta,
            Self::DebertaV3Base => EncoderFamily::DebertaV2,
            _ => EncoderFamily::Bert,
        };
        let mut object: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
        object.insert("model_type".into(), family.model_type().into());
        EncoderConfig::from_json(Path::new(self.name()), object).map(ModelConfig::Encoder)
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
    use crate::classifier::{Classifier, HeadKind};
    use crate::gpt2::Gpt2LmHead;
    use burn::tensor::Device;

    /// As transformers counts them, without a head.
    #[test]
    fn presets_have_the_parameters_of_the_published_models() {
        for (preset, expected) in [
            (Preset::Gpt2, 124_439_808),
            (Preset::Gpt2Medium, 354_823_168),
            (Preset::RobertaBase, 124_055_040),
            (Preset::DebertaV3Base, 183_831_552),
            (Preset::Minilm, 22_713_216),
        ] {
            assert_eq!(preset.name().parse(), Ok(preset));
            let device = Device::flex();
            let shapes = match preset.config().unwrap().without_dropout() {
                ModelConfig::Gpt2(config) => Gpt2LmHead::weight_shapes(&config, &device).unwrap(),
                ModelConfig::Encoder(config) => {
                    Classifier::weight_shapes(&config, HeadKind::Sequence, &device).unwrap()
                }
            };
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
