//! How much goes into a batch: examples, or tokens.

/// How much goes into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// This many examples.
    Examples(usize),
    /// As many examples as have together, each padded to the longest of them, no more than this many tokens.
    PaddedTokens(usize),
    /// As many examples as have together, without padding, no more than this many tokens: for batches that are packed.
    PackedTokens(usize),
}

impl From<usize> for BatchSize {
    fn from(examples: usize) -> Self {
        Self::Examples(examples)
    }
}

impl BatchSize {
    /// Whether examples of these lengths fit into a batch; the tokens together and the longest say enough.
    pub(super) fn holds(self, examples: usize, tokens: usize, longest: usize) -> bool {
        match self {
            Self::Examples(most) => examples <= most,
            Self::PaddedTokens(most) => examples.saturating_mul(longest) <= most,
            Self::PackedTokens(most) => tokens <= most,
        }
    }

    /// About how many examples of this mean length are in a batch, at least 1.
    pub(super) fn examples(self, mean_length: usize) -> usize {
        match self {
            Self::Examples(examples) => examples,
            Self::PaddedTokens(most) | Self::PackedTokens(most) => most / mean_length.max(1),
        }
        .max(1)
    }
}
