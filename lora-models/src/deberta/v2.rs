//! Projections of the second version and of DeBERTaV3: separate matrices for queries, keys and values.

use super::heads::{Content, DistanceProjections};
use super::{DebertaContext, DisentangledHeads};
use crate::ModelError;
use crate::encoder::{Disentangled, EncoderConfig, PositionTerms, SelfAttention};
use crate::prefix::PrefixLayer;
use crate::weights::LayerBuilder;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::LoraLinear;

/// Attention of DeBERTa v2 and v3.
#[derive(Module, Debug)]
pub struct AttentionV2 {
    /// Query projection, `[hidden_size, hidden_size]`.
    pub query_proj: LoraLinear,
    /// Key projection, `[hidden_size, hidden_size]`.
    pub key_proj: LoraLinear,
    /// Value projection, `[hidden_size, hidden_size]`.
    pub value_proj: LoraLinear,
    /// Key projection of distances, `[hidden_size, hidden_size]`, unless `key_proj` is shared.
    pub pos_key_proj: Option<LoraLinear>,
    /// Query projection of distances, `[hidden_size, hidden_size]`, unless `query_proj` is shared.
    pub pos_query_proj: Option<LoraLinear>,
    /// Attention after the projections.
    pub heads: DisentangledHeads,
    #[module(skip)]
    terms: PositionTerms,
}

impl AttentionV2 {
    pub(super) fn build(
        builder: &mut LayerBuilder<'_>,
        config: &EncoderConfig,
        options: &Disentangled,
        path: &str,
    ) -> Result<Self, ModelError> {
        let square = [config.hidden_size; 2];
        let terms = options.terms;
        let own = options.relative && !options.share_att_key;
        let mut linear = |name: &str| builder.linear(&format!("{path}.{name}"), square);
        Ok(Self {
            query_proj: linear("query_proj")?,
            key_proj: linear("key_proj")?,
            value_proj: linear("value_proj")?,
            pos_key_proj: (own && terms.c2p)
                .then(|| linear("pos_key_proj"))
                .transpose()?,
            pos_query_proj: (own && terms.p2c)
                .then(|| linear("pos_query_proj"))
                .transpose()?,
            heads: DisentangledHeads::new(config),
            terms,
        })
    }
}

impl SelfAttention for AttentionV2 {
    type Context = DebertaContext;

    fn forward(
        &self,
        x: Tensor<3>,
        context: &DebertaContext,
        prefix: Option<&PrefixLayer>,
    ) -> Tensor<3> {
        let content = Content {
            query: self.heads.split(self.query_proj.forward(x.clone())),
            key: self.heads.split(self.key_proj.forward(x.clone())),
            value: self.heads.split(self.value_proj.forward(x)),
        };
        let key = self.pos_key_proj.as_ref().unwrap_or(&self.key_proj);
        let query = self.pos_query_proj.as_ref().unwrap_or(&self.query_proj);
        let distances = DistanceProjections {
            key: self.terms.c2p.then_some(key),
            query: self.terms.p2c.then_some(query),
        };
        self.heads.forward(content, distances, context, prefix)
    }
}
