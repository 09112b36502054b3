//! Examples side by side, padded to one length, or one behind another: what a step is given.

use super::example::Example;
use super::record::Origin;
use super::sample::{Sample, SampleBatch};
use lora_core::ops::Segments;

/// The label of a position that nothing is learned from, as in PyTorch and Hugging Face.
pub const IGNORE_INDEX: i64 = -100;

/// A batch of examples: a row each, padded at the right to the longest of them, or all packed into one row.
///
/// The matrices are `[batch, seq]` in row-major order. A label is the token at its own position;
/// the loss compares it with the logits of the position before in the same example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The tokens, `[batch, seq]`.
    pub input_ids: Vec<i64>,
    /// Whether a position holds a token rather than padding, `[batch, seq]`.
    pub attention_mask: Vec<bool>,
    /// The token to predict at a position, or [`IGNORE_INDEX`], `[batch, seq]`. The first token of an
    /// example is always ignored.
    pub labels: Vec<i64>,
    /// The number of rows.
    pub batch: usize,
    /// The length of a row.
    pub seq: usize,
    /// The examples that the one row is packed of, if it is.
    pub segments: Option<Segments>,
    /// The number of labels that are not ignored: what the loss is averaged over.
    pub label_tokens: usize,
    /// The number of tokens that are not padding.
    pub tokens: usize,
    /// The index of each example, as [`Example::index`] gives it.
    pub indices: Vec<usize>,
    /// Where each example was read.
    pub origins: Vec<Origin>,
}

impl SampleBatch for Batch {
    fn weight(&self) -> f64 {
        self.label_tokens as f64
    }

    fn counted_tokens(&self) -> usize {
        self.label_tokens
    }

    fn describe(&self) -> String {
        let longest = match &self.segments {
            None => self.seq,
            Some(segments) => segments.lengths().iter().copied().max().unwrap_or(0),
        };
        describe(self.origins.len(), longest, &self.origins)
    }
}

impl Sample for Example {
    type Batch = Batch;

    fn length(&self) -> usize {
        self.tokens().len()
    }

    fn collate(samples: &[&Self], pad_id: u32) -> Batch {
        collate(samples, pad_id)
    }
}

/// What is in a batch and where it was read.
pub(super) fn describe(batch: usize, seq: usize, origins: &[Origin]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<String> = origins
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect();
    let more = origins.len() - shown.len();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    format!(
        "a batch of {batch} examples and up to {seq} tokens ({})",
        shown.join(", ")
    )
}

/// Puts examples side by side. What pads the shorter ones, `pad_id`, is neither attended to nor
/// learned, so any token will do where a model has none for it.
///
/// # Examples
/// ```
/// use lora_train::data::{Example, IGNORE_INDEX, Origin, collate};
/// use std::path::Path;
///
/// let origin = Origin::new(Path::new("train.jsonl"), 1);
/// let long = Example::new(0, vec![5, 6, 7], 2, origin.clone());
/// let short = Example::new(1, vec![8, 9], 1, origin);
/// let batch = collate(&[&long, &short], 0);
///
/// assert_eq!((batch.batch, batch.seq), (2, 3));
/// assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 0]);
/// assert_eq!(batch.attention_mask, [true, true, true, true, true, false]);
/// let none = IGNORE_INDEX;
/// assert_eq!(batch.labels, [none, none, 7, none, 9, none]);
/// assert_eq!(batch.label_tokens, 2);
/// ```
pub fn collate(examples: &[&Example], pad_id: u32) -> Batch {
    let seq = examples.iter().map(|e| e.len()).max().unwrap_or(0);
    let mut batch = Batch::empty(examples.len(), seq);
    for (row, example) in examples.iter().enumerate() {
        batch.push(example);
        let row_end = (row + 1) * seq;
        batch.input_ids.resize(row_end, i64::from(pad_id));
        batch.attention_mask.resize(row_end, false);
        batch.labels.resize(row_end, IGNORE_INDEX);
    }
    batch
}

/// Puts examples one behind another in one row, without padding: what is learned of them is what [`collate`] makes of them,
/// as no example sees another.
///
/// # Panics
/// If there is no example, or one without a token.
///
/// # Examples
/// ```
/// use lora_train::data::{Example, IGNORE_INDEX, Origin, pack};
/// use std::path::Path;
///
/// let origin = Origin::new(Path::new("train.jsonl"), 1);
/// let long = Example::new(0, vec![5, 6, 7], 2, origin.clone());
/// let short = Example::new(1, vec![8, 9], 1, origin);
/// let batch = pack(&[&long, &short]);
///
/// assert_eq!((batch.batch, batch.seq), (1, 5));
/// assert_eq!(batch.input_ids, [5, 6, 7, 8, 9]);
/// let none = IGNORE_INDEX;
/// assert_eq!(batch.labels, [none, none, 7, none, 9]);
/// assert_eq!(batch.segments.unwrap().lengths(), [3, 2]);
/// ```
pub fn pack(examples: &[&Example]) -> Batch {
    let lengths: Vec<usize> = examples.iter().map(|e| e.len()).collect();
    let segments = Segments::new(lengths);
    let mut batch = Batch::empty(1, segments.tokens());
    batch.segments = Some(segments);
    for example in examples {
        batch.push(example);
    }
    batch
}

