//! BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2019).
//!
//! The three share one encoder. They differ in their first position, their heads and their tokenizers, which are
//! options of [`EncoderConfig`](crate::encoder::EncoderConfig) and [`Classifier`](crate::classifier::Classifier).
//!
//! | concept | file |
//! | --- | --- |
//! | the encoder | `model.rs` |
//! | attention between all tokens | `attention.rs` |
//!
//! # Injection targets
//! Modules are named as in Hugging Face's files, after `bert.` or `roberta.`; PEFT adapts `query` and `value` by
//! default.
//!
//! | path | module | shape |
//! | --- | --- | --- |
//! | `embeddings.word_embeddings` | embedding of tokens | `[vocab_size, d_model]` |
//! | `embeddings.position_embeddings` | embedding of positions | `[positions, d_model]` |
//! | `embeddings.token_type_embeddings` | embedding of segments | `[types, d_model]` |
//! | `encoder.layer.{i}.attention.self.query`, `.key`, `.value` | projections of the attention | `[d_model, d_model]` |
//! | `encoder.layer.{i}.attention.output.dense` | output of the attention | `[d_model, d_model]` |
//! | `encoder.layer.{i}.intermediate.dense` | first layer of the MLP | `[d_model, d_inner]` |
//! | `encoder.layer.{i}.output.dense` | second layer of the MLP | `[d_inner, d_model]` |
//! | `pooler.dense` | BERT's pooler | `[d_model, d_model]` |
//!
//! Some suffixes match more than one module: `output.dense` matches the attention and the MLP, and `dense` matches all
//! of them. Only `attention.output.dense` is the attention's alone.

mod attention;
mod model;

pub use attention::BertSelfAttention;
pub use model::{BertEncoder, BertModel};
