//! A tokenised example: what is fed to the model, and from where on it is learned.

use super::record::Origin;

/// A sequence of tokens of which a tail, often all but the first, is learned.
///
/// A causal language model predicts each token from those before it, so the label at a position is
/// the token at that same position, and the first token never has one. The loss shifts the logits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    index: usize,
    tokens: Vec<u32>,
    loss_from: usize,
    origin: Origin,
}

impl Example {
    /// An example whose tokens from position `loss_from` on are learned; `0` counts as `1`.
    ///
    /// `index` is its position in the list of examples that it is made in.
    pub fn new(index: usize, tokens: Vec<u32>, loss_from: usize, origin: Origin) -> Self {
        Self {
            index,
            tokens,
            loss_from: loss_from.max(1),
            origin,
        }
    }

    /// Its position in the list of examples that it was made in: the number a
    /// [`BatchPlan`](super::BatchPlan) of that whole list calls it by.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The first position that has a label; at least 1.
    pub fn loss_from(&self) -> usize {
        self.loss_from
    }

    /// The number of tokens that have a label.
    pub fn label_tokens(&self) -> usize {
        self.tokens.len().saturating_sub(self.loss_from)
    }

    /// Where the example was read; of packed text, where its first token was.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn example(tokens: Vec<u32>, loss_from: usize) -> Example {
        Example::new(0, tokens, loss_from, Origin::new(Path::new("a.txt"), 1))
    }

    #[test]
    fn the_first_token_never_has_a_label() {
        let example = example(vec![5, 6, 7], 0);
        assert_eq!(example.loss_from(), 1);
        assert_eq!(example.label_tokens(), 2);
    }

    #[test]
    fn labels_are_counted_to_the_end_and_never_below_none() {
        assert_eq!(example(vec![5, 6, 7], 2).label_tokens(), 1);
        assert_eq!(example(vec![5, 6, 7], 9).label_tokens(), 0);
        assert_eq!(example(vec![], 0).label_tokens(), 0);
    }
}
