//! Names of the columns of a table, or of the keys of JSON objects.

use serde::{Deserialize, Serialize};

use super::labels::{LabelKind, LabelSet, Unlabelled};
use super::row_layout::RowLayout;
use super::table::Table;
use crate::error::TrainError;

const TEXT: &str = "text";
const PROMPT: &str = "prompt";
const COMPLETION: &str = "completion";
const PAIR: &str = "pair";
const LABEL: &str = "label";
const LABELS: &str = "labels";
const ID: &str = "id";

/// Names of the columns (CSV, TSV) or keys (JSON Lines) to read. A column that is named must be there.
///
/// To train a language model, a record is `text`, or `prompt` and `completion`. Without names, the file decides;
/// a file with both forms is refused as ambiguous. Naming columns chooses the form, and the others are then ignored.
///
/// To classify, a record is `text` with its `label`, and may have `pair` and `id`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// Column of the text, of the first of two texts, or of the words. The default is `text`, and `tokens` for words. A
    /// record of a language model has either this or the next two.
    pub text: Option<String>,
    /// Column of the prompt; `prompt` if only `completion` is named.
    pub prompt: Option<String>,
    /// Column of the completion; `completion` if only `prompt` is named.
    pub completion: Option<String>,
    /// Column of the second text of a pair. The default is `pair`, if the file has it. JSON objects may lack it one by
    /// one.
    pub pair: Option<String>,
    /// Column of the label. The default is `label`; for words, it is the one of `ner_tags`, `labels` and `tags` that is
    /// there. Several labels have a list in the one of `label` and `labels` that is there, or columns of their own, named
    /// with commas between them.
    pub label: Option<String>,
    /// Column of the record's own name. The default is `id`, if the file has it.
    pub id: Option<String>,
    /// Column of the name of the record's adapter, which may be missing. By default no adapter is read.
    pub adapter: Option<String>,
}

/// Columns of a text, or of a prompt and its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextColumns<C> {
    Text(C),
    PromptCompletion(C, C),
}

impl<C> TextColumns<C> {
    /// Finds each of the columns.
    pub(super) fn try_map<D, E>(
        self,
        find: impl Fn(C) -> Result<D, E>,
    ) -> Result<TextColumns<D>, E> {
        Ok(match self {
            Self::Text(text) => TextColumns::Text(find(text)?),
            Self::PromptCompletion(prompt, completion) => {
                TextColumns::PromptCompletion(find(prompt)?, find(completion)?)
            }
        })
    }
}

/// Reason why the columns of a file do not make a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch<'a> {
    /// A required column is missing.
    Missing(&'a str),
    /// No column is named, and none has a default name.
    Neither,
    /// No column is named, and both forms are there.
    Both,
}

