//! Records with any number of classes: a list of them, or a column of 0 and 1 for each.

use std::path::Path;

use serde_json::Value;

use super::list::{Form, Items, by_name, is_absent, items};
use super::records::map_classes;
use crate::data::jsonl;
use crate::data::labels::{Classes, LabelSet, numbered};
use crate::data::record::{Label, Origin, Record};
use crate::error::{TrainError, listed};

/// Reader of records with any number of classes.
///
/// A list holds names or indices of classes, or a 0 or 1 for each class. Which of these it is, the whole file tells: lists of one
/// length that hold only 0 and 1 are of the second kind, and so are fractions (`1.0`) and truth values.
pub(super) struct Sets<'a> {
    known: Option<&'a LabelSet>,
    /// Names of the columns, if each class has its own.
    columns: Vec<String>,
    lists: Vec<(Items, Origin)>,
}

impl<'a> Sets<'a> {
    /// Creates the reader: `known` are the classes, if they are known; `columns` are named if each class has its own.
    pub(super) fn new(known: Option<&'a LabelSet>, columns: Vec<String>) -> Self {
        Self {
            known,
            columns,
            lists: Vec::new(),
        }
    }

    /// Reads the labels of the next record, which [`finish`](Self::finish) completes; `None` if there are none.
    pub(super) fn label(
        &mut self,
        mut values: Vec<Option<Value>>,
        origin: &Origin,
    ) -> Result<Option<Label>, String> {
        let items = if self.columns.is_empty() {
            let Some(items) = items(values.pop().flatten())? else {
                return Ok(None);
            };
            items
        } else {
            if values.iter().all(|value| is_absent(value.as_ref())) {
                return Ok(None);
            }
            let flags = self.columns.iter().zip(values);
            let flags = flags.map(|(name, value)| flag(value, name));
            Items {
                texts: flags.collect::<Result<_, _>>()?,
                form: Form::Flags,
            }
        };
        self.lists.push((items, origin.clone()));
        Ok(Some(Label::Set(Vec::new())))
    }

    /// Sets the classes of the records, and returns all classes; `None` for a file without labels if none are known.
    ///
    /// # Errors
    /// If a label is unknown, or the lists contradict each other.
    pub(super) fn finish(
        self,
        path: &Path,
        records: &mut [Record],
    ) -> Result<Option<LabelSet>, TrainError> {
        let Some((first, _)) = self.lists.first() else {
            return Ok(self.known.cloned());
        };
        let width = first.texts.len();
        let flags = self.are_flags(width);
        let mut labels = records
            .iter_mut()
            .filter_map(|record| record.label.as_mut());
        let mut set = |classes: Vec<usize>| {
            if let Some(label) = labels.next() {
                *label = Label::Set(classes);
            }
        };
        if !flags {
            let mut classes = Classes::new(self.known);
            for (items, origin) in &self.lists {
                let found = items.texts.iter().map(|name| classes.class(name, origin));
                let found = found.collect::<Result<_, _>>();
                set(found.map_err(|message| origin.error(message))?);
            }
            let (all, mapping) = classes.finish(path)?;
            if let Some(mapping) = mapping {
                map_classes(records, &mapping);
            }
            sort(records);
            return Ok(all);
        }
        let (all, mapping) = self.flagged(path, width)?;
        for (items, origin) in &self.lists {
            let found = items.texts.len();
            if found != width {
                return Err(origin.error(format!(
                    "{found} values of 0 or 1, and the first record has {width}; expected one for each class"
                )));
            }
            let mut on = Vec::new();
            for (text, &class) in items.texts.iter().zip(&mapping) {
                match truth(text) {
                    Some(true) => on.push(class),
                    Some(false) => {}
                    None => {
                        return Err(origin.error(format!(
                            "`{text}` among labels that are 0 or 1 for each class, as other records have them"
                        )));
                    }
                }
            }
            set(on);
        }
        sort(records);
        Ok(Some(all))
    }

    /// Returns true if each list has a 0 or 1 for each class.
    fn are_flags(&self, width: usize) -> bool {
        if !self.columns.is_empty() {
            return true;
        }
        let mut lists = self.lists.iter().map(|(items, _)| items);
        let certain = self
            .lists
            .iter()
            .any(|(items, _)| items.form == Form::Flags);
        let fits = match self.known {
            Some(known) => width == known.len(),
            None => width > 1,
        };
        certain
            || fits && lists.all(|items| items.form == Form::ZeroOne && items.texts.len() == width)
    }

