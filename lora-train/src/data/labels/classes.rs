//! Classes of the labels in a file: those of a known set, or of one gathered from the file.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::Value;

use super::label_set::{LabelSet, MAX_CLASSES, whole_number};
use crate::data::jsonl;
use crate::data::record::Origin;
use crate::error::{TrainError, listed};

/// Number of names of a file that a message shows.
const SHOWN: usize = 20;

/// Returns a label as the file has it, without the white space around it; `None` where there is none.
///
/// # Errors
/// If the value cannot be a label.
pub(in crate::data) fn raw_label(value: Option<Value>) -> Result<Option<String>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        Some(other) => {
            let kind = jsonl::kind(&other);
            return Err(format!("the label is {kind}; expected a name or a number"));
        }
    };
    Ok((!text.is_empty()).then_some(text))
}

/// Classes, while a file is read.
pub(in crate::data) enum Classes {
    /// Classes of a known set.
    Known(Known),
    /// Distinct labels of the file, each with a provisional class: its place by first appearance.
    Gathered(HashMap<String, usize>),
}

/// Known set, with the names that a file has.
pub(in crate::data) struct Known {
    labels: LabelSet,
    /// Some of the labels of the file.
    found: BTreeSet<String>,
    /// First label without a class, for the error once the file is read.
    unknown: Option<(Origin, String)>,
}

impl Classes {
    /// Starts with a known set, or with none to gather one from the file.
    pub(in crate::data) fn new(labels: Option<&LabelSet>) -> Self {
        match labels {
            Some(labels) => Self::Known(Known {
                labels: labels.clone(),
                found: BTreeSet::new(),
                unknown: None,
            }),
            None => Self::Gathered(HashMap::new()),
        }
    }

    /// Returns the class that a label means. It is final once it is mapped as [`Classes::finish`] says, which refuses an
    /// unknown label.
    pub(in crate::data) fn class(&mut self, label: &str, origin: &Origin) -> Result<usize, String> {
        self.class_at(label, origin, "")
    }

    /// Returns the class of a label as [`class`](Self::class) does; messages begin with its place in the record.
    pub(in crate::data) fn class_at(
        &mut self,
        label: &str,
        origin: &Origin,
        place: &str,
    ) -> Result<usize, String> {
        match self {
            Self::Known(known) => {
                if known.found.len() <= SHOWN && !known.found.contains(label) {
                    known.found.insert(label.to_string());
                }
                Ok(known.labels.resolve(label).unwrap_or_else(|message| {
                    let first = || (origin.clone(), format!("{place}{message}"));
                    known.unknown.get_or_insert_with(first);
                    0
                }))
            }
            Self::Gathered(indices) => {
                gathered(indices, label).map_err(|message| format!("{place}{message}"))
            }
        }
    }

    /// Returns true if `-1` is the mark of the `datasets` library for a record without a label, and not a
    /// label itself. Where the set is gathered it is neither, but an error that asks.
    pub(in crate::data) fn minus_one_is_none(&self) -> bool {
        match self {
            Self::Known(known) => known.labels.index("-1").is_none(),
            Self::Gathered(_) => false,
        }
    }

    /// Returns the set, and for each provisional class the final one, if they differ. The set is `None` if it was to be
    /// gathered from a file without labels.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for the first label that is unknown, with the labels of the file;
    /// [`TrainError::DataFormat`] if the set was to be gathered, and the file has one label only.
    pub(in crate::data) fn finish(
        self,
        path: &Path,
    ) -> Result<(Option<LabelSet>, Option<Vec<usize>>), TrainError> {
        let indices = match self {
            Self::Known(known) => return Ok((Some(known.checked()?), None)),
            Self::Gathered(indices) => indices,
        };
        let mut found: Vec<(String, usize)> = indices.into_iter().collect();
        match found.as_slice() {
            [] => return Ok((None, None)),
            [(only, _)] => {
                let message = format!(
                    "every label is `{only}`; a classification needs at least two classes, or labels that are named"
                );
                return Err(TrainError::data_format(path, message));
            }
            _ => {}
        }
        // The order of `run_glue.py` of transformers: by value if all names are numbers, else by code point.
        if found.iter().all(|(name, _)| whole_number(name).is_some()) {
            found.sort_by_key(|(name, _)| whole_number(name));
        } else {
            found.sort();
        }
        let mut mapping = vec![0; found.len()];
        for (class, (_, provisional)) in found.iter().enumerate() {
            mapping[*provisional] = class;
        }
        let labels = LabelSet::new(found.into_iter().map(|(name, _)| name))?;
        Ok((Some(labels), Some(mapping)))
    }
}

impl Known {
    /// Returns the set, if it has all labels of the file.
    fn checked(self) -> Result<LabelSet, TrainError> {
        let Some((origin, message)) = self.unknown else {
            return Ok(self.labels);
        };
        let mut found: Vec<String> = self.found.into_iter().collect();
        let more = if found.len() > SHOWN { ", …" } else { "" };
        found.truncate(SHOWN);
        let way_out = if self.labels.is_generic() {
            "; if these are the classes of the head, name them with `labels` in the order of its outputs"
        } else {
            ""
        };
        let found = listed(&found);
        Err(origin.error(format!("{message}; the file has {found}{more}{way_out}")))
    }
}