impl Columns {
    /// Names the column or key of whole texts.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::default()
        }
    }

    /// Names the columns or keys of prompts and completions.
    pub fn prompt_completion(prompt: impl Into<String>, completion: impl Into<String>) -> Self {
        Self {
            prompt: Some(prompt.into()),
            completion: Some(completion.into()),
            ..Self::default()
        }
    }

    /// Refuses names that contradict each other, for texts, prompts and completions.
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        if self.text.is_some() && (self.prompt.is_some() || self.completion.is_some()) {
            return Err(TrainError::config(
                "columns",
                "`text` is named together with `prompt` or `completion`; a record is one or the \
                 other, so name either `text` alone or the other two",
            ));
        }
        distinct([self.prompt.as_deref(), self.completion.as_deref()])
    }

    /// Refuses a column that is named twice, for texts with labels.
    pub(super) fn validate_labelled(&self) -> Result<(), TrainError> {
        distinct([
            Some(self.text.as_deref().unwrap_or(TEXT)),
            Some(self.label.as_deref().unwrap_or(LABEL)),
            self.pair.as_deref(),
            self.id.as_deref(),
        ])
    }

    /// Refuses a column that is named twice, for words with labels.
    pub(super) fn validate_words(&self) -> Result<(), TrainError> {
        distinct([self.text.as_deref(), self.label.as_deref()])
    }

    /// Chooses the columns to read, where `has` returns true for a column that is there.
    pub(super) fn text_columns(
        &self,
        has: impl Fn(&str) -> bool,
    ) -> Result<TextColumns<&str>, Mismatch<'_>> {
        if let Some(text) = &self.text {
            return if has(text) {
                Ok(TextColumns::Text(text))
            } else {
                Err(Mismatch::Missing(text))
            };
        }

        let named = self.prompt.is_some() || self.completion.is_some();
        let prompt = self.prompt.as_deref().unwrap_or(PROMPT);
        let completion = self.completion.as_deref().unwrap_or(COMPLETION);
        if !named && has(TEXT) {
            return if has(prompt) || has(completion) {
                Err(Mismatch::Both)
            } else {
                Ok(TextColumns::Text(TEXT))
            };
        }
        match (has(prompt), has(completion)) {
            (true, true) => Ok(TextColumns::PromptCompletion(prompt, completion)),
            (true, false) => Err(Mismatch::Missing(completion)),
            (false, true) => Err(Mismatch::Missing(prompt)),
            (false, false) if named => Err(Mismatch::Missing(prompt)),
            (false, false) => Err(Mismatch::Neither),
        }
    }

    /// Finds the columns of a table with labels.
    ///
    /// # Errors
    /// [`TrainError::Column`] if a column is missing.
    pub(super) fn row_layout<'a>(
        &'a self,
        table: &Table,
        kind: LabelKind,
        known: Option<&'a LabelSet>,
        unlabelled: Unlabelled,
    ) -> Result<RowLayout<'a>, TrainError> {
        // A default name stands aside for a column that is named.
        let named = [&self.text, &self.label, &self.pair, &self.id].map(Option::as_deref);
        let default = |name: &'static str| {
            table.optional(Some(name).filter(|name| !named.contains(&Some(*name))))
        };
        let (label, labels) = self.label_columns(table, kind, known)?;
        let labels = labels
            .into_iter()
            .map(|name| Ok((name, table.column(name)?)));
        let labels = labels.collect::<Result<Vec<_>, TrainError>>()?;
        Ok(RowLayout {
            first: table.column(self.text.as_deref().unwrap_or(TEXT))?,
            second: match &self.pair {
                Some(pair) if table.has_objects() => table.optional(Some(pair))?,
                Some(pair) => Some(table.column(pair)?),
                None => default(PAIR)?,
            },
            needs_second: false,
            label: if !labels.is_empty() {
                None
            } else if self.label.is_some() || unlabelled == Unlabelled::Refuse {
                Some(table.column(label)?)
            } else {
                table.optional(Some(label))?
            },
            labels,
            id: match &self.id {
                Some(id) => Some(table.column(id)?),
                None => default(ID)?,
            },
            undecided: None,
            skip_without_label: false,
        })
    }
}

impl Columns {
    /// Returns the column of the label, or those of several labels, if each has its own.
    fn label_columns<'a>(
        &'a self,
        table: &Table,
        kind: LabelKind,
        known: Option<&'a LabelSet>,
    ) -> Result<(&'a str, Vec<&'a str>), TrainError> {
        let several = kind != LabelKind::Classes;
        match self.label.as_deref() {
            Some(named) if named.contains(',') && !table.has(named) => {
                let names: Vec<&str> = named.split(',').map(str::trim).collect();
                if !several {
                    let message = format!(
                        "`{named}` names several columns, and a record has one class; choose \
                         multi-label-classification, or regression, for several labels"
                    );
                    return Err(TrainError::config("label_column", message));
                }
                let others = [
                    self.text.as_deref(),
                    self.pair.as_deref(),
                    self.id.as_deref(),
                ];
                distinct(others.into_iter().chain(names.iter().copied().map(Some)))?;
                Ok((named, names))
            }
            Some(named) => Ok((named, Vec::new())),
            None if !several || table.has(LABEL) => Ok((LABEL, Vec::new())),
            None if table.has(LABELS) => Ok((LABELS, Vec::new())),
            None => {
                let names = known.map_or(&[][..], LabelSet::names).iter();
                let names: Vec<&str> = names.map(String::as_str).collect();
                if names.iter().all(|name| table.has(name)) {
                    return Ok((LABEL, names));
                }
                Ok((LABEL, Vec::new()))
            }
        }
    }
}

