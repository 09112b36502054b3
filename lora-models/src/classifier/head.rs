//! What stands on an encoder.

use crate::ModelError;
use crate::activation::Activation;
use crate::encoder::{EncoderConfig, EncoderFamily};
use crate::weights::{LayerBuilder, dropout};
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::{Dropout, LoraLinear};

/// What a head is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// One output for a text or a pair of texts: classes, or a score.
    #[default]
    Sequence,
    /// An output for each token: classes.
    Token,
}

impl HeadKind {
    /// PEFT's word for the task.
    pub fn task_type(self) -> &'static str {
        match self {
            Self::Sequence => "SEQ_CLS",
            Self::Token => "TOKEN_CLS",
        }
    }

    /// What the class names of transformers end with.
    pub fn class_suffix(self) -> &'static str {
        match self {
            Self::Sequence => "ForSequenceClassification",
            Self::Token => "ForTokenClassification",
        }
    }

    /// What the head of a checkpoint is for, by the class that `config.json` names; `None` where that has
    /// neither head.
    pub fn of_checkpoint(config: &EncoderConfig) -> Option<Self> {
        let file = config.to_json();
        let class = file.get("architectures")?.get(0)?.as_str()?;
        let mut kinds = [Self::Sequence, Self::Token].into_iter();
        kinds.find(|kind| class.ends_with(kind.class_suffix()))
    }
}

/// From the first token's hidden state to a vector for the whole input.
#[derive(Module, Debug)]
pub struct Pooler {
    /// `[hidden_size, hidden_size]`.
    pub dense: LoraLinear,
    /// On its input, in DeBERTa.
    pub dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Pooler {
    /// The pooler of a family, for a head that has one.
    pub(super) fn build(
        maker: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        kind: HeadKind,
    ) -> Result<Option<Self>, ModelError> {
        if kind == HeadKind::Token || config.family.is_roberta() {
            return Ok(None);
        }
        Ok(Some(Self {
            dense: maker.linear("pooler.dense", [config.hidden_size; 2])?,
            dropout: dropout(config.pooler_dropout),
            activation: config.pooler_act,
        }))
    }

    /// # Shapes
    /// - `x`: `[batch, hidden_size]`
    /// - returns `[batch, hidden_size]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.dense.forward(self.dropout.forward(x));
        self.activation.forward(x)
    }
}

/// The projection to the outputs; RoBERTa's has a layer of its own before it.
#[derive(Module, Debug)]
pub struct Head {
    /// RoBERTa's, on sequences: `[hidden_size, hidden_size]`, tanh after it.
    pub dense: Option<LoraLinear>,
    /// `[hidden_size, outputs]`; in Python its name is the head's own where there is no `dense`.
    pub out_proj: LoraLinear,
    /// On the input of either.
    pub dropout: Dropout,
}

impl Head {
    pub(super) fn build(
        maker: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        kind: HeadKind,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let probability = match (kind, config.family) {
            // DeBERTa's `cls_dropout` is for sequences alone.
            (HeadKind::Token, EncoderFamily::Deberta | EncoderFamily::DebertaV2) => None,
            _ => config.classifier_dropout,
        };
        Ok(Self {
            dense: match has_dense(config, kind) {
                true => Some(maker.linear("classifier.dense", [d, d])?),
                false => None,
            },
            out_proj: maker.linear("classifier.out_proj", [d, config.labels.outputs()])?,
            dropout: dropout(probability.unwrap_or(config.hidden_dropout)),
        })
    }

    /// # Shapes
    /// - `x`: `[..., hidden_size]`
    /// - returns `[..., outputs]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut x = self.dropout.forward(x);
        if let Some(dense) = &self.dense {
            x = self.dropout.forward(dense.forward(x).tanh());
        }
        self.out_proj.forward(x)
    }
}

/// Whether the head has a layer before its projection.
pub(super) fn has_dense(config: &EncoderConfig, kind: HeadKind) -> bool {
    config.family.is_roberta() && kind == HeadKind::Sequence
}
