//! Projections of the first version: a single matrix for queries, keys and values.

use super::heads::{Content, DistanceProjections};
use super::{DebertaContext, DisentangledHeads};
use crate::ModelError;
use crate::encoder::{Disentangled, EncoderConfig, SelfAttention};
use crate::prefix::PrefixLayer;
use crate::weights::LayerBuilder;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use lora_core::LoraLinear;

/// Attention of DeBERTa.
#[derive(Module, Debug)]
pub struct AttentionV1 {
    /// Query, key and value of the first head, then of the second and so on: `[hidden_size, 3 · hidden_size]`.
    pub in_proj: LoraLinear,
    /// Bias of the queries, `[hidden_size]`.
    pub q_bias: Param<Tensor<1>>,
    /// Bias of the values, `[hidden_size]`.
    pub v_bias: Param<Tensor<1>>,
    /// Key projection of distances, `[hidden_size, hidden_size]`.
    pub pos_proj: Option<LoraLinear>,
    /// Query projection of distances, `[hidden_size, hidden_size]`.
    pub pos_q_proj: Option<LoraLinear>,
    /// Attention after the projections.
    pub heads: DisentangledHeads,
}

impl AttentionV1 {
    pub(super) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        options: &Disentangled,
        path: &str,
    ) -> Result<Self, ModelError> {
        let d = config.hidden_size;
        let name = |name: &str| format!("{path}.{name}");
        let (c2p, p2c) = (options.terms.c2p, options.terms.p2c);
        Ok(Self {
            in_proj: builder.linear_without_bias(&name("in_proj"), [d, 3 * d])?,
            q_bias: builder.param(&name("q_bias"), [d])?,
            v_bias: builder.param(&name("v_bias"), [d])?,
            pos_proj: (options.relative && c2p)
                .then(|| builder.linear_without_bias(&name("pos_proj"), [d, d]))
                .transpose()?,
            pos_q_proj: (options.relative && p2c)
                .then(|| builder.linear(&name("pos_q_proj"), [d, d]))
                .transpose()?,
            heads: DisentangledHeads::new(config),
        })
    }
}

impl SelfAttention for AttentionV1 {
    type Context = DebertaContext;

    fn forward(
        &self,
        x: Tensor<3>,
        context: &DebertaContext,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let fused = self.heads.split(self.in_proj.forward(x)); // [batch, heads, seq, 3 * d_head]
        let [_, heads, _, width] = fused.dims();
        let d_head = width / 3;
        let part = |index: usize| fused.clone().narrow(3, index * d_head, d_head);
        let bias = |bias: &Param<Tensor<1>>| bias.val().reshape([1, heads, 1, d_head]);
        let content = Content {
            query: part(0) + bias(&self.q_bias),
            key: part(1),
            value: part(2) + bias(&self.v_bias),
        };
        let distances = DistanceProjections {
            key: self.pos_proj.as_ref(),
            query: self.pos_q_proj.as_ref(),
        };
        self.heads.forward(content, distances, context, prefix)
    }
}
