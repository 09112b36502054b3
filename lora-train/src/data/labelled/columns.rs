//! Which columns of somebody's own data hold the texts and the label.

use serde::{Deserialize, Serialize};

use super::record::Unlabelled;
use super::row_plan::Plan;
use super::table::{Column, Table};
use crate::error::TrainError;

const TEXT: &str = "text";
const PAIR: &str = "pair";
const LABEL: &str = "label";
const ID: &str = "id";

/// The names of the columns (CSV, TSV) or keys (JSON Lines) to read. One that is named must be
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelledColumns {
    /// The column of the text, or of the first of two; `text` if none is named.
    pub text: Option<String>,
    /// The column of the second text; if none is named, `pair` where that is there.
    pub pair: Option<String>,
    /// The column of the label; `label` if none is named.
    pub label: Option<String>,
    /// The column of what a record is called; if none is named, `id` where that is there.
    pub id: Option<String>,
}

impl LabelledColumns {
    /// Refuses a column that is named twice.
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        let text = self.text.as_deref().unwrap_or(TEXT);
        let label = self.label.as_deref().unwrap_or(LABEL);
        let named = [
            Some(text),
            Some(label),
            self.pair.as_deref(),
            self.id.as_deref(),
        ];
        let named: Vec<&str> = named.into_iter().flatten().collect();
        for (at, name) in named.iter().enumerate() {
            if named[..at].contains(name) {
                return Err(TrainError::config(
                    "columns",
                    format!("the column `{name}` is to be read as two things; name two columns"),
                ));
            }
        }
        Ok(())
    }

    /// What to read from a table.
    ///
    /// # Errors
    /// [`TrainError::Column`] if a column is missing.
    pub(super) fn plan(&self, table: &Table, unlabelled: Unlabelled) -> Result<Plan, TrainError> {
        let taken = |name: &str| {
            [&self.text, &self.label, &self.pair, &self.id]
                .into_iter()
                .any(|named| named.as_deref() == Some(name))
        };
        let pair = match &self.pair {
            Some(pair) => Some(table.named(pair)?),
            None if table.has(PAIR) && !taken(PAIR) => Some(table.named(PAIR)?),
            None => None,
        };
        let label = self.label.as_deref().unwrap_or(LABEL);
        let label = match (&self.label, unlabelled) {
            (Some(_), _) | (None, Unlabelled::Refuse) => Some(table.column(label)?),
            (None, Unlabelled::Accept) => table.optional(label)?,
        };
        Ok(Plan {
            first: table.named(self.text.as_deref().unwrap_or(TEXT))?,
            absent: match &pair {
                None if !taken(PAIR) => absent(table)?,
                _ => None,
            },
            second: pair,
            label,
            id: match &self.id {
                Some(id) => Some(table.column(id)?),
                None if !taken(ID) => table.optional(ID)?,
                None => None,
            },
            undecided: None,
            skip_without_label: false,
        })
    }
}

/// The key that no later object may have, because it would not be read.
fn absent(table: &Table) -> Result<Option<(Column, String)>, TrainError> {
    let column = table.optional(PAIR)?;
    Ok(column.map(|column| (column, PAIR.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_cannot_be_two_things() {
        let columns = LabelledColumns {
            label: Some("text".into()),
            ..LabelledColumns::default()
        };
        let message = columns.validate().unwrap_err().to_string();
        assert!(message.contains("`text` is to be read as two"), "{message}");
        let swapped = LabelledColumns {
            text: Some("label".into()),
            label: Some("text".into()),
            ..LabelledColumns::default()
        };
        assert!(swapped.validate().is_ok());
    }

    #[test]
    fn an_unknown_key_of_a_configuration_file_is_refused() {
        let columns: LabelledColumns = serde_json::from_str(r#"{"text": "body"}"#).unwrap();
        assert_eq!(columns.text.as_deref(), Some("body"));
        assert!(serde_json::from_str::<LabelledColumns>(r#"{"labels": "y"}"#).is_err());
    }
}
