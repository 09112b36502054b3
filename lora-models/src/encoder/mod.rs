//! What encoders share: configuration, embeddings, the layer around an attention.
//!
//! | concept | file |
//! | --- | --- |
//! | [`EncoderConfig`]: sizes and options of any encoder | `config.rs` |
//! | `config.json`, mirrored and checked | `config_file.rs` |
//! | [`Labels`]: what a head's outputs are called | `labels.rs` |
//! | [`Embeddings`] of tokens, positions and segments | `embeddings.rs` |
//! | [`Layer`]: attention, then a perceptron, each added and normalised | `layer.rs` |

mod config;
mod config_file;
mod embeddings;
mod labels;
mod layer;

pub use config::{Disentangled, EncoderConfig, EncoderFamily, PositionTerms, RelativeConv};
pub use embeddings::Embeddings;
pub use labels::Labels;
pub use layer::{Attention, Intermediate, Layer, Residual, SelfAttention};
pub(crate) use layer::{Rows, hidden_keys};
