//! Names of the tensors in PEFT's files.

use crate::layout::LayerKind::{self, Embedding, Linear};

/// Prefix of every tensor name of a PEFT adapter.
pub const PREFIX: &str = "base_model.model.";

/// Role of a tensor within an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TensorRole {
    /// `Aᵀ` `[r, d_in]`.
    A,
    /// `Bᵀ` `[d_out, r]`.
    B,
    /// DoRA's magnitude `[d_out]`.
    Magnitude,
    /// The bias on `B`, `[d_out]`.
    Bias,
}

/// Suffixes of PEFT's tensor names, with the kind of layer where the name says it.
const SUFFIXES: [(&str, TensorRole, Option<LayerKind>); 6] = [
    (".lora_A.weight", TensorRole::A, Some(Linear)),
    (".lora_B.weight", TensorRole::B, Some(Linear)),
    (".lora_embedding_A", TensorRole::A, Some(Embedding)),
    (".lora_embedding_B", TensorRole::B, Some(Embedding)),
    (".lora_magnitude_vector", TensorRole::Magnitude, None),
    (".lora_B.bias", TensorRole::Bias, None),
];

/// Returns the name, with PEFT's prefix, of a tensor of a module's adapter.
pub(crate) fn tensor_name(module: &str, role: TensorRole, kind: LayerKind) -> String {
    let mut suffixes = SUFFIXES.iter();
    let suffix = suffixes.find(|suffix| suffix.1 == role && suffix.2.is_none_or(|k| k == kind));
    format!("{PREFIX}{module}{}", suffix.map_or("", |suffix| suffix.0))
}

/// Splits a name without PEFT's prefix into the module and the role of the tensor, with the kind of layer where the name
/// says it; `None` if the tensor is no part of a low-rank adapter.
pub fn split_name(name: &str) -> Option<(&str, TensorRole, Option<LayerKind>)> {
    SUFFIXES
        .iter()
        .find_map(|&(suffix, role, kind)| Some((name.strip_suffix(suffix)?, role, kind)))
}
