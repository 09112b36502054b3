//! Projections of the second version and of DeBERTaV3: a matrix each.

use super::heads::{Content, OfDistances};
use super::{DebertaContext, DisentangledHeads};
use crate::ModelError;
use crate::encoder::{Disentangled, EncoderConfig, PositionTerms, SelfAttention};
use crate::weights::Maker;
use burn::module::Module;
use burn::tensor::Tensor;
use lora_core::LoraLinear;

/// DeBERTa v2's and v3's attention.
#[derive(Module, Debug)]
pub struct AttentionV2 {
    /// `[hidden_size, hidden_size]`.
    pub query_proj: LoraLinear,
    /// `[hidden_size, hidden_size]`.
    pub key_proj: LoraLinear,
    /// `[hidden_size, hidden_size]`.
    pub value_proj: LoraLinear,
    /// Keys of distances, `[hidden_size, hidden_size]`, unless `key_proj` makes them.
    pub pos_key_proj: Option<LoraLinear>,
    /// Queries of distances, `[hidden_size, hidden_size]`, unless `query_proj` makes them.
    pub pos_query_proj: Option<LoraLinear>,
    /// What comes behind the projections.
    pub heads: DisentangledHeads,
    #[module(skip)]
    terms: PositionTerms,
}

impl AttentionV2 {
    pub(super) fn build(
        maker: &mut Maker<'_>,
        config: &EncoderConfig,
        options: &Disentangled,
        path: &str,
    ) -> Result<Self, ModelError> {
        let square = [config.hidden_size; 2];
        let terms = options.terms;
        let own = options.relative && !options.share_att_key;
        let mut linear = |name: &str| maker.linear(&format!("{path}.{name}"), square);
        Ok(Self {
            query_proj: linear("query_proj")?,
            key_proj: linear("key_proj")?,
            value_proj: linear("value_proj")?,
            pos_key_proj: match own && terms.c2p {
                true => Some(linear("pos_key_proj")?),
                false => None,
            },
            pos_query_proj: match own && terms.p2c {
                true => Some(linear("pos_query_proj")?),
                false => None,
            },
            heads: DisentangledHeads::new(config),
            terms,
        })
    }
}

impl SelfAttention for AttentionV2 {
    type Context = DebertaContext;

    fn forward(&self, x: Tensor<3>, context: &DebertaContext) -> Tensor<3> {
        let content = Content {
            query: self.heads.split(self.query_proj.forward(x.clone())),
            key: self.heads.split(self.key_proj.forward(x.clone())),
            value: self.heads.split(self.value_proj.forward(x)),
        };
        let key = self.pos_key_proj.as_ref().unwrap_or(&self.key_proj);
        let query = self.pos_query_proj.as_ref().unwrap_or(&self.query_proj);
        let distances = OfDistances {
            key: self.terms.c2p.then_some(key),
            query: self.terms.p2c.then_some(query),
        };
        self.heads.forward(content, distances, context)
    }
}
