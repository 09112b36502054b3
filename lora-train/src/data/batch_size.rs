//! Size of a batch, in examples or tokens.

/// Size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// Number of examples.
    Examples(usize),
    /// Maximum number of tokens, with each example padded to the length of the batch.
    PaddedTokens(usize),
    /// Maximum number of tokens without padding, for batches that are packed.
    PackedTokens(usize),
}

impl From<usize> for BatchSize {
    fn from(examples: usize) -> Self {
        Self::Examples(examples)
    }
}

impl BatchSize {
    /// Returns true if so many examples fit into a batch, with this sum of their tokens and this length of the longest.
    pub(super) fn holds(self, examples: usize, tokens: usize, longest: usize) -> bool {
        match self {
            Self::Examples(most) => examples <= most,
            Self::PaddedTokens(most) => examples.saturating_mul(longest) <= most,
            Self::PackedTokens(most) => tokens <= most,
        }
    }

    /// Estimates the number of examples of this mean length in a batch, at least 1.
    pub(super) fn examples(self, mean_length: usize) -> usize {
        match self {
            Self::Examples(examples) => examples,
            Self::PaddedTokens(most) | Self::PackedTokens(most) => most / mean_length.max(1),
        }
        .max(1)
    }
}
