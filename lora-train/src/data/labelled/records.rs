//! Records of a file with labels, and the counts of those that were read and left out.

use std::fmt;

use crate::data::labels::LabelSet;
use crate::data::record::{Label, Record};

/// Records of a file with labels.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledData {
    /// Records, in the order of the file.
    pub records: Vec<Record>,
    /// Classes; `None` for scores, and for a file without labels if none are given.
    pub labels: Option<LabelSet>,
    /// Names of the scores, if each record has several.
    pub outputs: Vec<String>,
    /// Counts of the records read and left out.
    pub report: ReadReport,
}

impl LabelledData {
    /// Changes the classes to another set that has each of them, by name or by index. Returns false, and changes nothing, if it
    /// lacks one.
    pub(crate) fn relabel(&mut self, labels: LabelSet) -> bool {
        let names = self.labels.as_ref().map_or(&[][..], LabelSet::names);
        let mapping = labels.find_all(names);
        let Some(mapping) = mapping.filter(|mapping| !mapping.is_empty()) else {
            return false;
        };
        map_classes(&mut self.records, &mapping);
        self.labels = Some(labels);
        true
    }
}

/// Replaces each class by its entry in `mapping`.
pub(super) fn map_classes(records: &mut [Record], mapping: &[usize]) {
    let labels = records
        .iter_mut()
        .filter_map(|record| record.label.as_mut());
    for class in labels.flat_map(Label::classes_mut) {
        *class = mapping[*class];
    }
}

/// Counts of the records of a file that were read and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// Number of records read.
    pub records: usize,
    /// Number of rows left out because fields are missing, as in some rows of the published QQP.
    pub malformed: usize,
    /// Number of rows left out because the annotators did not agree on a label, as in MNLI (`-`).
    pub undecided: usize,
    /// Number of records read that have no label.
    pub unlabelled: usize,
    /// Number of records read that have a blank text.
    pub blank: usize,
    /// Number of records read whose words are numbered in the first column, which is left out.
    pub numbered: usize,
}

impl ReadReport {
    /// Adds up the reports of several files.
    pub(super) fn of_all(reports: &[Self]) -> Self {
        let sum = |count: fn(&Self) -> usize| reports.iter().map(count).sum();
        Self {
            records: sum(|report| report.records),
            malformed: sum(|report| report.malformed),
            undecided: sum(|report| report.undecided),
            unlabelled: sum(|report| report.unlabelled),
            blank: sum(|report| report.blank),
            numbered: sum(|report| report.numbered),
        }
    }

    /// Returns the number of rows of the file, without its header: those read and those left out.
    pub fn rows(&self) -> usize {
        self.records + self.malformed + self.undecided
    }
}

impl fmt::Display for ReadReport {
    /// Formats as `9815 records (185 undecided left out)`, without the counts that are 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records)?;
        let notes: Vec<String> = [
            (self.unlabelled, "without a label"),
            (self.blank, "with a blank text"),
            (
                self.numbered,
                "with a first column of word numbers, left out",
            ),
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

    #[test]
    fn classes_change_to_another_set_that_has_each_of_them() {
        let set = |names: &[&str]| LabelSet::new(names.iter().copied()).unwrap();
        let record = |label| {
            let origin = crate::data::Origin::new(std::path::Path::new("a.csv"), 1);
            Record::text("a", origin).with_label(Some(label))
        };
        let mut data = LabelledData {
            records: vec![
                record(Label::Class(0)),
                record(Label::Tags(vec![1, 0])),
                record(Label::Score(1.0)),
            ],
            labels: Some(set(&["no", "yes"])),
            outputs: Vec::new(),
            report: ReadReport::default(),
        };
        let before = data.clone();
        assert!(!data.relabel(set(&["yes", "perhaps"])));
        assert_eq!(data, before);
        let own = set(&["yes", "perhaps", "no"]);
        assert!(data.relabel(own.clone()));
        let labels: Vec<_> = data.records.iter().flat_map(|r| r.label.clone()).collect();
        let expected = [Label::Class(2), Label::Tags(vec![0, 2]), Label::Score(1.0)];
        assert_eq!((labels.as_slice(), data.labels), (&expected[..], Some(own)));
    }
}
