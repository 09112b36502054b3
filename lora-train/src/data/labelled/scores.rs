//! Records with one number, or several: a list of them, or a column for each.

use std::path::Path;

use serde_json::Value;

use super::list::{by_name, is_absent, items};
use crate::data::labels::{LabelSet, numbered};
use crate::data::record::{Label, Record};
use crate::error::{TrainError, listed};

/// Reader of records with one number or several.
pub(super) struct Scores<'a> {
    known: Option<&'a LabelSet>,
    /// Names of the columns, if each number has its own.
    columns: Vec<String>,
    /// Number of values of each record, once a record has some.
    width: Option<usize>,
}

impl<'a> Scores<'a> {
    /// Creates the reader: `known` are the names of the numbers, if they have any; `columns` are named if each number has its
    /// own.
    pub(super) fn new(known: Option<&'a LabelSet>, columns: Vec<String>) -> Self {
        Self {
            known,
            columns,
            width: None,
        }
    }

    /// Reads the numbers of the next record; `None` if there are none.
    pub(super) fn label(
        &mut self,
        mut values: Vec<Option<Value>>,
    ) -> Result<Option<Label>, String> {
        let texts = if self.columns.is_empty() {
            match items(values.pop().flatten())? {
                Some(items) => items.texts,
                None => return Ok(None),
            }
        } else {
            if values.iter().all(|value| is_absent(value.as_ref())) {
                return Ok(None);
            }
            let cells = self.columns.iter().zip(values);
            let cells = cells.map(|(name, value)| match value {
                Some(Value::Number(number)) => Ok(number.to_string()),
                Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim().to_string()),
                _ => Err(format!("the column `{name}` has no number")),
            });
            cells.collect::<Result<_, _>>()?
        };
        let scores = texts.iter().map(|text| score(text));
        let scores = scores.collect::<Result<Vec<f64>, _>>()?;
        let (width, found) = (*self.width.get_or_insert(scores.len()), scores.len());
        if found != width {
            return Err(format!(
                "{found} numbers, and the first record has {width}; each record needs as many"
            ));
        }
        Ok(match scores.as_slice() {
            [] => return Err("an empty list; expected a number".into()),
            [score] => Some(Label::Score(*score)),
            _ => Some(Label::Scores(scores)),
        })
    }

    /// Puts the numbers of the records in the order of the known names, and returns the names of several numbers; none for one
    /// number.
    ///
    /// # Errors
    /// If there are other numbers than the known names say.
    pub(super) fn finish(
        self,
        path: &Path,
        records: &mut [Record],
    ) -> Result<Vec<String>, TrainError> {
        let Some(width) = self.width else {
            return Ok(self
                .known
                .map_or_else(Vec::new, |known| known.names().to_vec()));
        };
        if let Some(known) = self.known
            && known.len() != width
        {
            let message = format!(
                "each record has {width} numbers, and the outputs are {}: {}",
                known.len(),
                listed(known.names())
            );
            return Err(TrainError::data_format(path, message));
        }
        if width == 1 {
            return Ok(Vec::new());
        }
        match self.known {
            None if self.columns.is_empty() => Ok(numbered(width)),
            None => Ok(self.columns),
            Some(known) if self.columns.is_empty() || known.is_generic() => {
                Ok(known.names().to_vec())
            }
            Some(known) => {
                let mapping = by_name(path, &self.columns, known)?;
                let labels = records
                    .iter_mut()
                    .filter_map(|record| record.label.as_mut());
                for label in labels {
                    if let Label::Scores(scores) = label {
                        let mut ordered = vec![0.0; width];
                        for (score, &output) in scores.iter().zip(&mapping) {
                            ordered[output] = *score;
                        }
                        *scores = ordered;
                    }
                }
                Ok(known.names().to_vec())
            }
        }
    }
}

/// Parses a label as a score.
pub(super) fn score(raw: &str) -> Result<f64, String> {
    match raw.parse::<f64>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => Err(format!(
            "the label `{raw}` is no score; expected a number, or choose classes"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::record::Origin;
    use serde_json::json;

    #[test]
    fn numbers_stand_in_lists_or_columns() {
        let path = Path::new("a.csv");
        let mut scores = Scores::new(None, Vec::new());
        let label = |scores: &mut Scores, value: Value| scores.label(vec![Some(value)]);
        let expected = Ok(Some(Label::Scores(vec![0.5, -1.0])));
        assert_eq!(label(&mut scores, json!([0.5, -1])), expected);
        assert_eq!(label(&mut scores, json!("[0.5, -1]")), expected);
        assert!(
            label(&mut scores, json!([1, 2, 3]))
                .unwrap_err()
                .contains("first record has 2")
        );
        assert_eq!(
            scores.finish(path, &mut []).unwrap(),
            ["LABEL_0", "LABEL_1"]
        );

        // A cell of CSV without a value is text.
        let columns = ["a", "b"].map(String::from).to_vec();
        let mut scores = Scores::new(None, columns);
        let cells = |cells: [&str; 2]| cells.map(|cell| Some(json!(cell))).to_vec();
        assert_eq!(scores.label(cells(["", " "])), Ok(None));
        assert_eq!(scores.label(vec![None, Some(json!(""))]), Ok(None));
        let refused = scores.label(cells(["1", ""])).unwrap_err();
        assert_eq!(refused, "the column `b` has no number");

        let known = LabelSet::new(["valence", "arousal"]).unwrap();
        let columns = ["Arousal", "valence"].map(String::from).to_vec();
        let mut scores = Scores::new(Some(&known), columns);
        let values = vec![Some(json!("2.5")), Some(json!(1))];
        let label = scores.label(values).unwrap();
        let mut records = [Record::text("x", Origin::new(path, 1)).with_label(label)];
        assert_eq!(scores.finish(path, &mut records).unwrap(), known.names());
        assert_eq!(records[0].label, Some(Label::Scores(vec![1.0, 2.5])));
    }
}
