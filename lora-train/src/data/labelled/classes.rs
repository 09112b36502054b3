//! From the labels in a file to classes: of a set that is known, or of one gathered from the file.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::label_set::{LabelSet, MAX_CLASSES, whole_number};
use crate::data::jsonl;
use crate::error::TrainError;

/// A label as it stands in a file, without the white space around it; `None` where there is none.
///
/// # Errors
/// If the value cannot be a label.
pub(super) fn raw_label(value: Option<Value>) -> Result<Option<String>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(truth)) => truth.to_string(),
        Some(other) => {
            return Err(format!(
                "the label is {}; expected a name or a number",
                jsonl::kind(&other)
            ));
        }
    };
    Ok((!text.is_empty()).then_some(text))
}

/// The classes, while a file is read.
pub(super) enum Classes {
    /// Those of a set.
    Known(LabelSet),
    /// Those of a published task, for a model whose classes may stand in another order.
    Mapped {
        /// The task's own.
        task: LabelSet,
        /// The class of the model for each of the task.
        mapping: Vec<usize>,
        /// The model's.
        model: LabelSet,
    },
    /// Those that the file turns out to have.
    Gathered(Gathered),
}

/// The different labels of a file, each with a provisional index: its place by first appearance.
#[derive(Default)]
pub(super) struct Gathered {
    indices: HashMap<String, usize>,
}

/// The classes, once the file is read.
pub(super) struct Settled {
    /// The set; `None` if it was to be gathered from a file without labels.
    pub(super) labels: Option<LabelSet>,
    /// The class for each index that [`Classes::class`] returned.
    mapping: Option<Vec<usize>>,
}

impl Classes {
    /// The set that is given, or else the file's own.
    pub(super) fn of(labels: Option<&LabelSet>) -> Self {
        match labels {
            Some(labels) => Self::Known(labels.clone()),
            None => Self::Gathered(Gathered::default()),
        }
    }

    /// The class that a label means, to be passed through [`Settled::class`] in the end.
    pub(super) fn class(&mut self, label: &str) -> Result<usize, String> {
        match self {
            Self::Known(labels) => labels.resolve(label),
            Self::Mapped { task, .. } => task.resolve(label),
            Self::Gathered(gathered) => gathered.class(label),
        }
    }

    /// Whether `-1` is the mark of the `datasets` library for a record without a label, and not a
    /// label itself. Where the set is gathered it is neither, but an error that asks.
    pub(super) fn minus_one_is_none(&self) -> bool {
        match self {
            Self::Known(labels) => labels.index("-1").is_none(),
            Self::Mapped { .. } => true,
            Self::Gathered(_) => false,
        }
    }

    /// The set, and the final index of each class.
    ///
    /// # Errors
    /// [`TrainError::DataFormat`] if the set was to be gathered, and the file has one label only.
    pub(super) fn settle(self, path: &Path) -> Result<Settled, TrainError> {
        match self {
            Self::Known(labels) => Ok(Settled {
                labels: Some(labels),
                mapping: None,
            }),
            Self::Mapped { mapping, model, .. } => Ok(Settled {
                labels: Some(model),
                mapping: Some(mapping),
            }),
            Self::Gathered(gathered) => gathered.settle(path),
        }
    }
}

impl Gathered {
    fn class(&mut self, label: &str) -> Result<usize, String> {
        if let Some(class) = self.indices.get(label) {
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
                "the label {label} is no whole number; if labels are scores, choose regression, and \
                 if they are classes, name them"
            ));
        }
        if self.indices.len() == MAX_CLASSES {
            return Err(format!(
                "more than {MAX_CLASSES} different labels; is this the column of the labels?"
            ));
        }
        let class = self.indices.len();
        self.indices.insert(label.to_string(), class);
        Ok(class)
    }

    /// The labels in order, as `run_glue.py` of transformers puts them: numbers by value, if all of
    /// them are numbers, and names by code point.
    fn settle(self, path: &Path) -> Result<Settled, TrainError> {
        let mut found: Vec<(String, usize)> = self.indices.into_iter().collect();
        if found.is_empty() {
            return Ok(Settled {
                labels: None,
                mapping: None,
            });
        }
        if let [(only, _)] = found.as_slice() {
            return Err(TrainError::data_format(
                path,
                format!(
                    "every label is `{only}`; there must be two to tell apart, or the labels be named"
                ),
            ));
        }
        let numbers: Option<Vec<i64>> = found.iter().map(|(name, _)| whole_number(name)).collect();
        match numbers {
            Some(_) => found.sort_by_key(|(name, _)| whole_number(name)),
            None => found.sort(),
        }
        let mut mapping = vec![0; found.len()];
        for (class, (_, provisional)) in found.iter().enumerate() {
            mapping[*provisional] = class;
        }
        let labels = LabelSet::new(found.into_iter().map(|(name, _)| name))?;
        Ok(Settled {
            labels: Some(labels),
            mapping: Some(mapping),
        })
    }
}

impl Settled {
    /// The class for an index that [`Classes::class`] returned.
    pub(super) fn class(&self, index: usize) -> usize {
        self.mapping
            .as_ref()
            .map_or(index, |mapping| mapping[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(labels: &[&str]) -> (Vec<String>, Vec<usize>) {
        let mut classes = Classes::of(None);
        let found: Vec<usize> = labels.iter().map(|l| classes.class(l).unwrap()).collect();
        let settled = classes.settle(Path::new("a.csv")).unwrap();
        let classes = found
            .into_iter()
            .map(|class| settled.class(class))
            .collect();
        (settled.labels.unwrap().names().to_vec(), classes)
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
        let mut classes = Classes::of(None);
        for (label, reason) in [
            ("-1", "may be a class"),
            ("0.5", "choose regression"),
            ("1.0", "choose regression"),
        ] {
            let message = classes.class(label).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
        let named = LabelSet::new(["-1", "0", "1"]).unwrap();
        let mut known = Classes::of(Some(&named));
        assert_eq!(known.class("-1"), Ok(0));
        assert!(!known.minus_one_is_none());
    }

    #[test]
    fn a_single_label_and_too_many_are_refused() {
        let mut classes = Classes::of(None);
        classes.class("same").unwrap();
        let error = classes
            .settle(Path::new("a.csv"))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("every label is `same`"), "{error}");

        let mut classes = Classes::of(None);
        for label in 0..MAX_CLASSES {
            classes.class(&label.to_string()).unwrap();
        }
        let message = classes.class("one more").unwrap_err();
        assert!(message.contains("is this the column"), "{message}");
        assert!(classes.class("7").is_ok());
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
