//! Parts common to all encoders: configuration, embeddings, the layer around an attention.
//!
//! | concept | file |
//! | --- | --- |
//! | [`EncoderConfig`]: sizes and options of any encoder | `config.rs` |
//! | [`HeadedDecoder`]: configuration of a decoder in place of an encoder | `decoder.rs` |
//! | reader for `config.json`, and its checks | `config_file.rs`, `config_check.rs` |
//! | [`HeadKind`] by class and task; [`Labels`]: names of a head's outputs | `head_kind.rs`, `labels.rs` |
//! | [`Embeddings`] of tokens, positions and segments | `embeddings.rs` |
//! | [`Layer`]: attention, then an MLP, each added and normalized | `layer.rs` |

mod config;
mod config_check;
mod config_file;
mod decoder;
mod embeddings;
mod head_kind;
mod labels;
mod layer;

pub use config::{Disentangled, EncoderConfig, EncoderFamily, PositionTerms, RelativeConv};
pub use decoder::HeadedDecoder;
pub use embeddings::Embeddings;
pub(crate) use embeddings::VirtualRows;
pub use head_kind::HeadKind;
pub use labels::Labels;
pub(crate) use layer::padding_mask;
pub use layer::{Attention, Intermediate, Layer, Residual, Rows, SelfAttention};
