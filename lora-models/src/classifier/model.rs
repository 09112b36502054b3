//! Encoder with a head.

use super::names::architecture;
use super::{Head, HeadKind, Pooler};
use crate::ModelError;
use crate::bert::BertModel;
use crate::config_keys::unsupported;
use crate::deberta::DebertaModel;
use crate::decoder::Decoder;
use crate::encoder::{EncoderConfig, EncoderFamily, HeadedDecoder, Rows};
use crate::export::CONFIG_FILE;
use crate::gpt2::Gpt2;
use crate::weights::{LayerBuilder, Random, Weights};
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_core::LoraEmbedding;

/// Encoder of a family. The variants' names are not part of paths in transformers.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A model has one.
pub enum Trunk {
    /// Encoder of BERT, RoBERTa or XLM-RoBERTa.
    Bert(BertModel),
    /// Encoder of DeBERTa v1, v2 or v3.
    Deberta(DebertaModel),
    /// Layers of GPT-2; the head reads the last token that is not padding.
    Gpt2(Gpt2),
    /// Layers of a decoder of the Llama kind; the head reads the last token that is not padding.
    Decoder(Decoder),
}

/// Encoder with a head.
///
/// The fields have the names of the modules in transformers, with the exceptions in
/// [`lora_architecture`](crate::LoraTargets::lora_architecture).
#[derive(Module, Debug)]
pub struct Classifier {
    /// Encoder; `bert`, `roberta` or `deberta` in transformers.
    pub trunk: Trunk,
    /// Pooler of BERT and DeBERTa for a head on sequences.
    pub pooler: Option<Pooler>,
    /// Head.
    pub classifier: Head,
    #[module(skip)]
    pub(super) kind: HeadKind,
    #[module(skip)]
    pub(super) config: EncoderConfig,
    #[module(skip)]
    pub(super) fresh: Vec<String>,
}

/// Batch of texts for a [`Classifier`].
#[derive(Clone, Debug)]
pub struct EncoderInput {
    /// Token ids, `[batch, seq]`.
    pub ids: Tensor<2, Int>,
    /// Attention mask, `[batch, seq]`: true for a token, false for padding.
    pub mask: Tensor<2, Bool>,
    /// Segment ids, `[batch, seq]`: 1 for the second text of a pair.
    pub type_ids: Option<Tensor<2, Int>>,
}

impl Trunk {
    fn build(maker: &mut LayerBuilder<'_>, config: &EncoderConfig) -> Result<Self, ModelError> {
        if let Some(decoder) = &config.decoder {
            return Ok(match decoder {
                HeadedDecoder::Gpt2(decoder) => {
                    Self::Gpt2(Gpt2::build(maker, decoder, "trunk.Gpt2")?)
                }
                HeadedDecoder::Decoder(decoder) => {
                    Self::Decoder(Decoder::build(maker, decoder, "trunk.Decoder")?)
                }
            });
        }
        Ok(match config.disentangled {
            None => Self::Bert(BertModel::build(maker, config, "trunk.Bert")?),
            Some(_) => Self::Deberta(DebertaModel::build(maker, config, "trunk.Deberta")?),
        })
    }

    /// Returns the embedding of the tokens for changes.
    pub(super) fn word_embeddings_mut(&mut self) -> &mut LoraEmbedding {
        match self {
            Self::Bert(model) => &mut model.embeddings.word_embeddings,
            Self::Deberta(model) => &mut model.embeddings.word_embeddings,
            Self::Gpt2(model) => &mut model.wte,
            Self::Decoder(model) => &mut model.embed_tokens,
        }
    }

    /// Returns the embedding of the tokens.
    pub fn word_embeddings(&self) -> &LoraEmbedding {
        match self {
            Self::Bert(model) => &model.embeddings.word_embeddings,
            Self::Deberta(model) => &model.embeddings.word_embeddings,
            Self::Gpt2(model) => &model.wte,
            Self::Decoder(model) => &model.embed_tokens,
        }
    }
}

