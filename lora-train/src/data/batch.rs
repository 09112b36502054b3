//! Batches: examples padded to one length, or packed one after another into one row, with their targets.

use super::example::Example;
use super::padding::Padding;
use super::record::Origin;
use super::sample::{Sample, SampleBatch};
use super::targets::Targets;
use lora_core::ops::Segments;

/// Batch of examples: a row for each, padded at the right to one length, or all packed into one row.
///
/// The matrices are `[batch, seq]` in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Tokens, `[batch, seq]`.
    pub input_ids: Vec<i64>,
    /// Type ids, `[batch, seq]`; empty if no example has any.
    pub type_ids: Vec<i64>,
    /// True for a token, false for padding, `[batch, seq]`.
    pub attention_mask: Vec<bool>,
    /// Targets of the examples.
    pub targets: Targets,
    /// Number of rows.
    pub batch: usize,
    /// Length of a row.
    pub seq: usize,
    /// Lengths of the examples that are packed into the one row, if they are.
    pub segments: Option<Segments>,
    /// Divisor of the summed loss: the sum of the examples' weights.
    pub weight: f64,
    /// Number of tokens without padding.
    pub tokens: usize,
    /// Index of each example, from [`Example::index`].
    pub indices: Vec<usize>,
    /// Place where each example was read.
    pub origins: Vec<Origin>,
}

impl SampleBatch for Batch {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn counted_tokens(&self) -> usize {
        match &self.targets {
            Targets::Tokens(targets) => targets.rows.len(),
            _ => self.tokens,
        }
    }

    fn describe(&self) -> String {
        const SHOWN: usize = 8;
        let longest = match &self.segments {
            None => {
                let rows = self.attention_mask.chunks(self.seq.max(1));
                let lengths = rows.map(|row| row.iter().filter(|&&token| token).count());
                lengths.max().unwrap_or(0)
            }
            Some(segments) => segments.lengths().iter().copied().max().unwrap_or(0),
        };
        let origins = self.origins.iter().take(SHOWN);
        let mut shown: Vec<String> = origins.map(ToString::to_string).collect();
        let more = self.origins.len() - shown.len();
        if more > 0 {
            shown.push(format!("{more} more"));
        }
        format!(
            "a batch of {} examples and up to {longest} tokens ({})",
            self.origins.len(),
            shown.join(", ")
        )
    }
}

impl Sample for Example {
    type Batch = Batch;

    fn length(&self) -> usize {
        self.len()
    }

    fn collate(samples: &[&Self], padding: Padding) -> Batch {
        collate(samples, padding)
    }
}

/// Collates examples into a batch, one row each. Padding, such as its token's id, is neither attended to nor
/// learned, so any token will do where a model has none for it.
///
/// # Examples
/// ```
/// use lora_train::data::{Example, Origin, Target, Targets, collate};
/// use std::path::Path;
///
/// let origin = Origin::new(Path::new("train.jsonl"), 1);
/// let long = Example::new(0, vec![5, 6, 7], 2, origin.clone());
/// let short = Example::new(1, vec![8, 9], 1, origin.clone());
/// let batch = collate(&[&long, &short], 0);
///
/// assert_eq!((batch.batch, batch.seq), (2, 3));
/// assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 0]);
/// assert_eq!(batch.attention_mask, [true, true, true, true, true, false]);
/// // 7 is predicted at the position of 6, and 9 at that of 8.
/// assert_eq!(batch.targets.classes().rows, [1, 3]);
/// assert_eq!(batch.targets.classes().classes, [7, 9]);
/// assert_eq!(batch.weight, 2.0);
///
/// let class = |tokens: &[u32], class| {
///     Example::with_target(0, tokens.to_vec(), Target::Class(class), origin.clone())
/// };
/// let batch = collate(&[&class(&[5, 6, 7], 2), &class(&[8, 9], 0)], 1);
/// assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 1]);
/// assert_eq!(batch.targets.classes().rows, [0, 1]);
/// assert_eq!(batch.targets.classes().classes, [2, 0]);
/// ```
pub fn collate(examples: &[&Example], padding: impl Into<Padding>) -> Batch {
    let padding = padding.into();
    let longest = examples.iter().map(|e| e.len()).max().unwrap_or(0);
    let seq = padding.length(longest);
    let mut batch = Batch::empty(examples, examples.len(), seq);
    let has_types = examples.iter().any(|e| !e.type_ids().is_empty());
    for (row, example) in examples.iter().enumerate() {
        batch.push(example);
        let end = (row + 1) * seq;
        batch.input_ids.resize(end, i64::from(padding.id()));
        batch.attention_mask.resize(end, false);
        if has_types {
            let types = example.type_ids().iter().map(|&id| i64::from(id));
            batch.type_ids.extend(types);
            batch.type_ids.resize(end, 0);
        }
    }
    batch
}

