//! Examples: tokenized records, with their targets.

use super::record::Origin;
use std::ops::Range;

/// Target of an example.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Tokens of the example from position `from` on, which is at least 1. A causal language model predicts each
    /// from the tokens before it.
    Tokens {
        /// First position to predict.
        from: usize,
    },
    /// Tokens of the example in these parts, in their order: as [`Tokens`](Self::Tokens), with tokens between that are not
    /// learned.
    Parts(Vec<Range<usize>>),
    /// Class of the whole.
    Class(usize),
    /// Classes of the whole, of which it has any number.
    Set(Vec<usize>),
    /// Score of the whole.
    Score(f64),
    /// Several scores of the whole.
    Scores(Vec<f64>),
    /// Class of each word of the record.
    Tags(Vec<usize>),
    /// No target: the example is for prediction.
    Unknown,
}

/// Tokenized record.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    index: usize,
    // Boxes, without spare room: a run holds all its examples.
    tokens: Box<[u32]>,
    type_ids: Box<[u32]>,
    words: Box<[Option<u32>]>,
    target: Target,
    weight: f64,
    adapter: Option<Box<str>>,
    origin: Origin,
}

impl Example {
    /// Creates an example of a causal language model, to learn its tokens from position `loss_from` on; `0` counts as
    /// `1`.
    ///
    /// `index` is its position in the list of examples.
    pub fn new(index: usize, tokens: Vec<u32>, loss_from: usize, origin: Origin) -> Self {
        let from = loss_from.max(1);
        let weight = tokens.len().saturating_sub(from) as f64;
        Self::with_target(index, tokens, Target::Tokens { from }, origin).with_weight(weight)
    }

    /// Creates an example of a causal language model, to learn the tokens in some parts of it. The parts are in order and do not
    /// touch the first token.
    ///
    /// `index` is its position in the list of examples.
    pub fn with_parts(
        index: usize,
        tokens: Vec<u32>,
        parts: Vec<Range<usize>>,
        origin: Origin,
    ) -> Self {
        let weight = parts.iter().map(Range::len).sum::<usize>() as f64;
        Self::with_target(index, tokens, Target::Parts(parts), origin).with_weight(weight)
    }

    /// Creates an example with a target. It has the weight 1, and type ids of 0 if the model asks for some.
    ///
    /// `index` is its position in the list of examples.
    pub fn with_target(index: usize, tokens: Vec<u32>, target: Target, origin: Origin) -> Self {
        Self {
            index,
            tokens: tokens.into(),
            type_ids: Box::default(),
            words: Box::default(),
            target,
            weight: 1.0,
            adapter: None,
            origin,
        }
    }

    /// Sets the type id of each token: the text of a pair that it belongs to, 0 or 1.
    #[must_use]
    pub fn with_type_ids(mut self, type_ids: Vec<u32>) -> Self {
        self.type_ids = type_ids.into();
        self
    }

    /// Sets, for each token, the index of the word that begins with it, if one does.
    #[must_use]
    pub fn with_words(mut self, words: Vec<Option<u32>>) -> Self {
        self.words = words.into();
        self
    }

    /// Sets the weight in the loss.
    #[must_use]
    pub fn with_weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the position in the list of examples.
    #[must_use]
    pub(crate) fn at(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// Sets the name of the adapter.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Option<&str>) -> Self {
        self.adapter = adapter.map(Into::into);
        self
    }

    /// Returns the position in the list of examples: the number that a
    /// [`BatchPlan`](super::BatchPlan) of that whole list uses.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the tokens, special ones included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Returns the type id of each token; empty if all are 0.
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Returns the words that begin at a token, each with the position of that token. Words that were cut off or have
    /// no token are not among them.
    pub fn words(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let words = self.words.iter().enumerate();
        words.filter_map(|(position, word)| Some((position, (*word)? as usize)))
    }

    /// Returns the class of each of the [words](Self::words), with the position of its first token.
    pub fn tags(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let tags = match &self.target {
            Target::Tags(tags) => tags.as_slice(),
            _ => &[],
        };
        self.words()
            .filter_map(move |(position, word)| Some((position, *tags.get(word)?)))
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Returns true if there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns the target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the parts of the tokens to predict, in their order; none for another target than tokens.
    pub fn learned(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let (one, several) = match &self.target {
            Target::Tokens { from } => (Some(*from..self.len().max(*from)), &[][..]),
            Target::Parts(parts) => (None, parts.as_slice()),
            _ => (None, &[][..]),
        };
        one.into_iter().chain(several.iter().cloned())
    }

    /// Returns the first position to predict, at least 1; the length if there is none.
    pub fn loss_from(&self) -> usize {
        self.learned().next().map_or(self.len(), |part| part.start)
    }

    /// Returns the number of tokens to predict.
    pub fn label_tokens(&self) -> usize {
        self.learned().map(|part| part.len()).sum()
    }

    /// Returns the example with its first tokens only, for a target of tokens: later ones have no effect on them.
    #[must_use]
    pub fn shortened(&self, length: usize) -> Self {
        let tokens = self.tokens[..length.min(self.len())].to_vec();
        let (index, origin) = (self.index, self.origin.clone());
        let shorter = match &self.target {
            Target::Tokens { from } => Self::new(index, tokens, *from, origin),
            _ => {
                let parts = self.learned().filter(|part| part.start < length);
                let parts = parts.map(|part| part.start..part.end.min(length)).collect();
                Self::with_parts(index, tokens, parts, origin)
            }
        };
        shorter.with_adapter(self.adapter())
    }

    /// Returns the weight in the loss: the number of tokens to predict, the weight of the class, or the sum of the
    /// weights of the tags.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns the name of the adapter, if the record names one.
    pub fn adapter(&self) -> Option<&str> {
        self.adapter.as_deref()
    }

    /// Returns the place where the record was read; for concatenated texts, that of the first token.
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

    #[test]
    fn parts_are_learned_and_cut() {
        let origin = Origin::new(Path::new("a.jsonl"), 3);
        let example = Example::with_parts(4, vec![5, 6, 7, 8, 9], vec![1..2, 3..5], origin);
        assert_eq!((example.loss_from(), example.label_tokens()), (1, 3));
        assert_eq!(example.weight(), 3.0);
        let shorter = example.shortened(4);
        assert_eq!(shorter.tokens(), [5, 6, 7, 8]);
        assert_eq!(shorter.target(), &Target::Parts(vec![1..2, 3..4]));
        assert_eq!((shorter.index(), shorter.weight()), (4, 2.0));
        assert_eq!(example.shortened(3).label_tokens(), 1);
    }

    #[test]
    fn a_tag_belongs_to_the_first_token_of_its_word() {
        let words = vec![None, Some(0), None, Some(2), None];
        let example = example(vec![1, 2, 3, 4, 5], 1);
        let example = Example {
            target: Target::Tags(vec![7, 8, 9]),
            ..example.with_words(words)
        };
        assert_eq!(example.words().collect::<Vec<_>>(), [(1, 0), (3, 2)]);
        assert_eq!(example.tags().collect::<Vec<_>>(), [(1, 7), (3, 9)]);
    }
}
