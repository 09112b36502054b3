//! Attention of all DeBERTa versions.

use super::{AttentionV1, AttentionV2, DebertaContext};
use crate::ModelError;
use crate::encoder::{Disentangled, EncoderConfig, EncoderFamily, SelfAttention};
use crate::prefix::PrefixLayer;
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::Tensor;

/// Disentangled self-attention. The names of the variants are not part of module paths.
#[derive(Module, Debug)]
pub enum DisentangledAttention {
    /// Attention of DeBERTa.
    V1(AttentionV1),
    /// Attention of DeBERTa v2 and v3.
    V2(AttentionV2),
}

impl DisentangledAttention {
    pub(super) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        options: &Disentangled,
        path: &str,
    ) -> Result<Self, ModelError> {
        Ok(match config.family {
            EncoderFamily::Deberta => {
                let path = format!("{path}.V1");
                Self::V1(AttentionV1::build(builder, config, options, &path)?)
            }
            _ => {
                let path = format!("{path}.V2");
                Self::V2(AttentionV2::build(builder, config, options, &path)?)
            }
        })
    }
}

impl SelfAttention for DisentangledAttention {
    type Context = DebertaContext;

    fn forward(
        &self,
        x: Tensor<3>,
        context: &DebertaContext,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        match self {
            Self::V1(attention) => attention.forward(x, context, prefix),
            Self::V2(attention) => attention.forward(x, context, prefix),
        }
    }
}
