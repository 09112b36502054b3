//! DeBERTa (He et al. 2020, *DeBERTa: Decoding-enhanced BERT with Disentangled Attention*), its second
//! version and DeBERTaV3 (He et al. 2021).
//!
//! The attention of a token to another depends on content and distance separately: besides the content-to-content term
//! there are a content-to-position term, `c2p`, and a position-to-content term, `p2c`. The versions differ in the
//! projections, in the embeddings of distances (logarithmic buckets and a norm in the second) and in a convolution
//! beside the first layer; the arithmetic of the attention is the same.
//!
//! | concept | file |
//! | --- | --- |
//! | [`DebertaModel`], [`DebertaEncoder`] | `model.rs` |
//! | [`Distances`]: mapping from distances to embeddings | `distances.rs` |
//! | [`RelativePositions`]: embeddings of distances for a sequence length, [`DebertaContext`] | `relative.rs` |
//! | [`DisentangledAttention`]: attention of either version | `attention.rs` |
//! | [`AttentionV1`], [`AttentionV2`]: their projections | `v1.rs`, `v2.rs` |
//! | [`DisentangledHeads`]: from projections to the output | `heads.rs` |
//! | [`ConvLayer`]: the convolution | `conv.rs` |
//!
//! # Injection targets
//! Modules are named as in Hugging Face's files, after `deberta.`. PEFT adapts `in_proj` by default in the first
//! version, `query_proj` and `value_proj` in the second and third.
//!
//! | path | module | shape |
//! | --- | --- | --- |
//! | `embeddings.word_embeddings` | embedding of tokens | `[vocab_size, d_embedding]` |
//! | `embeddings.position_embeddings` | embedding of positions, with `position_biased_input` | `[positions, d_embedding]` |
//! | `embeddings.token_type_embeddings` | embedding of segments, if there are any | `[types, d_embedding]` |
//! | `embeddings.embed_proj` | projection to the width of the model, if that differs | `[d_embedding, d_model]` |
//! | `encoder.rel_embeddings` | embedding of distances | `[2 · span, d_model]` |
//! | `encoder.layer.{i}.attention.output.dense` | output of the attention | `[d_model, d_model]` |
//! | `encoder.layer.{i}.intermediate.dense` | first layer of the MLP | `[d_model, d_inner]` |
//! | `encoder.layer.{i}.output.dense` | second layer of the MLP | `[d_inner, d_model]` |
//! | `pooler.dense` | the pooler | `[d_model, d_model]` |
//!
//! Projections in the attention of the first version, `encoder.layer.{i}.attention.self`:
//!
//! | path | module | shape |
//! | --- | --- | --- |
//! | `in_proj` | queries, keys and values of one head after the other; `in_proj[q,v]` names slices | `[d_model, 3 · d_model]` |
//! | `pos_proj` | keys of distances, with `c2p` | `[d_model, d_model]` |
//! | `pos_q_proj` | queries of distances, with `p2c` | `[d_model, d_model]` |
//!
//! Projections of the second and third:
//!
//! | path | module | shape |
//! | --- | --- | --- |
//! | `query_proj`, `key_proj`, `value_proj` | projections; with `share_att_key` the first two also project distances | `[d_model, d_model]` |
//! | `pos_key_proj` | keys of distances, with `c2p` and without `share_att_key` | `[d_model, d_model]` |
//! | `pos_query_proj` | queries of distances, with `p2c` and without `share_att_key` | `[d_model, d_model]` |
//!
//! An adapter on `encoder.rel_embeddings` takes part in the forward pass. In transformers it does not, because the
//! weight is read directly from the layer that PEFT wraps.

mod attention;
mod conv;
mod distances;
mod heads;
mod model;
mod relative;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use attention::DisentangledAttention;
pub use conv::{Conv, ConvLayer};
pub use distances::Distances;
pub use heads::DisentangledHeads;
pub use model::{DebertaEncoder, DebertaModel};
pub use relative::{DebertaContext, RelativePositions};
pub use v1::AttentionV1;
pub use v2::AttentionV2;
