//! An encoder with its head.

use super::adapters::architecture;
use super::{Head, HeadKind, Pooler};
use crate::ModelError;
use crate::bert::BertModel;
use crate::deberta::DebertaModel;
use crate::encoder::{EncoderConfig, Rows};
use crate::weights::{LayerBuilder, ParamSpec, Random, Weights, meta_init, plan};
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};

/// The encoder of a family. The names of the variants are no part of a path in Python.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A model has one.
pub enum Trunk {
    /// BERT, RoBERTa, XLM-RoBERTa.
    Bert(BertModel),
    /// DeBERTa v1, v2 and v3.
    Deberta(DebertaModel),
}

/// An encoder with a head.
///
/// The fields are named as the modules are in Python, but for what Rust or the family calls
/// otherwise: see [`LoraModel::lora_architecture`](crate::LoraModel::lora_architecture).
#[derive(Module, Debug)]
pub struct Classifier {
    /// The encoder; `bert`, `roberta` or `deberta` in Python.
    pub trunk: Trunk,
    /// BERT's and DeBERTa's, on sequences.
    pub pooler: Option<Pooler>,
    /// The head.
    pub classifier: Head,
    #[module(skip)]
    pub(super) kind: HeadKind,
    #[module(skip)]
    pub(super) config: EncoderConfig,
    #[module(skip)]
    pub(super) fresh: Vec<String>,
}

impl Trunk {
    fn build(maker: &mut LayerBuilder<'_>, config: &EncoderConfig) -> Result<Self, ModelError> {
        Ok(match config.disentangled {
            None => Self::Bert(BertModel::build(maker, config, "trunk.Bert")?),
            Some(_) => Self::Deberta(DebertaModel::build(maker, config, "trunk.Deberta")?),
        })
    }

    fn forward(
        &self,
        rows: Rows,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        match self {
            Self::Bert(model) => model.forward_to(rows, ids, mask, type_ids),
            Self::Deberta(model) => model.forward_to(rows, ids, mask, type_ids),
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

    /// A model with random weights, as transformers starts one.
    ///
    /// The values depend on `seed` and on the names of the parameters alone, so they are the same on
    /// every device.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn init(
        config: &EncoderConfig,
        kind: HeadKind,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::build(config, kind, device, &mut random(config, seed))
    }

    /// Names and shapes, as in files, of the weights of a model of this configuration.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn weight_shapes(
        config: &EncoderConfig,
        kind: HeadKind,
        device: &Device,
    ) -> Result<Vec<(String, Vec<usize>)>, ModelError> {
        let wanted = plan(|weights| Self::build(config, kind, device, weights))?;
        Ok(wanted.iter().map(ParamSpec::in_file).collect())
    }

    /// A model without values, to count its parameters and see where adapters would go.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn outline(
        config: &EncoderConfig,
        kind: HeadKind,
        device: &Device,
    ) -> Result<Self, ModelError> {
        meta_init(|weights| Self::build(config, kind, device, weights))
    }

    /// Its configuration, with the labels of the head.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Modules that the checkpoint lacks and that started at random, such as `classifier`. They mean
    /// nothing before they are trained.
    pub fn fresh(&self) -> &[String] {
        &self.fresh
    }

    /// What the head is for.
    pub fn kind(&self) -> HeadKind {
        self.kind
    }

    /// The hidden states of every token, after the last layer.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, hidden_size]`; what it holds for padding means nothing
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more tokens than positions.
    pub fn hidden_states(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        self.trunk.forward(Rows::All, ids, mask, type_ids)
    }

    /// The outputs of the head.
    ///
    /// # Shapes
    /// - `ids`, `type_ids`: `[batch, seq]`
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, outputs]`, or `[batch · seq, outputs]` for a head on tokens
    ///
    /// # Panics
    /// If the shapes do not fit, or there are more tokens than positions.
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<2> {
        let rows = self.rows();
        self.head(self.trunk.forward(rows, ids, mask, type_ids))
    }

    /// The tokens that the head reads.
    pub(super) fn rows(&self) -> Rows {
        match self.kind {
            HeadKind::Sequence => Rows::First,
            HeadKind::Token => Rows::All,
        }
    }

    /// The outputs of the head for hidden states after the last layer.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, seq, hidden_size]`; a head on sequences reads the first token's alone
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

/// Fresh weights: normal with standard deviation `initializer_range`, norms one, biases zero.
pub(super) fn random(config: &EncoderConfig, seed: u64) -> Random<impl Fn(&str) -> f64 + use<>> {
    let deviation = config.initializer_range;
    Random {
        seed,
        deviation: move |_: &str| deviation,
    }
}