impl Classifier {
    pub(super) fn build(
        config: &EncoderConfig,
        kind: HeadKind,
        device: &Device,
        weights: &mut dyn Weights,
    ) -> Result<Self, ModelError> {
        check_head(config.family, kind)?;
        let mut maker = LayerBuilder {
            architecture: &architecture(config, kind),
            device,
            weights,
        };
        Ok(Self {
            trunk: Trunk::build(&mut maker, config)?,
            pooler: Pooler::build(&mut maker, config, kind)?,
            classifier: Head::build(&mut maker, config, kind)?,
            kind,
            config: config.clone(),
            fresh: Vec::new(),
        })
    }

    /// Creates a model with random weights, initialized as in transformers.
    ///
    /// The values depend only on `seed` and the parameters' paths, so they are equal on every device.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a family without such a head in transformers.
    pub fn init(
        config: &EncoderConfig,
        kind: HeadKind,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::build(config, kind, device, &mut random(config, seed))
    }

    /// Returns the configuration, with the labels of the head.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Returns the kind of the head.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// Returns the hidden states of every token, after the last layer.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, hidden_size]`; the values at padding are unspecified
    ///
    /// # Panics
    /// If the shapes do not fit, or the tokens exceed the positions.
    pub fn hidden_states(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        let input = EncoderInput {
            ids,
            mask: mask.clone(),
            type_ids,
        };
        self.states(Rows::All, &input)
    }

    /// Returns the outputs of the head.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, outputs]`, or `[batch · seq, outputs]` for a head on tokens
    ///
    /// # Panics
    /// If the shapes do not fit, or the tokens exceed the positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<2> {
        let input = EncoderInput {
            ids,
            mask: mask.clone(),
            type_ids,
        };
        self.head(self.states(self.rows(), &input))
    }

    /// Returns the rows of the hidden states that the head reads.
    pub(super) fn rows(&self) -> Rows {
        match self.kind {
            HeadKind::Sequence => Rows::One(self.head_row()),
            HeadKind::Token => Rows::All,
        }
    }

    /// Applies the head to the hidden states after the last layer.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, hidden_size]`; a head on sequences reads the first row of each, which is that of the last
    ///   token in a decoder
    /// - returns `[batch, outputs]`, or `[batch · seq, outputs]` for a head on tokens
    pub fn head(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [batch, seq, d] = hidden.dims();
        let rows = match self.kind {
            HeadKind::Sequence => hidden.narrow(1, 0, 1).reshape([batch, d]),
            HeadKind::Token => hidden.reshape([batch * seq, d]),
        };
        let rows = match &self.pooler {
            Some(pooler) => pooler.forward(rows),
            None => rows,
        };
        self.classifier.forward(rows)
    }
}

/// Refuses a head that no class of transformers has: no program could load the model.
fn check_head(family: EncoderFamily, kind: HeadKind) -> Result<(), ModelError> {
    let EncoderFamily::Decoder(decoder) = family else {
        return Ok(());
    };
    if decoder.has_head(kind == HeadKind::Token) {
        return Ok(());
    }
    let class = kind.class_suffix();
    let expected = format!("a family with a class …{class} in transformers");
    let path = std::path::Path::new(CONFIG_FILE);
    Err(unsupported(path, "model_type", family, expected))
}

/// Returns the source of random weights: normal with standard deviation `initializer_range`, norms that change nothing, biases
/// zero; in GPT-2, a smaller deviation for the projections onto the residual stream.
pub(super) fn random(config: &EncoderConfig, seed: u64) -> Random<impl Fn(&str) -> f64 + use<>> {
    let deviation = config.initializer_range;
    let (residual, norm) = match &config.decoder {
        // Projections onto the residual stream of GPT-2.
        Some(HeadedDecoder::Gpt2(decoder)) => {
            (deviation / (2.0 * decoder.n_layer as f64).sqrt(), 1.0)
        }
        Some(HeadedDecoder::Decoder(decoder)) => (deviation, decoder.initial_norm()),
        None => (deviation, 1.0),
    };
    Random {
        seed,
        norm,
        deviation: move |path: &str| {
            if path.ends_with(".c_proj.weight") {
                residual
            } else {
                deviation
            }
        },
    }
}
