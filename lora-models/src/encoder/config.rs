//! Sizes and options of an encoder.

use super::Labels;
use super::config_file;
use crate::ModelError;
use crate::activation::Activation;
use crate::checkpoint::bounded::read_json;
use crate::export::CONFIG_FILE;
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

/// No honest `config.json` is near this long; those with many labels have some 100 kB.
const CONFIG_LIMIT: u64 = 4 << 20;

/// The `model_type` of an encoder.
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
}

impl EncoderFamily {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Bert,
        Self::Roberta,
        Self::XlmRoberta,
        Self::Deberta,
        Self::DebertaV2,
    ];

    /// The name in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
            Self::Deberta => "deberta",
            Self::DebertaV2 => "deberta-v2",
        }
    }

    /// The family of a name in `config.json`.
    pub fn from_model_type(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|family| family.model_type() == name)
    }

    /// What the class names of transformers start with.
    pub fn class_prefix(self) -> &'static str {
        match self {
            Self::Bert => "Bert",
            Self::Roberta => "Roberta",
            Self::XlmRoberta => "XLMRoberta",
            Self::Deberta => "Deberta",
            Self::DebertaV2 => "DebertaV2",
        }
    }

    /// Name of the encoder in a model with a head.
    pub fn trunk(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Roberta | Self::XlmRoberta => "roberta",
            Self::Deberta | Self::DebertaV2 => "deberta",
        }
    }

    /// Whether it is of RoBERTa's kind: positions counted from behind the padding's, a head with a
    /// layer of its own.
    pub fn is_roberta(self) -> bool {
        matches!(self, Self::Roberta | Self::XlmRoberta)
    }

    /// The modules that PEFT adapts by default.
    pub fn default_targets(self) -> &'static [&'static str] {
        match self {
            Self::Bert | Self::Roberta | Self::XlmRoberta => &["query", "value"],
            Self::Deberta => &["in_proj"],
            Self::DebertaV2 => &["query_proj", "value_proj"],
        }
    }
}

impl fmt::Display for EncoderFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.model_type())
    }
}

/// Which terms with relative positions are added to the attention scores (He et al. 2020, equation 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PositionTerms {
    /// Content to position.
    pub c2p: bool,
    /// Position to content.
    pub p2c: bool,
}

impl PositionTerms {
    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.c2p) + usize::from(self.p2c)
    }
}

/// Options of DeBERTa's disentangled attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Disentangled {
    /// Whether there are embeddings of relative positions at all: `relative_attention`.
    pub relative: bool,
    /// Terms of the scores: `pos_att_type`.
    pub terms: PositionTerms,
    /// The farthest distance told apart: `max_relative_positions`, where that is below 1
    /// `max_position_embeddings`.
    pub max_distance: usize,
    /// Distances beyond half of it share logarithmic buckets, in v2: `position_buckets`, `None` where
    /// it is below 1.
    pub buckets: Option<usize>,
    /// Positions are projected by the content's own projections, in v2: `share_att_key`.
    pub share_att_key: bool,
    /// A layer norm on the embeddings of relative positions, in v2: `norm_rel_ebd`.
    pub norm_embeddings: bool,
    /// A convolution beside the first layer, in v2.
    pub conv: Option<RelativeConv>,
}

impl Disentangled {
    /// Half the number of embeddings of relative positions.
    pub fn span(&self) -> usize {
        self.buckets.unwrap_or(self.max_distance)
    }
}

/// The convolution beside DeBERTa v2's first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelativeConv {
    /// `conv_kernel_size`, odd.
    pub kernel: usize,
    /// `conv_groups`.
    pub groups: usize,
    /// `conv_act`.
    pub activation: Activation,
}

/// Configuration of an encoder, of any family; read with [`from_dir`](Self::from_dir).
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Which family.
    pub family: EncoderFamily,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of an embedding; other than `hidden_size` only in DeBERTa v2.
    pub embedding_size: usize,
    /// Width of the model.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Width inside the perceptron.
    pub intermediate_size: usize,
    /// Inside the perceptron.
    pub hidden_act: Activation,
    /// Dropout on the outputs of layers and embeddings.
    pub hidden_dropout: f64,
    /// Dropout on attention weights.
    pub attention_dropout: f64,
    /// Dropout of the classifier; `None`: as `hidden_dropout`. `classifier_dropout`, or DeBERTa's
    /// `cls_dropout`.
    pub classifier_dropout: Option<f64>,
    /// Dropout before the pooler, in DeBERTa.
    pub pooler_dropout: f64,
    /// Of the pooler.
    pub pooler_act: Activation,
    /// Rows of the position embedding.
    pub max_position_embeddings: usize,
    /// Whether positions are added to the embeddings: `position_biased_input`.
    pub position_embeddings: bool,
    /// Rows of the segment embedding; 0 for none.
    pub type_vocab_size: usize,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// The token that fills a batch up.
    pub pad_token_id: u32,
    /// DeBERTa's attention.
    pub disentangled: Option<Disentangled>,
    /// What the outputs of a head are called.
    pub labels: Labels,
    /// Every key of the file, for an export.
    pub(super) file: Map<String, Value>,
}

impl EncoderConfig {
    /// Reads `config.json` of a model directory.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for another model, a value outside its range, or a key that
    /// asks for what is not computed here; [`ModelError::Json`], [`ModelError::TooLarge`] and
    /// [`ModelError::Io`] where it cannot be read.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = dir.as_ref().join(CONFIG_FILE);
        Self::from_json(&path, read_json(&path, CONFIG_LIMIT)?)
    }

    /// Reads the object of a `config.json`; `path` is where it came from, for messages.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir), but for those of reading.
    pub fn from_json(path: &Path, object: Map<String, Value>) -> Result<Self, ModelError> {
        config_file::parse(path, object)
    }

    /// The object that `config.json` holds, with these labels.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = self.file.clone();
        self.labels.write(&mut object);
        object
    }

    /// The most tokens in an input.
    ///
    /// A position's embedding is looked up only where positions are added to the embeddings; without, the
    /// number is what the model was trained for.
    pub fn max_length(&self) -> usize {
        match self.family.is_roberta() {
            // Positions begin after the padding's own.
            true => self
                .max_position_embeddings
                .saturating_sub(self.pad_token_id as usize + 1),
            false => self.max_position_embeddings,
        }
    }

    /// Width of an attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}