    /// Returns the classes of flags, and the class of each flag.
    fn flagged(&self, path: &Path, width: usize) -> Result<(LabelSet, Vec<usize>), TrainError> {
        let in_order = || (0..width).collect();
        match self.known {
            None if self.columns.is_empty() => Ok((LabelSet::new(numbered(width))?, in_order())),
            None => Ok((LabelSet::new(self.columns.clone())?, in_order())),
            Some(known) if self.columns.is_empty() => {
                if known.len() == width {
                    return Ok((known.clone(), in_order()));
                }
                let message = format!(
                    "its lists have {width} values of 0 or 1, and the classes are {}: {}",
                    known.len(),
                    listed(known.names())
                );
                Err(TrainError::data_format(path, message))
            }
            Some(known) => Ok((known.clone(), by_name(path, &self.columns, known)?)),
        }
    }
}

/// Sorts the classes of each record, and leaves out those that are there twice.
fn sort(records: &mut [Record]) {
    for record in records {
        if let Some(Label::Set(classes)) = &mut record.label {
            classes.sort_unstable();
            classes.dedup();
        }
    }
}

/// Returns the text of a flag in a column.
fn flag(value: Option<Value>, column: &str) -> Result<String, String> {
    let text = match value {
        Some(Value::Bool(truth)) => truth.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.trim().to_string(),
        None | Some(Value::Null) => String::new(),
        Some(other) => jsonl::kind(&other).to_string(),
    };
    match truth(&text) {
        Some(_) => Ok(text),
        None => Err(format!(
            "the column `{column}` has `{text}`, expected 0 or 1"
        )),
    }
}

