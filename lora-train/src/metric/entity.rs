//! Metrics of token classification: over tokens, and over entities.

use std::collections::{BTreeMap, HashSet};

use super::classification::{Average, accuracy, f1, harmonic_mean, ratio};
use super::{check_classes, check_pairs, error};
use crate::error::TrainError;

const METRIC: &str = "token classification";

/// Entity in a sequence of tags: the tokens `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// Kind of entity: the text after the tag's `B-` or `I-`; empty for a bare `B` or `I`.
    pub kind: &'a str,
    /// Index of the first token.
    pub start: usize,
    /// Index after the last token.
    pub end: usize,
}

/// Extracts entities from tags, as leniently as the program `conlleval` and seqeval's default (`mode=None`).
///
/// An `I-` that continues no entity begins one, and so does one of another kind than the tag before. The schemes `IOB1`,
/// `IOB2`, `IOE` and `IOBES` (`B`, `I`, `O`, `E`, `S`) are supported; other tags are outside of entities.
///
/// # Examples
/// ```
/// use lora_train::metric::{Entity, entities};
///
/// let found = entities(&["B-PER", "I-PER", "O", "I-LOC", "I-ORG"]);
/// assert_eq!(found.len(), 3);
/// assert_eq!(found[0], Entity { kind: "PER", start: 0, end: 2 });
/// assert_eq!(found[2], Entity { kind: "ORG", start: 4, end: 5 });
/// ```
pub fn entities<'a>(tags: &[&'a str]) -> Vec<Entity<'a>> {
    let mut found = Vec::new();
    let mut open: Option<Entity<'a>> = None;
    let mut before = Tag::OUTSIDE;
    for (at, tag) in tags.iter().map(|tag| Tag::parse(tag)).enumerate() {
        let begins = tag.inside() && tag.begins_after(&before);
        if begins || !tag.inside() {
            found.extend(open.take());
        }
        if begins {
            open = Some(Entity {
                kind: tag.kind,
                start: at,
                end: at + 1,
            });
        } else if let Some(entity) = &mut open {
            entity.end = at + 1;
        }
        before = tag;
    }
    found.extend(open);
    found
}

/// Parsed tag.
#[derive(Clone, Copy)]
struct Tag<'a> {
    letter: char,
    kind: &'a str,
}

impl<'a> Tag<'a> {
    const OUTSIDE: Tag<'static> = Tag {
        letter: 'O',
        kind: "",
    };

    fn parse(tag: &'a str) -> Self {
        match parts(tag) {
            Some((letter, kind)) => Tag { letter, kind },
            None => Tag::OUTSIDE,
        }
    }

    fn inside(&self) -> bool {
        self.letter != 'O'
    }

    /// Returns true if this tag, which is inside an entity, begins a new one after the tag `before`.
    fn begins_after(&self, before: &Tag<'_>) -> bool {
        matches!(self.letter, 'B' | 'S')
            || matches!(before.letter, 'O' | 'E' | 'S')
            || self.kind != before.kind
    }
}

/// Splits a tag into its letter and the kind of entity; `None` if it is not a tag.
fn parts(tag: &str) -> Option<(char, &str)> {
    let mut rest = tag.chars();
    let letter = rest.next().filter(|letter| "BIOES".contains(*letter))?;
    match rest.as_str() {
        "" => Some((letter, "")),
        _ if letter == 'O' => None,
        rest => Some((letter, rest.strip_prefix('-')?)),
    }
}

/// Returns true if all labels are tags of entities: `O`, and `B-…` and `I-…` (or `E-…` and `S-…`).
///
/// # Examples
/// ```
/// use lora_train::metric::are_entity_tags;
///
/// assert!(are_entity_tags(&["O", "B-PER", "I-PER"]));
/// assert!(!are_entity_tags(&["NOUN", "VERB", "O"]));
/// ```
pub fn are_entity_tags<S: AsRef<str>>(names: &[S]) -> bool {
    let mut inside = false;
    names.iter().all(|name| {
        let tag = parts(name.as_ref());
        inside |= tag.is_some_and(|(letter, _)| letter != 'O');
        tag.is_some()
    }) && inside
}

/// Names of the metrics of [`token_classification`]; the last three exist for entities only.
pub const TOKEN_METRICS: &[&str] = &[
    "accuracy",
    "micro_f1",
    "macro_f1",
    "precision",
    "recall",
    "f1",
];

