//! Encoder of DeBERTa.

use super::{ConvLayer, DebertaContext, DisentangledAttention, Distances, RelativePositions};
use crate::ModelError;
use crate::added::{Added, LayerAdded};
use crate::config_keys::unsupported;
use crate::encoder::{
    Disentangled, Embeddings, EncoderConfig, EncoderFamily, Layer, Rows, padding_mask,
};
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::{Bool, Tensor};
use lora_core::{FusedLayout, FusedProjection, LayerNorm, LoraEmbedding};
use std::path::Path;

/// Encoder of DeBERTa, of any version.
#[derive(Module, Debug)]
pub struct DebertaModel {
    /// Embeddings of the input.
    pub embeddings: Embeddings,
    /// Encoder layers.
    pub encoder: DebertaEncoder,
    /// Virtual tokens before every text, and adapter layers.
    pub added: Added,
}

/// Sequence of encoder layers, with the embeddings of distances.
#[derive(Module, Debug)]
pub struct DebertaEncoder {
    /// Layers, first to last.
    pub layer: Vec<Layer<DisentangledAttention>>,
    /// Embeddings of distances, `[2 · span, hidden_size]`.
    pub rel_embeddings: Option<LoraEmbedding>,
    /// Layer norm of these embeddings; `LayerNorm` in Python.
    pub layer_norm: Option<LayerNorm>,
    /// Convolution beside the first layer.
    pub conv: Option<ConvLayer>,
    #[module(skip)]
    distances: Distances,
    /// True if scores depend on distances; a checkpoint may have embeddings that are not in use.
    with_distances: bool,
}

impl DebertaModel {
    /// Returns the projections that hold several matrices side by side.
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
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        path: &str,
    ) -> Result<Self, ModelError> {
        let options = config.disentangled.as_ref();
        let options = options.ok_or_else(|| {
            let expected = "the options of DeBERTa's attention";
            unsupported(Path::new("EncoderConfig"), "disentangled", "None", expected)
        })?;
        Ok(Self {
            embeddings: Embeddings::build(builder, config, &format!("{path}.embeddings"))?,
            encoder: DebertaEncoder::build(builder, config, options, &format!("{path}.encoder"))?,
            added: Added::none(),
        })
    }
}

impl DebertaEncoder {
    fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        options: &Disentangled,
        path: &str,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let distances = Distances::new(options);
        let name = |name: &str| format!("{path}.{name}");
        let layer = Layer::build_all(builder, config, &name("layer"), |builder, path| {
            DisentangledAttention::build(builder, config, options, path)
        })?;
        let rows = [distances.rows(), d];
        Ok(Self {
            layer,
            rel_embeddings: options
                .relative
                .then(|| builder.embedding(&name("rel_embeddings"), rows))
                .transpose()?,
            layer_norm: options
                .norm_embeddings
                .then(|| builder.norm(&name("layer_norm"), d, config.layer_norm_eps))
                .transpose()?,
            conv: options
                .conv
                .map(|conv| ConvLayer::build(builder, config, conv, &name("conv")))
                .transpose()?,
            distances,
            with_distances: options.terms.count() > 0,
        })
    }

    /// Runs one layer, and with the first the convolution beside it; the last layer computes only `rows`.
    pub(crate) fn forward_layer(
        &self,
        index: usize,
        rows: Rows,
        x: Tensor<3>,
        context: &DebertaContext,
        mask: &Tensor<2, Bool>,
        added: LayerAdded<'_>,
    ) -> Tensor<3> {
        let layer = &self.layer[index];
        match &self.conv {
            // The convolution reads the neighbours of a token.
            Some(conv) if index == 0 => {
                let output = layer.forward(Rows::All, x.clone(), context, added);
                conv.forward(x, output, mask)
            }
            _ => layer.forward(rows.for_layer(index, self.layer.len()), x, context, added),
        }
    }

    /// Builds the inputs shared by all layers; `keys` is the mask of all keys, those of virtual tokens included.
    pub(crate) fn context(&self, mask: &Tensor<2, Bool>, keys: &Tensor<2, Bool>) -> DebertaContext {
        let [_, seq] = mask.dims();
        let embeddings = self.rel_embeddings.as_ref();
        let relative = embeddings
            .filter(|_| self.with_distances)
            .map(|embeddings| {
                let norm = self.layer_norm.as_ref();
                RelativePositions::new(embeddings, norm, &self.distances, seq, &mask.device())
            });
        DebertaContext {
            padding_mask: padding_mask(keys),
            relative,
        }
    }
}
