//! The encoder.

use super::{ConvLayer, DebertaContext, DisentangledAttention, Distances, RelativePositions};
use crate::ModelError;
use crate::encoder::{
    Disentangled, Embeddings, EncoderConfig, EncoderFamily, Layer, Rows, hidden_keys,
};
use crate::weights::Maker;
use burn::module::Module;
use burn::tensor::{Bool, Int, Tensor};
use lora_core::{FusedLayout, FusedProjection, LayerNorm, LoraEmbedding};

/// DeBERTa's encoder, of any version.
#[derive(Module, Debug)]
pub struct DebertaModel {
    /// Tokens to vectors.
    pub embeddings: Embeddings,
    /// The layers.
    pub encoder: DebertaEncoder,
}

/// The layers, one after the other, and what they know of distances.
#[derive(Module, Debug)]
pub struct DebertaEncoder {
    /// First to last.
    pub layer: Vec<Layer<DisentangledAttention>>,
    /// Of distances, `[2 · span, hidden_size]`.
    pub rel_embeddings: Option<LoraEmbedding>,
    /// Of these embeddings; `LayerNorm` in Python.
    pub layer_norm: Option<LayerNorm>,
    /// Beside the first layer.
    pub conv: Option<ConvLayer>,
    #[module(skip)]
    distances: Distances,
    /// Whether scores are made with distances: there may be embeddings that none asks for.
    with_distances: bool,
}

impl DebertaModel {
    /// The projections that hold several matrices side by side.
    pub fn fused(config: &EncoderConfig) -> Vec<FusedProjection> {
        match config.family {
            EncoderFamily::Deberta => vec![FusedProjection {
                module: "in_proj".into(),
                parts: ["q", "k", "v"].map(String::from).to_vec(),
                layout: FusedLayout::HeadByHead {
                    heads: config.num_attention_heads,
                },
            }],
            _ => Vec::new(),
        }
    }

    pub(crate) fn build(
        maker: &mut Maker<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let options = config.disentangled.as_ref();
        let options = options.ok_or_else(|| ModelError::UnsupportedConfig {
            path: "EncoderConfig".into(),
            key: "disentangled".into(),
            value: "None".into(),
            expected: "the options of DeBERTa's attention".into(),
        })?;
        Ok(Self {
            embeddings: Embeddings::build(maker, config, &format!("{path}.embeddings"))?,
            encoder: DebertaEncoder::build(maker, config, options, &format!("{path}.encoder"))?,
        })
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
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        self.forward_to(Rows::All, ids, mask, type_ids)
    }

    /// [`forward`](Self::forward), with these rows of the last layer.
    pub(crate) fn forward_to(
        &self,
        rows: Rows,
        ids: Tensor<2, Int>,
        mask: &Tensor<2, Bool>,
        type_ids: Option<Tensor<2, Int>>,
    ) -> Tensor<3> {
        let x = self.embeddings.forward(ids, mask, type_ids);
        self.encoder.forward_to(rows, x, mask)
    }
}

impl DebertaEncoder {
    fn build(
        maker: &mut Maker<'_>,
        config: &EncoderConfig,
        options: &Disentangled,
        path: &str,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let distances = Distances::new(options);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for index in 0..config.num_hidden_layers {
            let path = format!("{path}.layer.{index}");
            layers.push(Layer::build(maker, config, &path, |maker, path| {
                DisentangledAttention::build(maker, config, options, path)
            })?);
        }
        let name = |name: &str| format!("{path}.{name}");
        let rows = [distances.rows(), d];
        Ok(Self {
            layer: layers,
            rel_embeddings: match options.relative {
                true => Some(maker.embedding(&name("rel_embeddings"), rows)?),
                false => None,
            },
            layer_norm: match options.norm_embeddings {
                true => Some(maker.norm(&name("layer_norm"), d, config.layer_norm_eps)?),
                false => None,
            },
            conv: match options.conv {
                Some(conv) => Some(ConvLayer::build(maker, config, conv, &name("conv"))?),
                None => None,
            },
            distances,
            with_distances: options.terms.count() > 0,
        })
    }

    /// # Shapes
    /// - `x`: `[batch, seq, hidden_size]`, zero for padding
    /// - `mask`: `[batch, seq]`, true for a token, false for padding
    /// - returns `[batch, seq, hidden_size]`
    pub fn forward(&self, x: Tensor<3>, mask: &Tensor<2, Bool>) -> Tensor<3> {
        self.forward_to(Rows::All, x, mask)
    }

    fn forward_to(&self, rows: Rows, x: Tensor<3>, mask: &Tensor<2, Bool>) -> Tensor<3> {
        let context = self.context(mask);
        let layers = 0..self.layer.len();
        layers.fold(x, |x, index| {
            self.forward_layer(index, rows, x, &context, mask)
        })
    }

    /// One layer, the convolution beside the first with it, with these rows of the last.
    pub(crate) fn forward_layer(
        &self,
        index: usize,
        rows: Rows,
        x: Tensor<3>,
        context: &DebertaContext,
        mask: &Tensor<2, Bool>,
    ) -> Tensor<3> {
        let layer = &self.layer[index];
        match (&self.conv, rows.of(index, self.layer.len())) {
            // The convolution reads the neighbours of a token.
            (Some(conv), _) if index == 0 => {
                let output = layer.forward(x.clone(), context);
                conv.forward(x, output, mask)
            }
            (_, Rows::All) => layer.forward(x, context),
            (_, Rows::First) => layer.forward_first(x, context),
        }
    }

    /// What all layers share, made once.
    pub(crate) fn context(&self, mask: &Tensor<2, Bool>) -> DebertaContext {
        let [_, seq] = mask.dims();
        let embeddings = self.rel_embeddings.as_ref();
        let relative = embeddings
            .filter(|_| self.with_distances)
            .map(|embeddings| {
                let norm = self.layer_norm.as_ref();
                RelativePositions::new(embeddings, norm, &self.distances, seq, &mask.device())
            });
        DebertaContext {
            hidden: hidden_keys(mask),
            relative,
        }
    }
}