/// Refuses a name that stands for two columns.
fn distinct<'a>(names: impl IntoIterator<Item = Option<&'a str>>) -> Result<(), TrainError> {
    let names: Vec<&str> = names.into_iter().flatten().collect();
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            let message =
                format!("the column `{name}` is to be read as two things; name two columns");
            return Err(TrainError::config("columns", message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout<'a>(
        columns: &'a Columns,
        there: &[&str],
    ) -> Result<TextColumns<&'a str>, Mismatch<'a>> {
        columns.text_columns(|name| there.contains(&name))
    }

    #[test]
    fn without_names_the_form_is_the_one_that_is_there() {
        let columns = Columns::default();
        assert_eq!(
            layout(&columns, &["id", "text"]),
            Ok(TextColumns::Text("text"))
        );
        assert_eq!(
            layout(&columns, &["completion", "prompt"]),
            Ok(TextColumns::PromptCompletion("prompt", "completion"))
        );
    }

    #[test]
    fn without_names_both_forms_neither_and_half_a_form_are_refused() {
        let columns = Columns::default();
        assert_eq!(layout(&columns, &["text", "prompt"]), Err(Mismatch::Both));
        assert_eq!(layout(&columns, &["sentence"]), Err(Mismatch::Neither));
        assert_eq!(
            layout(&columns, &["prompt"]),
            Err(Mismatch::Missing("completion"))
        );
        assert_eq!(
            layout(&columns, &["completion"]),
            Err(Mismatch::Missing("prompt"))
        );
    }

    #[test]
    fn a_name_chooses_the_form_where_both_are_there() {
        let there = ["text", "prompt", "completion", "answer"];
        let text = Columns::text("text");
        assert_eq!(layout(&text, &there), Ok(TextColumns::Text("text")));
        let pair = Columns {
            completion: Some("answer".into()),
            ..Columns::default()
        };
        assert_eq!(
            layout(&pair, &there),
            Ok(TextColumns::PromptCompletion("prompt", "answer"))
        );
    }

    #[test]
    fn a_named_column_that_is_not_there_is_reported_by_its_name() {
        let columns = Columns::prompt_completion("question", "answer");
        assert_eq!(
            layout(&columns, &["text"]),
            Err(Mismatch::Missing("question"))
        );
        assert_eq!(
            layout(&Columns::text("body"), &["text"]),
            Err(Mismatch::Missing("body"))
        );
    }

    #[test]
    fn names_for_both_forms_contradict_each_other() {
        let both = Columns {
            text: Some("a".into()),
            prompt: Some("b".into()),
            ..Columns::default()
        };
        assert!(both.validate().is_err());
        assert!(Columns::prompt_completion("a", "a").validate().is_err());
        assert!(Columns::prompt_completion("a", "b").validate().is_ok());
    }

    #[test]
    fn a_column_cannot_be_two_things() {
        let columns = Columns {
            label: Some("text".into()),
            ..Columns::default()
        };
        let message = columns.validate_labelled().unwrap_err().to_string();
        assert!(message.contains("`text` is to be read as two"), "{message}");
        let swapped = Columns {
            text: Some("label".into()),
            label: Some("text".into()),
            ..Columns::default()
        };
        assert!(swapped.validate_labelled().is_ok());
    }

    #[test]
    fn an_unknown_key_of_a_configuration_file_is_refused() {
        let columns: Columns = serde_json::from_str(r#"{"text": "body"}"#).unwrap();
        assert_eq!(columns.text.as_deref(), Some("body"));
        assert!(serde_json::from_str::<Columns>(r#"{"labels": "y"}"#).is_err());
    }
}