/// Returns the provisional class of a label.
fn gathered(indices: &mut HashMap<String, usize>, label: &str) -> Result<usize, String> {
    if let Some(class) = indices.get(label) {
        return Ok(*class);
    }
    if whole_number(label).is_some_and(|number| number < 0) {
        // In the exports of the `datasets` library it means that there is no label; in other
        // data it may be a class.
        return Err(format!(
            "the label {label} may be a class, or mean that there is none; name the labels to \
             say which"
        ));
    }
    if label.contains('.') && label.parse::<f64>().is_ok() {
        return Err(format!(
            "the label {label} is not an integer; if labels are scores, choose regression, and \
             if they are classes, name them"
        ));
    }
    if indices.len() == MAX_CLASSES {
        return Err(format!(
            "more than {MAX_CLASSES} different labels; is this the column of the labels?"
        ));
    }
    let class = indices.len();
    indices.insert(label.to_string(), class);
    Ok(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new(Path::new("a.csv"), 3)
    }

    fn gathered(labels: &[&str]) -> (Vec<String>, Vec<usize>) {
        let mut classes = Classes::new(None);
        let found: Vec<usize> = labels
            .iter()
            .map(|l| classes.class(l, &origin()).unwrap())
            .collect();
        let (labels, mapping) = classes.finish(Path::new("a.csv")).unwrap();
        let mapping = mapping.unwrap();
        let classes = found.into_iter().map(|class| mapping[class]).collect();
        (labels.unwrap().names().to_vec(), classes)
    }

    #[test]
    fn names_are_sorted_and_numbers_by_value() {
        let (names, classes) = gathered(&["pos", "neg", "Neutral", "pos"]);
        assert_eq!(names, ["Neutral", "neg", "pos"]);
        assert_eq!(classes, [2, 1, 0, 2]);

        let (names, classes) = gathered(&["10", "9", "2"]);
        assert_eq!(names, ["2", "9", "10"]);
        assert_eq!(classes, [2, 1, 0]);

        let (names, _) = gathered(&["10", "9", "x"]);
        assert_eq!(names, ["10", "9", "x"]);
    }

    #[test]
    fn labels_that_may_mean_something_else_are_refused_with_a_way_out() {
        let mut classes = Classes::new(None);
        for (label, reason) in [
            ("-1", "may be a class"),
            ("0.5", "choose regression"),
            ("1.0", "choose regression"),
        ] {
            let message = classes.class(label, &origin()).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
        let named = LabelSet::new(["-1", "0", "1"]).unwrap();
        let mut known = Classes::new(Some(&named));
        assert_eq!(known.class("-1", &origin()), Ok(0));
        assert!(!known.minus_one_is_none());
    }

    #[test]
    fn an_unknown_label_is_refused_at_the_end_with_both_lists() {
        let named = LabelSet::new(["negative", "positive"]).unwrap();
        let mut known = Classes::new(Some(&named));
        for label in ["Negative", "POSITIVE", "1"] {
            known.class(label, &origin()).unwrap();
        }
        for (label, line) in [("neutral", 7), ("mixed", 9)] {
            let origin = Origin::new(Path::new("a.csv"), line);
            known.class(label, &origin).unwrap();
        }
        let message = known.finish(Path::new("a.csv")).err().unwrap().to_string();
        for part in [
            "7",
            "unknown label `neutral`",
            "`negative`, `positive`",
            "`mixed`",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_single_label_and_too_many_are_refused() {
        let mut classes = Classes::new(None);
        classes.class("same", &origin()).unwrap();
        let error = classes
            .finish(Path::new("a.csv"))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("every label is `same`"), "{error}");

        let mut classes = Classes::new(None);
        for label in 0..MAX_CLASSES {
            classes.class(&label.to_string(), &origin()).unwrap();
        }
        let message = classes.class("one more", &origin()).unwrap_err();
        assert!(message.contains("is this the column"), "{message}");
        assert!(classes.class("7", &origin()).is_ok());
    }

    #[test]
    fn what_is_no_label_is_refused_and_what_is_empty_is_none() {
        assert_eq!(raw_label(Some(Value::from(" a "))), Ok(Some("a".into())));
        assert_eq!(raw_label(Some(Value::from(3))), Ok(Some("3".into())));
        assert_eq!(raw_label(Some(Value::from(true))), Ok(Some("true".into())));
        for none in [None, Some(Value::Null), Some(Value::from("  "))] {
            assert_eq!(raw_label(none), Ok(None));
        }
        let message = raw_label(Some(Value::Array(Vec::new()))).unwrap_err();
        assert!(message.contains("is an array"), "{message}");
    }
}
