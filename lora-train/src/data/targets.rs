//! Targets of a batch: what the model learns to predict in some rows of its outputs.

use super::example::{Example, Target};
use std::iter::repeat_n;

/// Targets of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Targets {
    /// Next tokens. A row of the outputs is a position of `[batch · seq]`: the one before the token, in the same
    /// example.
    Tokens(ClassTargets),
    /// Classes. A row of the outputs is an example of `[batch]`, or for tags a position of `[batch · seq]`.
    Classes(ClassTargets),
    /// Classes of each example, of which it has any number.
    Sets(Vec<Vec<usize>>),
    /// Scores of each example, `[batch, outputs]`.
    Scores(Vec<f32>),
    /// No targets, as at least one example has none.
    #[default]
    Unknown,
}

/// Classes to predict in some rows of the outputs. The three lists have the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassTargets {
    /// Rows of the outputs.
    pub rows: Vec<i64>,
    /// Class to predict in each row; for a language model, the token.
    pub classes: Vec<i64>,
    /// Example in the batch that each row belongs to.
    pub examples: Vec<usize>,
}

impl ClassTargets {
    const NONE: &Self = &Self {
        rows: Vec::new(),
        classes: Vec::new(),
        examples: Vec::new(),
    };

    fn push(&mut self, row: usize, class: i64, example: usize) {
        self.rows.push(row as i64);
        self.classes.push(class);
        self.examples.push(example);
    }
}

impl Targets {
    /// Creates the empty targets of examples like this one.
    pub(super) fn like(example: Option<&&Example>) -> Self {
        match example.map(|example| example.target()) {
            Some(Target::Tokens { .. } | Target::Parts(_)) => Self::Tokens(ClassTargets::default()),
            Some(Target::Score(_) | Target::Scores(_)) => Self::Scores(Vec::new()),
            Some(Target::Set(_)) => Self::Sets(Vec::new()),
            _ => Self::Classes(ClassTargets::default()),
        }
    }

    /// Appends the target of an example whose tokens start at position `start` of `[batch · seq]`.
    pub(super) fn push(&mut self, example: &Example, number: usize, start: usize) {
        match (&mut *self, example.target()) {
            (Self::Tokens(targets), Target::Tokens { .. } | Target::Parts(_)) => {
                for part in example.learned() {
                    let tokens = example.tokens().get(part.clone()).unwrap_or_default();
                    let first = (start + part.start) as i64 - 1;
                    targets.rows.extend(first..first + tokens.len() as i64);
                    targets
                        .classes
                        .extend(tokens.iter().map(|&id| i64::from(id)));
                    targets.examples.extend(repeat_n(number, tokens.len()));
                }
            }
            (Self::Classes(targets), Target::Class(class)) => {
                targets.push(number, *class as i64, number);
            }
            (Self::Classes(targets), Target::Tags(_)) => {
                for (position, class) in example.tags() {
                    targets.push(start + position, class as i64, number);
                }
            }
            (Self::Sets(sets), Target::Set(classes)) => sets.push(classes.clone()),
            (Self::Scores(scores), Target::Score(score)) => scores.push(*score as f32),
            (Self::Scores(scores), Target::Scores(several)) => {
                scores.extend(several.iter().map(|score| *score as f32));
            }
            _ => *self = Self::Unknown,
        }
    }

    /// Returns the classes to predict; none for scores and for unknown targets.
    pub fn classes(&self) -> &ClassTargets {
        match self {
            Self::Tokens(targets) | Self::Classes(targets) => targets,
            Self::Sets(_) | Self::Scores(_) | Self::Unknown => ClassTargets::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::batch::collate;
    use crate::data::record::Origin;
    use crate::data::sample::SampleBatch;
    use std::path::Path;

    fn with_target(tokens: &[u32], target: Target) -> Example {
        let origin = Origin::new(Path::new("a.tsv"), 3);
        Example::with_target(0, tokens.to_vec(), target, origin)
            .with_type_ids(tokens.iter().map(|id| id % 2).collect())
            .with_weight(0.5)
    }

    #[test]
    fn only_the_tokens_that_begin_a_word_have_a_tag() {
        let long = with_target(&[2, 3, 4], Target::Tags(vec![1]));
        let long = long.with_words(vec![None, Some(0), None]);
        let short = with_target(&[5], Target::Tags(vec![0])).with_words(vec![Some(0)]);
        let batch = collate(&[&short, &long], 9);
        let targets = ClassTargets {
            rows: vec![0, 4],
            classes: vec![0, 1],
            examples: vec![0, 1],
        };
        assert_eq!(batch.targets, Targets::Classes(targets));
        assert_eq!(batch.type_ids, [1, 0, 0, 0, 1, 0]);
        assert_eq!(batch.input_ids, [5, 9, 9, 2, 3, 4]);
        assert_eq!((batch.tokens, batch.weight), (4, 1.0));
        assert_eq!(batch.counted_tokens(), 4);
        assert!(batch.describe().contains("a.tsv:3"));
    }

    #[test]
    fn one_unknown_label_makes_a_batch_without() {
        let known = with_target(&[1], Target::Score(2.5));
        assert_eq!(collate(&[&known], 0).targets, Targets::Scores(vec![2.5]));
        let unknown = with_target(&[1], Target::Unknown);
        for examples in [[&known, &unknown], [&unknown, &known]] {
            assert_eq!(collate(&examples, 0).targets, Targets::Unknown);
        }
    }
}
