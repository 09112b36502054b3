//! State that all layers of a decoder share.

use super::rope::Angles;
use crate::lm::TextMask;

/// Mask of a batch, and the angles of its positions, built once for all layers.
#[derive(Clone, Debug, Default)]
pub struct DecoderShared {
    /// Padding, packed texts and virtual tokens.
    pub(super) mask: TextMask,
    /// Angles of each rotary position embedding of the model.
    pub(super) angles: Vec<Angles>,
}
