//! What a labelled data file yields before it is tokenised.

use std::fmt;

use crate::data::Origin;

/// What a record is to be predicted as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// A class, as its index in the [`LabelSet`](super::LabelSet) that the file was read with.
    Class(usize),
    /// A score, for regression.
    Score(f64),
}

impl Label {
    /// The class, if this is one.
    pub fn class(self) -> Option<usize> {
        match self {
            Self::Class(class) => Some(class),
            Self::Score(_) => None,
        }
    }

    /// The score, if this is one.
    pub fn score(self) -> Option<f64> {
        match self {
            Self::Class(_) => None,
            Self::Score(score) => Some(score),
        }
    }
}

/// A text, or a pair of texts, with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledRecord {
    /// The text, or the first of two, as it stands in the file.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// The label; `None` in data to predict on.
    pub label: Option<Label>,
    /// What the file calls the record (`index`, `idx`, `id`), where it does.
    pub id: Option<String>,
    /// Where it was read.
    pub origin: Origin,
}

/// A sentence in words, with a label for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The words.
    pub words: Vec<String>,
    /// As many classes as words; `None` in data to predict on.
    pub labels: Option<Vec<usize>>,
    /// Where the sentence begins.
    pub origin: Origin,
}

/// What kind of label a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LabelKind {
    /// One of several classes.
    #[default]
    Classes,
    /// A number, to be predicted by regression.
    Score,
}

/// What becomes of a record without a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlabelled {
    /// It is an error: to train and to evaluate, every record needs a label.
    #[default]
    Refuse,
    /// It is read without: to predict.
    Accept,
}

/// What was read, and what was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// The records that were read.
    pub records: usize,
    /// Rows left out because fields are missing, as in some rows of the published QQP.
    pub malformed: usize,
    /// Rows left out because the annotators did not agree on a label, as in MNLI (`-`).
    pub undecided: usize,
    /// Records, among those that were read, without a label.
    pub unlabelled: usize,
    /// Records, among those that were read, of which a text is blank.
    pub blank: usize,
}

impl ReadReport {
    /// The rows of the file, without its header: those that were read and those left out.
    pub fn rows(&self) -> usize {
        self.records + self.malformed + self.undecided
    }
}

impl fmt::Display for ReadReport {
    /// `9815 records (185 undecided left out)`: what is none is not named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records)?;
        let notes: Vec<String> = [
            (self.unlabelled, "without a label"),
            (self.blank, "with a blank text"),
            (self.malformed, "malformed left out"),
            (self.undecided, "undecided left out"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, note)| format!("{count} {note}"))
        .collect();
        if notes.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", notes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_class_or_a_score() {
        assert_eq!(
            (Label::Class(2).class(), Label::Class(2).score()),
            (Some(2), None)
        );
        assert_eq!(
            (Label::Score(0.5).class(), Label::Score(0.5).score()),
            (None, Some(0.5))
        );
    }

    #[test]
    fn a_report_names_what_was_left_out_and_nothing_that_was_not() {
        let mut report = ReadReport {
            records: 3,
            ..ReadReport::default()
        };
        assert_eq!(report.to_string(), "3 records");
        report.undecided = 2;
        report.blank = 1;
        assert_eq!(
            report.to_string(),
            "3 records (1 with a blank text, 2 undecided left out)"
        );
        assert_eq!(report.rows(), 5);
    }
}
