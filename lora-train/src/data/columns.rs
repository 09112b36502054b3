//! Which columns of a table, or keys of a JSON object, hold the text.

use serde::{Deserialize, Serialize};

use crate::error::TrainError;

const TEXT: &str = "text";
const PROMPT: &str = "prompt";
const COMPLETION: &str = "completion";

/// The names of the columns (CSV, TSV) or keys (JSON Lines) to read.
///
/// With none given, a record is either `text`, or `prompt` and `completion`, whichever the file
/// has; a file with both forms is refused, because which one is meant cannot be told. Naming
/// columns chooses the form, and the others are then ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The column of a whole text. Not together with the other two.
    pub text: Option<String>,
    /// The column of the prompt; `prompt` if only `completion` is named.
    pub prompt: Option<String>,
    /// The column of the completion; `completion` if only `prompt` is named.
    pub completion: Option<String>,
}

/// The columns to read, once it is known which there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout<'a> {
    Text(&'a str),
    PromptCompletion(&'a str, &'a str),
}

/// Why the columns there are do not make a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch<'a> {
    /// A column that is needed is not there.
    Missing(&'a str),
    /// Nothing was named, and no column has a default name.
    Neither,
    /// Nothing was named, and both forms are there.
    Both,
}

impl Columns {
    /// Reads whole texts from the column or key `text`.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::default()
        }
    }

    /// Reads prompts and completions from the columns or keys of these names.
    pub fn prompt_completion(prompt: impl Into<String>, completion: impl Into<String>) -> Self {
        Self {
            text: None,
            prompt: Some(prompt.into()),
            completion: Some(completion.into()),
        }
    }

    /// Refuses names that contradict each other.
    pub(super) fn validate(&self) -> Result<(), TrainError> {
        if self.text.is_some() && (self.prompt.is_some() || self.completion.is_some()) {
            return Err(TrainError::config(
                "columns",
                "`text` is named together with `prompt` or `completion`; a record is one or the \
                 other, so name either `text` alone or the other two",
            ));
        }
        if self.prompt.is_some() && self.prompt == self.completion {
            return Err(TrainError::config(
                "columns",
                "`prompt` and `completion` name the same column; name two",
            ));
        }
        Ok(())
    }

    /// Which columns to read, where `has` tells whether a column is there.
    pub(super) fn layout(&self, has: impl Fn(&str) -> bool) -> Result<Layout<'_>, Mismatch<'_>> {
        if let Some(text) = &self.text {
            return if has(text) {
                Ok(Layout::Text(text))
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
                Ok(Layout::Text(TEXT))
            };
        }
        match (has(prompt), has(completion)) {
            (true, true) => Ok(Layout::PromptCompletion(prompt, completion)),
            (true, false) => Err(Mismatch::Missing(completion)),
            (false, true) => Err(Mismatch::Missing(prompt)),
            (false, false) if named => Err(Mismatch::Missing(prompt)),
            (false, false) => Err(Mismatch::Neither),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout<'a>(columns: &'a Columns, there: &[&str]) -> Result<Layout<'a>, Mismatch<'a>> {
        columns.layout(|name| there.contains(&name))
    }

    #[test]
    fn without_names_the_form_is_the_one_that_is_there() {
        let columns = Columns::default();
        assert_eq!(layout(&columns, &["id", "text"]), Ok(Layout::Text("text")));
        assert_eq!(
            layout(&columns, &["completion", "prompt"]),
            Ok(Layout::PromptCompletion("prompt", "completion"))
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
        assert_eq!(layout(&text, &there), Ok(Layout::Text("text")));
        let pair = Columns {
            completion: Some("answer".into()),
            ..Columns::default()
        };
        assert_eq!(
            layout(&pair, &there),
            Ok(Layout::PromptCompletion("prompt", "answer"))
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
            completion: None,
        };
        assert!(both.validate().is_err());
        assert!(Columns::prompt_completion("a", "a").validate().is_err());
        assert!(Columns::prompt_completion("a", "b").validate().is_ok());
    }
}
