//! Sizes and options of an encoder.

use super::{HeadedDecoder, Labels};
use crate::activation::Activation;
use crate::decoder::DecoderFamily;
use serde_json::{Map, Value};
use std::fmt;

/// Family of an encoder, named by `model_type`.
///
/// Two kinds are no encoders: decoders with a head in place of their output layer, [`Gpt2`](Self::Gpt2) and
/// [`Decoder`](Self::Decoder). They are configured, loaded and trained as the others, and are told from them by
/// [`EncoderConfig::decoder`]. What the crate says of "an encoder with a head" holds for them too; the same families without a head
/// are language models, [`Gpt2LmHead`](crate::gpt2::Gpt2LmHead) and [`DecoderLm`](crate::decoder::DecoderLm).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncoderFamily {
    /// BERT (Devlin et al. 2018).
    Bert,
    /// RoBERTa (Liu et al. 2019).
    Roberta,
    /// XLM-RoBERTa (Conneau et al. 2019): RoBERTa with another vocabulary.
    XlmRoberta,
    /// DeBERTa, first version (He et al. 2020).
    Deberta,
    /// DeBERTa v2 and v3 (He et al. 2021).
    DebertaV2,
    /// GPT-2 (Radford et al. 2019), a decoder: its head on texts reads the last token that is not padding.
    Gpt2,
    /// A decoder of the Llama kind: its head on texts reads the last token that is not padding.
    Decoder(DecoderFamily),
}

impl EncoderFamily {
    /// All families of encoders, without the decoders.
    pub const ALL: [Self; 5] = [
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
        Self::Deberta,
        Self::DebertaV2,
    ];

    /// Returns `model_type`, class prefix and name of the encoder in a model with a head.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Bert => ["bert", "Bert", "bert"],
            Self::Roberta => ["roberta", "Roberta", "roberta"],
            Self::XlmRoberta => ["xlm-roberta", "XLMRoberta", "roberta"],
            Self::Deberta => ["deberta", "Deberta", "deberta"],
            Self::DebertaV2 => ["deberta-v2", "DebertaV2", "deberta"],
            Self::Gpt2 => ["gpt2", "GPT2", "transformer"],
            Self::Decoder(family) => [family.model_type(), family.class_prefix(), "model"],
        }
    }

    /// Returns the name in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.names()[0]
    }

    /// Returns the family of a name in `config.json`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        let decoders = DecoderFamily::ALL.map(Self::Decoder);
        let mut all = Self::ALL.into_iter().chain([Self::Gpt2]).chain(decoders);
        all.find(|family| family.model_type() == name)
    }

    /// Returns the prefix of the class names in transformers.
    pub fn class_prefix(self) -> &'static str {
        self.names()[1]
    }

    /// Returns the name of the encoder in a model with a head.
    pub fn trunk(self) -> &'static str {
        self.names()[2]
    }

    /// True for the RoBERTa family: positions start after that of the padding, and the head has a layer of its own.
    pub fn is_roberta(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta)
    }

    /// Returns the modules that PEFT adapts by default.
    pub fn default_targets(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta => &["query", "value"],
            Self::Deberta => &["in_proj"],
            Self::DebertaV2 => &["query_proj", "value_proj"],
            Self::Gpt2 => &["c_attn"],
            Self::Decoder(family) => family.default_targets(),
        }
    }
}

impl fmt::Display for EncoderFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}

/// Terms with relative positions in the attention scores (He et al. 2020, equation 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionTerms {
    /// Enables the content-to-position term.
    pub c2p: bool,
    /// Enables the position-to-content term.
    pub p2c: bool,
}

impl PositionTerms {
    /// Returns the number of enabled terms.
    pub fn count(self) -> usize {
        usize::from(self.c2p) + usize::from(self.p2c)
    }
}

/// Options of DeBERTa's disentangled attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Disentangled {
    /// Enables the embeddings of relative positions: `relative_attention`.
    pub relative: bool,
    /// Terms of the attention scores: `pos_att_type`.
    pub terms: PositionTerms,
    /// Largest distance with an embedding of its own, in tokens: `max_relative_positions`, or
    /// `max_position_embeddings` if that is below 1.
    pub max_distance: usize,
    /// Number of buckets in v2: distances beyond half of it share logarithmic buckets. `position_buckets`, `None` if
    /// that is below 1.
    pub buckets: Option<usize>,
    /// Projects positions by the projections of the content, in v2: `share_att_key`.
    pub share_att_key: bool,
    /// Enables a layer norm on the embeddings of relative positions, in v2: `norm_rel_ebd`.
    pub norm_embeddings: bool,
    /// Convolution beside the first layer, in v2.
    pub conv: Option<RelativeConv>,
}