/// Computes the metrics of token classification.
///
/// `predictions[i]` and `labels[i]` are the classes of the tokens in sequence `i`, and `names` are the names of the classes.
/// Both leave out tokens without a label: padding, and all but the first token of a word.
///
/// - `accuracy`: the share of tokens with the right label
/// - `micro_f1`, `macro_f1`: scikit-learn's `f1_score` over tokens
/// - `precision`, `recall`, `f1`: over [`entities`], with seqeval's defaults, if the names [are tags](are_entity_tags); an
///   entity is found if its kind and both ends are right
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ, overall or in a sequence, there is no token, or a class has no name.
///
/// # Examples
/// ```
/// use lora_train::metric::token_classification;
///
/// let names = ["O", "B-PER", "I-PER"];
/// // The second entity is found only in part.
/// let metrics = token_classification(&[vec![1, 0], vec![0, 1, 0]], &[vec![1, 0], vec![0, 1, 2]], &names)?;
/// assert_eq!(metrics["accuracy"], 0.8);
/// assert_eq!(metrics["f1"], 0.5);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn token_classification<S: AsRef<str>>(
    predictions: &[Vec<usize>],
    labels: &[Vec<usize>],
    names: &[S],
) -> Result<BTreeMap<String, f64>, TrainError> {
    check_pairs(METRIC, predictions, labels)?;
    for (at, (predicted, labelled)) in predictions.iter().zip(labels).enumerate() {
        if predicted.len() != labelled.len() {
            let message = format!(
                "sequence {at}, counted from 0, has {} predictions and {} labels; expected one of each for every token",
                predicted.len(),
                labelled.len()
            );
            return Err(error(METRIC, message));
        }
    }
    let (flat_predictions, flat_labels) = (predictions.concat(), labels.concat());
    check_pairs(METRIC, &flat_predictions, &flat_labels)?;
    check_classes(METRIC, &flat_predictions, &flat_labels, names.len())?;

    let (micro, macro_) = (Average::Micro, Average::Macro);
    let mut metrics = vec![
        ("accuracy", accuracy(&flat_predictions, &flat_labels)?),
        ("micro_f1", f1(&flat_predictions, &flat_labels, micro)?),
        ("macro_f1", f1(&flat_predictions, &flat_labels, macro_)?),
    ];
    if are_entity_tags(names) {
        let (precision, recall) = entity_precision_and_recall(predictions, labels, names);
        let f1 = harmonic_mean(precision, recall);
        metrics.extend([("precision", precision), ("recall", recall), ("f1", f1)]);
    }
    let metrics = metrics.into_iter();
    Ok(metrics
        .map(|(name, value)| (name.to_string(), value))
        .collect())
}

/// Computes precision and recall over all kinds of entities. Entities do not extend across sequences. Every class must have
/// a name.
fn entity_precision_and_recall<S: AsRef<str>>(
    predictions: &[Vec<usize>],
    labels: &[Vec<usize>],
    names: &[S],
) -> (f64, f64) {
    let tags = |classes: &[usize]| -> Vec<&str> {
        classes.iter().map(|&class| names[class].as_ref()).collect()
    };
    let (mut hits, mut predicted, mut labelled) = (0, 0, 0);
    for (prediction, label) in predictions.iter().zip(labels) {
        let found = entities(&tags(prediction));
        let wanted = entities(&tags(label));
        predicted += found.len();
        labelled += wanted.len();
        let wanted: HashSet<Entity<'_>> = wanted.into_iter().collect();
        hits += found
            .iter()
            .filter(|entity| wanted.contains(entity))
            .count();
    }
    (ratio(hits, predicted), ratio(hits, labelled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans<'a>(tags: &[&'a str]) -> Vec<(&'a str, usize, usize)> {
        let found = entities(tags);
        found.iter().map(|e| (e.kind, e.start, e.end)).collect()
    }

    #[test]
    fn an_entity_goes_on_only_by_an_i_of_its_kind() {
        assert_eq!(
            spans(&["B-A", "I-A", "B-A", "I-B"]),
            [("A", 0, 2), ("A", 2, 3), ("B", 3, 4)]
        );
        assert_eq!(
            spans(&["I-A", "O", "I-A", "I-A"]),
            [("A", 0, 1), ("A", 2, 4)]
        );
        assert_eq!(spans(&["O", "O"]), []);
    }

    #[test]
    fn ends_and_singles_close_an_entity() {
        assert_eq!(
            spans(&["B-A", "E-A", "I-A", "S-A", "I-A"]),
            [("A", 0, 2), ("A", 2, 3), ("A", 3, 4), ("A", 4, 5)]
        );
        assert_eq!(spans(&["B", "I", "O", "S"]), [("", 0, 2), ("", 3, 4)]);
    }

    #[test]
    fn a_kind_may_have_a_hyphen() {
        assert_eq!(
            spans(&["B-A-B", "I-A-B", "I-A"]),
            [("A-B", 0, 2), ("A", 2, 3)]
        );
    }

    #[test]
    fn words_that_begin_with_a_letter_of_tags_are_none() {
        assert!(!are_entity_tags(&["Business", "O"]));
        assert!(!are_entity_tags(&["O"]));
        assert!(!are_entity_tags::<&str>(&[]));
        assert_eq!(spans(&["Sports", "Other", "B-A"]), [("A", 2, 3)]);
    }

    #[test]
    fn labels_that_are_no_tags_have_no_entity_scores() {
        let metrics =
            token_classification(&[vec![0, 1]], &[vec![0, 0]], &["NOUN", "VERB"]).unwrap();
        assert_eq!(
            metrics.keys().collect::<Vec<_>>(),
            ["accuracy", "macro_f1", "micro_f1"]
        );
    }

    #[test]
    fn no_entity_reaches_into_the_next_sequence() {
        let names = ["O", "I-A"];
        let metrics =
            token_classification(&[vec![1], vec![1]], &[vec![1], vec![0]], &names).unwrap();
        assert_eq!((metrics["precision"], metrics["recall"]), (0.5, 1.0));
    }

    #[test]
    fn sequences_of_different_lengths_no_token_and_a_class_without_a_name_are_errors() {
        let names = ["O", "B-A"];
        let error = token_classification(&[vec![0], vec![0]], &[vec![0], vec![0, 1]], &names);
        let message = error.unwrap_err().to_string();
        assert!(message.contains("sequence 1"), "{message}");
        assert!(token_classification(&[vec![]], &[vec![]], &names).is_err());
        assert!(token_classification(&[], &[], &names).is_err());
        assert!(token_classification(&[vec![2]], &[vec![0]], &names).is_err());
    }
}
