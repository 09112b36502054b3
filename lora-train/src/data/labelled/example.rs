//! Tokenised examples with labels, and batches of them.

use crate::data::{IGNORE_INDEX, Origin, Sample, SampleBatch};

/// What is to be predicted of an example.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A class for the whole.
    Class(usize),
    /// A number for the whole.
    Score(f64),
    /// A class for some of the tokens, as long as the example.
    Tags(Vec<Option<usize>>),
    /// Nothing is known.
    Unknown,
}

/// A text, a pair of texts or a row of words as a model reads it, with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledExample {
    /// Its position in the list of examples that it is in.
    pub index: usize,
    /// The tokens, special ones included.
    pub tokens: Vec<u32>,
    /// The segment of each.
    pub type_ids: Vec<u32>,
    /// The label.
    pub target: Target,
    /// How much it counts in the loss: the weight of its class, or of its tokens' together.
    pub weight: f64,
    /// Where it was read.
    pub origin: Origin,
}

/// The labels of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// A class a row of the outputs, [`IGNORE_INDEX`] for none: `[batch]`, or `[batch · seq]` for tags.
    Classes(Vec<i64>),
    /// A number an example, `[batch]`.
    Scores(Vec<f32>),
    /// Nothing is known of any example.
    Unknown,
}

/// A batch of labelled examples, padded at the right to the longest.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledBatch {
    /// The tokens, `[batch, seq]`.
    pub input_ids: Vec<i64>,
    /// Their segments, `[batch, seq]`.
    pub type_ids: Vec<i64>,
    /// Whether a position holds a token rather than padding, `[batch, seq]`.
    pub attention_mask: Vec<bool>,
    /// The labels.
    pub targets: Targets,
    /// The number of examples.
    pub batch: usize,
    /// The length of the longest.
    pub seq: usize,
    /// What the summed loss is divided by.
    pub weight: f64,
    /// The number of tokens that are not padding.
    pub tokens: usize,
    /// Where each example was read.
    pub origins: Vec<Origin>,
}

impl Sample for LabelledExample {
    type Batch = LabelledBatch;

    fn length(&self) -> usize {
        self.tokens.len()
    }

    /// # Examples
    /// ```
    /// use lora_train::data::{LabelledExample, Origin, Sample, Target, Targets};
    ///
    /// let example = |tokens: &[u32], class| LabelledExample {
    ///     index: 0,
    ///     tokens: tokens.to_vec(),
    ///     type_ids: vec![0; tokens.len()],
    ///     target: Target::Class(class),
    ///     weight: 1.0,
    ///     origin: Origin::new(std::path::Path::new("train.jsonl"), 1),
    /// };
    /// let (long, short) = (example(&[5, 6, 7], 2), example(&[8, 9], 0));
    /// let batch = Sample::collate(&[&long, &short], 1);
    /// assert_eq!(batch.input_ids, [5, 6, 7, 8, 9, 1]);
    /// assert_eq!(batch.attention_mask, [true, true, true, true, true, false]);
    /// assert_eq!(batch.targets, Targets::Classes(vec![2, 0]));
    /// assert_eq!(batch.weight, 2.0);
    /// ```
    fn collate(samples: &[&Self], pad_id: u32) -> LabelledBatch {
        let seq = samples.iter().map(|e| e.tokens.len()).max().unwrap_or(0);
        let cells = samples.len() * seq;
        let mut batch = LabelledBatch {
            input_ids: Vec::with_capacity(cells),
            type_ids: Vec::with_capacity(cells),
            attention_mask: Vec::with_capacity(cells),
            targets: targets(samples, seq),
            batch: samples.len(),
            seq,
            weight: samples.iter().map(|e| e.weight).sum(),
            tokens: samples.iter().map(|e| e.tokens.len()).sum(),
            origins: samples.iter().map(|e| e.origin.clone()).collect(),
        };
        for (row, example) in samples.iter().enumerate() {
            let end = (row + 1) * seq;
            let tokens = example.tokens.iter().map(|&id| i64::from(id));
            batch.input_ids.extend(tokens);
            batch.input_ids.resize(end, i64::from(pad_id));
            let types = example.type_ids.iter().map(|&id| i64::from(id));
            batch.type_ids.extend(types);
            batch.type_ids.resize(end, 0);
            let real = row * seq + example.tokens.len();
            batch.attention_mask.resize(real, true);
            batch.attention_mask.resize(end, false);
        }
        batch
    }
}

fn targets(samples: &[&LabelledExample], seq: usize) -> Targets {
    let mut classes = Vec::new();
    let mut scores = Vec::new();
    for (row, example) in samples.iter().enumerate() {
        match &example.target {
            Target::Class(class) => classes.push(*class as i64),
            Target::Score(score) => scores.push(*score as f32),
            Target::Tags(tags) => {
                let tags = tags.iter();
                classes.extend(tags.map(|tag| tag.map_or(IGNORE_INDEX, |tag| tag as i64)));
                classes.resize((row + 1) * seq, IGNORE_INDEX);
            }
            Target::Unknown => return Targets::Unknown,
        }
    }
    match scores.is_empty() {
        true => Targets::Classes(classes),
        false => Targets::Scores(scores),
    }
}

impl SampleBatch for LabelledBatch {
    fn weight(&self) -> f64 {
        self.weight
    }

    fn counted_tokens(&self) -> usize {
        self.tokens
    }

    fn describe(&self) -> String {
        crate::data::batch::describe(self.batch, self.seq, &self.origins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn example(tokens: &[u32], target: Target) -> LabelledExample {
        LabelledExample {
            index: 0,
            tokens: tokens.to_vec(),
            type_ids: tokens.iter().map(|id| id % 2).collect(),
            target,
            weight: 0.5,
            origin: Origin::new(Path::new("a.tsv"), 3),
        }
    }

    #[test]
    fn tags_are_padded_with_what_is_ignored() {
        let long = example(&[2, 3, 4], Target::Tags(vec![None, Some(1), None]));
        let short = example(&[5], Target::Tags(vec![Some(0)]));
        let batch = Sample::collate(&[&short, &long], 9);
        let none = IGNORE_INDEX;
        assert_eq!(
            batch.targets,
            Targets::Classes(vec![0, none, none, none, 1, none])
        );
        assert_eq!(batch.type_ids, [1, 0, 0, 0, 1, 0]);
        assert_eq!(batch.input_ids, [5, 9, 9, 2, 3, 4]);
        assert_eq!((batch.tokens, batch.weight), (4, 1.0));
        assert!(batch.describe().contains("a.tsv:3"));
    }

    #[test]
    fn one_unknown_label_makes_a_batch_without() {
        let known = example(&[1], Target::Score(2.5));
        assert_eq!(
            Sample::collate(&[&known], 0).targets,
            Targets::Scores(vec![2.5])
        );
        let unknown = example(&[1], Target::Unknown);
        assert_eq!(
            Sample::collate(&[&known, &unknown], 0).targets,
            Targets::Unknown
        );
    }
}