/// Packs examples one after another into one row, without padding. The loss is that of [`collate`],
/// as no example attends to another.
///
/// # Panics
/// If there is no example, or one without a token.
///
/// # Examples
/// ```
/// use lora_train::data::{Example, Origin, pack};
/// use std::path::Path;
///
/// let origin = Origin::new(Path::new("train.jsonl"), 1);
/// let long = Example::new(0, vec![5, 6, 7], 2, origin.clone());
/// let short = Example::new(1, vec![8, 9], 1, origin);
/// let batch = pack(&[&long, &short]);
///
/// assert_eq!((batch.batch, batch.seq), (1, 5));
/// assert_eq!(batch.input_ids, [5, 6, 7, 8, 9]);
/// assert_eq!(batch.targets.classes().rows, [1, 3]);
/// assert_eq!(batch.targets.classes().classes, [7, 9]);
/// assert_eq!(batch.segments.unwrap().lengths(), [3, 2]);
/// ```
pub fn pack(examples: &[&Example]) -> Batch {
    let lengths: Vec<usize> = examples.iter().map(|e| e.len()).collect();
    let segments = Segments::new(lengths);
    let mut batch = Batch::empty(examples, 1, segments.tokens());
    batch.segments = Some(segments);
    for example in examples {
        batch.push(example);
    }
    batch
}

impl Batch {
    /// Creates a batch with room for rows of this length.
    fn empty(examples: &[&Example], batch: usize, seq: usize) -> Self {
        let cells = batch * seq;
        Self {
            input_ids: Vec::with_capacity(cells),
            attention_mask: Vec::with_capacity(cells),
            targets: Targets::like(examples.first()),
            batch,
            seq,
            ..Self::default()
        }
    }

    /// Appends the tokens and the target of an example.
    fn push(&mut self, example: &Example) {
        let start = self.input_ids.len();
        self.targets.push(example, self.indices.len(), start);
        let tokens = example.tokens().iter().map(|&token| i64::from(token));
        self.input_ids.extend(tokens);
        self.attention_mask.resize(start + example.len(), true);
        self.weight += example.weight();
        self.tokens += example.len();
        self.indices.push(example.index());
        self.origins.push(example.origin().clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Label of a position without one, as in PyTorch.
    const NONE: i64 = -100;

    /// Labels as PyTorch has them: the token at its own position.
    fn labels(batch: &Batch) -> Vec<i64> {
        let mut labels = vec![NONE; batch.batch * batch.seq];
        let Targets::Tokens(targets) = &batch.targets else {
            panic!("{:?}", batch.targets);
        };
        for (&row, &token) in targets.rows.iter().zip(&targets.classes) {
            labels[row as usize + 1] = token;
        }
        assert_eq!(batch.weight, targets.rows.len() as f64);
        assert_eq!(batch.counted_tokens(), targets.rows.len());
        labels
    }

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
        assert_eq!(self::labels(&batch), labels.concat());
        let mask: Vec<u8> = batch.attention_mask.iter().map(|&m| m.into()).collect();
        assert_eq!(mask, [1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]);
        assert_eq!(batch.tokens, 9);
        assert_eq!(batch.weight, 5.0);
        assert_eq!(batch.targets.classes().examples, [0, 1, 1, 2, 2]);
        assert_eq!(batch.indices, [3, 7, 5]);
    }

    #[test]
    fn the_count_of_label_tokens_is_the_count_of_labels_after_the_first_column() {
        let examples = [example(0, &[4, 4, 4], 0), example(1, &[4], 0)];
        let batch = collate(&examples.iter().collect::<Vec<_>>(), 4);
        let labels = labels(&batch);
        let labelled = labels.iter().filter(|label| **label != NONE).count();
        assert_eq!(batch.targets.classes().rows.len(), labelled);
        assert!(labels.iter().step_by(batch.seq).all(|l| *l == NONE));
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
        assert_eq!(labels(&batch), [NONE, 11, NONE, NONE, NONE, 32]);
        let padded = collate(&examples, 0);
        assert_eq!(batch.weight, padded.weight);
        assert_eq!(
            batch.targets.classes().classes,
            padded.targets.classes().classes
        );
        assert_eq!(batch.segments.as_ref().unwrap().lengths(), [2, 1, 3]);
        assert_eq!(batch.indices, [3, 7, 5]);
        let text = batch.describe();
        assert!(text.contains("of 3 examples and up to 3 tokens"), "{text}");
    }

    #[test]
    fn padding_to_a_multiple_moves_the_rows_of_the_targets_and_counts_nothing_more() {
        let examples = [example(0, &[10, 11], 1), example(1, &[20, 21, 22], 2)];
        let examples: Vec<&Example> = examples.iter().collect();
        let padding = Padding::from(1).to_multiple_of(8, 6);
        let (plain, padded) = (collate(&examples, 1), collate(&examples, padding));
        assert_eq!((padded.batch, padded.seq), (2, 6));
        assert_eq!(padded.input_ids[6..], [20, 21, 22, 1, 1, 1]);
        assert_eq!(padded.attention_mask[..3], [true, true, false]);
        assert_eq!(padded.targets.classes().rows, [0, 7]);
        assert_eq!(padded.targets.classes().classes, [11, 22]);
        assert_eq!((padded.tokens, padded.weight), (plain.tokens, plain.weight));
        assert_eq!(padded.describe(), plain.describe());
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
