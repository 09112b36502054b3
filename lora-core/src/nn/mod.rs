//! Layers of transformers; linear layers and embeddings apply their adapters on the activation path.
//!
//! | file | contents |
//! | --- | --- |
//! | `linear` | [`LoraLinear`] |
//! | `embedding` | [`LoraEmbedding`] |
//! | `layer_norm` | [`LayerNorm`] |
//! | `rms_norm` | [`RmsNorm`] |

mod embedding;
mod layer_norm;
mod linear;
mod rms_norm;

pub use crate::ops::Dropout;
pub use embedding::{LoraEmbedding, LoraEmbeddingConfig};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{LoraLinear, LoraLinearConfig};
pub use rms_norm::{RmsNorm, RmsNormConfig, RmsScale};
