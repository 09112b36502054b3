//! Layers of transformers; linear layers and embeddings apply their adapters on the activation path.
//!
//! | file | contents |
//! | --- | --- |
//! | `linear` | [`LoraLinear`] |
//! | `embedding` | [`LoraEmbedding`] |
//! | `layer_norm` | [`LayerNorm`] |

mod embedding;
mod layer_norm;
mod linear;

pub use crate::ops::Dropout;
pub use embedding::{LoraEmbedding, LoraEmbeddingConfig};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{LoraLinear, LoraLinearConfig};