impl Disentangled {
    /// Returns half the number of embeddings of relative positions.
    pub fn span(&self) -> usize {
        self.buckets.unwrap_or(self.max_distance)
    }
}

/// Convolution beside DeBERTa v2's first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeConv {
    /// Width of the kernel in tokens, odd: `conv_kernel_size`.
    pub kernel: usize,
    /// Number of groups: `conv_groups`.
    pub groups: usize,
    /// Activation after the convolution: `conv_act`.
    pub activation: Activation,
}

/// Configuration of an encoder of any family, or of a decoder with a head; read with [`from_dir`](Self::from_dir).
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Family of the encoder.
    pub family: EncoderFamily,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of an embedding; it differs from `hidden_size` only in DeBERTa v2.
    pub embedding_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Activation inside the MLP.
    pub hidden_act: Activation,
    /// Dropout probability on the outputs of layers and embeddings.
    pub hidden_dropout: f64,
    /// Dropout probability on attention weights.
    pub attention_dropout: f64,
    /// Dropout probability of the classifier: `classifier_dropout`, or DeBERTa's `cls_dropout`. `None` for the value
    /// of `hidden_dropout`.
    pub classifier_dropout: Option<f64>,
    /// Dropout probability before the pooler, in DeBERTa.
    pub pooler_dropout: f64,
    /// Activation of the pooler.
    pub pooler_act: Activation,
    /// Number of rows of the position embedding.
    pub max_position_embeddings: usize,
    /// Adds position embeddings to the token embeddings: `position_biased_input`.
    pub position_embeddings: bool,
    /// Number of rows of the segment embedding; 0 for none.
    pub type_vocab_size: usize,
    /// Standard deviation of randomly initialized weights.
    pub initializer_range: f64,
    /// Epsilon, added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Padding token. In a decoder, 0 where [`HeadedDecoder::pad_token_id`] is `None`.
    pub pad_token_id: u32,
    /// Options of DeBERTa's attention; `None` for other families.
    pub disentangled: Option<Disentangled>,
    /// Configuration of a decoder in place of the encoder; `None` for an encoder.
    pub decoder: Option<HeadedDecoder>,
    /// Names of the head's outputs.
    pub labels: Labels,
    /// All keys of the file, for an export.
    pub(super) file: Map<String, Value>,
}

impl EncoderConfig {
    /// Returns the object of `config.json`: the keys of the file, with the sizes and the labels that the configuration has now.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = match &self.decoder {
            Some(decoder) => decoder.to_json(),
            None => self.file.clone(),
        };
        if self.decoder.is_none() {
            object.insert("vocab_size".into(), self.vocab_size.into());
            object.insert("num_hidden_layers".into(), self.num_hidden_layers.into());
        }
        self.labels.write(&mut object);
        object
    }

    /// Sets the number of tokens.
    pub(crate) fn set_vocabulary(&mut self, tokens: usize) {
        self.vocab_size = tokens;
        if let Some(decoder) = &mut self.decoder {
            decoder.set_vocabulary(tokens);
        }
    }

    /// Returns the maximum number of tokens in an input.
    ///
    /// Without position embeddings this is the length that the model was trained for, and not a limit.
    pub fn max_length(&self) -> usize {
        // RoBERTa's positions start after that of the padding.
        let padding = self.family.is_roberta().then_some(self.pad_token_id);
        let skipped = padding.map_or(0, |padding| padding as usize + 1);
        self.max_position_embeddings.saturating_sub(skipped)
    }

    /// True if the output layer of the pretraining is tied to the token embedding, as in every encoder whose file does not say
    /// otherwise.
    pub(crate) fn ties_embeddings(&self) -> bool {
        match &self.decoder {
            Some(decoder) => decoder.ties_embeddings(),
            None => self.file.get("tie_word_embeddings") != Some(&Value::Bool(false)),
        }
    }

    /// Returns the width of an attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}