/// Returns the meaning of a flag; `None` for any other text.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        number => match number.parse::<f64>() {
            Ok(1.0) => Some(true),
            Ok(0.0) => Some(false),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(
        known: Option<&LabelSet>,
        columns: &[&str],
        rows: &[Value],
    ) -> Result<(Vec<String>, Vec<Vec<usize>>), String> {
        let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
        let path = Path::new("a.jsonl");
        let mut sets = Sets::new(known, columns.clone());
        let mut records = Vec::new();
        for (line, row) in rows.iter().enumerate() {
            let values = match row {
                Value::Object(row) => columns.iter().map(|name| row.get(name).cloned()).collect(),
                other => vec![Some(other.clone())],
            };
            let origin = Origin::new(path, line + 1);
            let label = sets.label(values, &origin)?;
            records.push(Record::text("x", origin).with_label(label));
        }
        let all = sets
            .finish(path, &mut records)
            .map_err(|error| error.to_string())?;
        let classes = records.iter().map(|record| match &record.label {
            Some(Label::Set(classes)) => classes.clone(),
            _ => vec![usize::MAX],
        });
        Ok((
            all.map_or_else(Vec::new, |all| all.names().to_vec()),
            classes.collect(),
        ))
    }

    #[test]
    fn lists_of_names_are_sets_of_classes() {
        let rows = [
            json!(["joy", "anger"]),
            json!([]),
            json!("fear"),
            json!(null),
        ];
        let (names, sets) = read(None, &[], &rows).unwrap();
        assert_eq!(names, ["anger", "fear", "joy"]);
        assert_eq!(sets, [vec![0, 2], vec![], vec![1], vec![usize::MAX]]);
        // A cell of a table, as pandas writes lists.
        let rows = [json!("['joy', 'anger']"), json!("[]"), json!("fear|joy")];
        assert_eq!(
            read(None, &[], &rows).unwrap().1,
            [vec![0, 2], vec![], vec![1, 2]]
        );
    }

    #[test]
    fn lists_of_zeros_and_ones_are_flags_and_of_other_numbers_indices() {
        let rows = [json!([0, 1, 1]), json!([1, 0, 0])];
        let (names, sets) = read(None, &[], &rows).unwrap();
        assert_eq!(names, ["LABEL_0", "LABEL_1", "LABEL_2"]);
        assert_eq!(sets, [vec![1, 2], vec![0]]);
        for rows in [
            [json!([0.0, 1.0]), json!([1.0, 1.0])],
            [json!("[0 1]"), json!("[1 1]")],
        ] {
            assert_eq!(read(None, &[], &rows).unwrap().1, [vec![1], vec![0, 1]]);
        }
        let rows = [json!([0, 1]), json!([27])];
        let (names, sets) = read(None, &[], &rows).unwrap();
        assert_eq!(names, ["0", "1", "27"]);
        assert_eq!(sets, [vec![0, 1], vec![2]]);
        // Three known classes: two numbers are indices.
        let known = LabelSet::new(["a", "b", "c"]).unwrap();
        let rows = [json!([0, 1]), json!([1, 0])];
        assert_eq!(
            read(Some(&known), &[], &rows).unwrap().1,
            [vec![0, 1], vec![0, 1]]
        );
        let rows = [json!([0, 1, 0]), json!([0.0, 1.0])];
        assert!(read(Some(&known), &[], &rows).is_err());
    }

    /// Lists of which one has the form of flags: what is no flag was taken for 0.
    #[test]
    fn what_is_no_flag_among_flags_is_refused() {
        for (rows, text) in [
            ([json!([0.0, 1.0]), json!([0.5, 1.0])], "`0.5`"),
            ([json!([true, false]), json!(["a", "b"])], "`a`"),
            ([json!([true, false]), json!([2, 0])], "`2`"),
            ([json!("[1.0 0.0]"), json!("no|yes")], "`no`"),
        ] {
            let mut orders = [rows.clone(), rows];
            orders[1].reverse();
            for (rows, line) in orders.iter().zip([2, 1]) {
                let message = read(None, &[], rows).unwrap_err();
                assert!(message.contains(text), "{message}");
                assert!(message.contains(&format!("line {line}")), "{message}");
            }
        }
        // Mixed forms of the same flags.
        let rows = [json!([true, false]), json!([0, 1]), json!([1.0, -0.0])];
        let sets = read(None, &[], &rows).unwrap().1;
        assert_eq!(sets, [vec![0], vec![1], vec![0]]);
    }

    #[test]
    fn cells_without_text_are_no_labels() {
        let rows = [json!({"a": "", "b": " "}), json!({"a": "1", "b": "0"})];
        let (_, sets) = read(None, &["a", "b"], &rows).unwrap();
        assert_eq!(sets, [vec![usize::MAX], vec![0]]);
        let rows = [json!({"a": "", "b": "1"})];
        let message = read(None, &["a", "b"], &rows).unwrap_err();
        assert!(message.contains("`a` has ``"), "{message}");
    }

    #[test]
    fn columns_are_matched_by_name() {
        let rows = [
            json!({"toxic": 1, "insult": "0"}),
            json!({"toxic": false, "insult": "1.0"}),
        ];
        let columns = ["toxic", "insult"];
        let (names, sets) = read(None, &columns, &rows).unwrap();
        assert_eq!(
            (names.as_slice(), sets),
            (&columns.map(String::from)[..], vec![vec![0], vec![1]])
        );
        let known = LabelSet::new(["Insult", "TOXIC"]).unwrap();
        assert_eq!(
            read(Some(&known), &columns, &rows).unwrap().1,
            [vec![1], vec![0]]
        );
        let known = LabelSet::new(["insult", "threat"]).unwrap();
        let message = read(Some(&known), &columns, &rows).unwrap_err();
        for name in ["`toxic`", "`insult`", "`threat`"] {
            assert!(message.contains(name), "{message}");
        }
        let rows = [json!({"toxic": 2, "insult": 0})];
        assert!(
            read(None, &columns, &rows)
                .unwrap_err()
                .contains("`toxic` has `2`")
        );
    }

    #[test]
    fn an_unknown_name_is_refused_with_both_lists() {
        let known = LabelSet::new(["joy", "anger"]).unwrap();
        let rows = [json!(["JOY"]), json!(["joy", "fear"])];
        let message = read(Some(&known), &[], &rows).unwrap_err();
        assert!(
            message.contains("a.jsonl:2") || message.contains("line 2"),
            "{message}"
        );
        assert!(
            message.contains("`joy`, `anger`") && message.contains("`fear`"),
            "{message}"
        );
    }
}
