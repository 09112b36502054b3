//! Kinds of layers, and the path of an adapter in them.

use std::fmt;

/// Kind of layer that a weight matrix belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// `[d_in, d_out]`, multiplied with activations.
    Linear,
    /// `[vocabulary, dimension]`, looked up by index.
    Embedding,
}

/// Path of an adapter in the forward pass of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterPath {
    /// The layer is a [`LoraLinear`](crate::LoraLinear) or [`LoraEmbedding`](crate::LoraEmbedding):
    /// `x W + s (x A) B`, with no dense delta.
    Activation,
    /// Any other layer reads the weight, which Burn composes as `W + s A B` at every forward.
    Composed,
}

impl fmt::Display for AdapterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdapterPath::Activation => "activation",
            AdapterPath::Composed => "composed",
        })
    }
}