impl Batch {
    /// With room for rows of this length.
    fn empty(batch: usize, seq: usize) -> Self {
        let cells = batch * seq;
        Self {
            input_ids: Vec::with_capacity(cells),
            attention_mask: Vec::with_capacity(cells),
            labels: Vec::with_capacity(cells),
            batch,
            seq,
            segments: None,
            label_tokens: 0,
            tokens: 0,
            indices: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// Appends the tokens of an example.
    fn push(&mut self, example: &Example) {
        for (position, &token) in example.tokens().iter().enumerate() {
            let token = i64::from(token);
            let learned = position >= example.loss_from();
            self.input_ids.push(token);
            self.attention_mask.push(true);
            self.labels.push(if learned { token } else { IGNORE_INDEX });
        }
        self.label_tokens += example.label_tokens();
        self.tokens += example.len();
        self.indices.push(example.index());
        self.origins.push(example.origin().clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const NONE: i64 = IGNORE_INDEX;

    fn example(index: usize, tokens: &[u32], loss_from: usize) -> Example {
        let origin = Origin::new(Path::new("a.jsonl"), index + 1);
        Example::new(index, tokens.to_vec(), loss_from, origin)
    }

    #[test]
    fn shorter_examples_are_padded_at_the_right_and_padding_is_masked_and_unlabelled() {
        let examples = [
            example(3, &[10, 11], 1),
            example(7, &[20, 21, 22, 23], 2),
            example(5, &[30, 31, 32], 1),
        ];
        let batch = collate(&examples.iter().collect::<Vec<_>>(), 1);
        assert_eq!((batch.batch, batch.seq), (3, 4));
        assert_eq!(
            batch.input_ids,
            [10, 11, 1, 1, 20, 21, 22, 23, 30, 31, 32, 1]
        );
        let labels = [
            [NONE, 11, NONE, NONE],
            [NONE, NONE, 22, 23],
            [NONE, 31, 32, NONE],
        ];
        assert_eq!(batch.labels, labels.concat());
        let mask: Vec<u8> = batch.attention_mask.iter().map(|&m| m.into()).collect();
        assert_eq!(mask, [1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(batch.tokens, 9);
        assert_eq!(batch.label_tokens, 5);
        assert_eq!(batch.indices, [3, 7, 5]);
    }

    #[test]
    fn the_count_of_label_tokens_is_the_count_of_labels_after_the_first_column() {
        let examples = [example(0, &[4, 4, 4], 0), example(1, &[4], 0)];
        let batch = collate(&examples.iter().collect::<Vec<_>>(), 4);
        let labels = batch.labels.iter().filter(|label| **label != NONE).count();
        assert_eq!(batch.label_tokens, labels);
        assert!(batch.labels.iter().step_by(batch.seq).all(|l| *l == NONE));
    }

    #[test]
    fn packed_examples_have_no_padding_and_the_first_token_of_each_is_not_learned() {
        let examples = [
            example(3, &[10, 11], 0),
            example(7, &[20], 0),
            example(5, &[30, 31, 32], 2),
        ];
        let examples: Vec<&Example> = examples.iter().collect();
        let batch = pack(&examples);
        assert_eq!((batch.batch, batch.seq, batch.tokens), (1, 6, 6));
        assert_eq!(batch.input_ids, [10, 11, 20, 30, 31, 32]);
        assert_eq!(batch.attention_mask, [true; 6]);
        assert_eq!(batch.labels, [NONE, 11, NONE, NONE, NONE, 32]);
        assert_eq!(batch.label_tokens, collate(&examples, 0).label_tokens);
        assert_eq!(batch.segments.as_ref().unwrap().lengths(), [2, 1, 3]);
        assert_eq!(batch.indices, [3, 7, 5]);
        let text = batch.describe();
        assert!(text.contains("of 3 examples and up to 3 tokens"), "{text}");
    }

    #[test]
    fn a_batch_of_nothing_is_empty() {
        let batch = collate(&[], 0);
        assert_eq!((batch.batch, batch.seq, batch.tokens), (0, 0, 0));
        assert!(batch.input_ids.is_empty());
    }

    #[test]
    fn a_description_names_the_first_lines_and_counts_the_others() {
        let examples: Vec<Example> = (0..10).map(|i| example(i, &[1, 2, 3], 1)).collect();
        let text = collate(&examples.iter().collect::<Vec<_>>(), 0).describe();
        assert!(
            text.starts_with("a batch of 10 examples and up to 3 tokens (a.jsonl:1, a.jsonl:2"),
            "{text}"
        );
        assert!(text.ends_with("a.jsonl:8, 2 more)"), "{text}");
    }
}
