//! Layers that read their adapters on the activation path, and the others that transformers are made of.

mod embedding;
mod layer_norm;
mod linear;

pub use crate::ops::Dropout;
pub use embedding::{LoraEmbedding, LoraEmbeddingConfig};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{LoraLinear, LoraLinearConfig};
