//! BERT (Devlin et al. 2018), RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2019).
//!
//! One encoder for the three: they differ in where positions begin, in their heads and their
//! tokenizers, and these are options of [`EncoderConfig`](crate::encoder::EncoderConfig) and
//! [`Classifier`](crate::classifier::Classifier).
//!
//! # Injection targets
//! Names as in Hugging Face's files, behind `bert.` or `roberta.`; PEFT adapts `query` and `value` by
//! default.
//!
//! | path | what it is | shape |
//! | --- | --- | --- |
//! | `embeddings.word_embeddings` | embedding of tokens | `[vocab_size, d_model]` |
//! | `embeddings.position_embeddings` | embedding of positions | `[positions, d_model]` |
//! | `embeddings.token_type_embeddings` | embedding of segments | `[types, d_model]` |
//! | `encoder.layer.{i}.attention.self.query`, `.key`, `.value` | projections of the attention | `[d_model, d_model]` |
//! | `encoder.layer.{i}.attention.output.dense` | output of the attention | `[d_model, d_model]` |
//! | `encoder.layer.{i}.intermediate.dense` | into the perceptron | `[d_model, d_inner]` |
//! | `encoder.layer.{i}.output.dense` | out of it | `[d_inner, d_model]` |
//! | `pooler.dense` | BERT's pooler | `[d_model, d_model]` |
//!
//! Mind the suffixes: `output.dense` is both the attention's and the perceptron's, and `dense` is all of
//! them. `attention.output.dense` is the former alone.

mod attention;
mod model;

pub use attention::BertSelfAttention;
pub use model::{BertEncoder, BertModel};
