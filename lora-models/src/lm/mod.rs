//! Parts that all families of language models share.
//!
//! | concept | file |
//! | --- | --- |
//! | masks of padding and packed texts; the cache of a layer | `mask.rs` |
//! | output layer, tied to the embedding of tokens or not: logits, loss, adapters, vocabulary | `head.rs` |
//! | loading and exporting with a tied output layer | `files.rs` |
//! | ids of tokens in a configuration | `token_ids.rs` |

mod files;
mod head;
mod mask;
mod token_ids;

pub(crate) use files::{LanguageModelFiles, without_tied_head};
pub(crate) use head::Ends;
pub use mask::TextMask;
pub(crate) use mask::{Past, extend_by_prefix, padding_bias};
pub(crate) use token_ids::TokenIds;
