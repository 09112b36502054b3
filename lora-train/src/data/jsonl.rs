//! JSON Lines: one object a line, `{"text": …}` or `{"prompt": …, "completion": …}`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::columns::{Columns, Layout, Mismatch};
use super::lines::{Lines, is_blank};
use super::record::{Origin, Record};
use crate::error::TrainError;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// Reads every record of the file. Keys that are not asked for are ignored.
pub(super) fn read(path: &Path, columns: &Columns) -> Result<Vec<Record>, TrainError> {
    let mut objects = Objects::open(path)?;
    let mut records = Vec::new();
    while let Some((object, origin)) = objects.next_object()? {
        let number = origin.line();
        let record = record(object, origin, columns)
            .map_err(|message| TrainError::data_line(path, number, message))?;
        records.push(record);
    }
    Ok(records)
}

/// Reads a file of JSON Lines object by object. Blank lines are skipped.
pub(super) struct Objects {
    lines: Lines,
    path: PathBuf,
}

impl Objects {
    /// Opens `path` at its first object.
    pub(super) fn open(path: &Path) -> Result<Self, TrainError> {
        Ok(Self {
            lines: Lines::open(path)?,
            path: path.to_path_buf(),
        })
    }

    /// The next object, and the line it stands on; `None` at the end of the file.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a line that is no object, too long or not UTF-8;
    /// [`TrainError::Io`].
    pub(super) fn next_object(&mut self) -> Result<Option<(Object, Origin)>, TrainError> {
        while let Some((line, origin)) = self.lines.next_line()? {
            if !is_blank(line) {
                let object = parse_object(line)
                    .map_err(|message| TrainError::data_line(&self.path, origin.line(), message))?;
                return Ok(Some((object, origin)));
            }
        }
        Ok(None)
    }
}

/// The record that an object is, or what is wrong with it.
fn record(mut object: Object, origin: Origin, columns: &Columns) -> Result<Record, String> {
    let layout =
        columns
            .layout(|key| object.contains_key(key))
            .map_err(|mismatch| match mismatch {
                Mismatch::Missing(key) => format!("the object has no key \"{key}\""),
                Mismatch::Neither => {
                    "the object has neither a key \"text\" nor the keys \"prompt\" and \
                                  \"completion\"; name the keys to read if they have other names"
                        .to_string()
                }
                Mismatch::Both => {
                    "the object has \"text\" as well as \"prompt\" or \"completion\"; name \
                               the keys to read"
                        .to_string()
                }
            })?;
    match layout {
        Layout::Text(key) => Ok(Record::text(take_string(&mut object, key)?, origin)),
        Layout::PromptCompletion(prompt, completion) => Ok(Record::prompt_completion(
            take_string(&mut object, prompt)?,
            take_string(&mut object, completion)?,
            origin,
        )),
    }
}

/// The line as a JSON object.
pub(super) fn parse_object(line: &str) -> Result<Object, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Array(_)) => Err(
            "expected a JSON object, found an array; write one object per line instead of an array \
             of objects"
                .to_string(),
        ),
        Ok(other) => Err(format!("expected a JSON object, found {}", kind(&other))),
        // serde_json counts lines within what it was given, which is always line 1 here: a
        // misleading number beside the line of the file.
        Err(error) => {
            let message = error.to_string();
            let cause = message.split(" at line ").next().unwrap_or(&message);
            Err(format!("invalid JSON at column {}: {cause}", error.column()))
        }
    }
}

fn take_string(object: &mut Object, key: &str) -> Result<String, String> {
    match object.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!(
            "the value of \"{key}\" is {}, expected a string",
            kind(&other)
        )),
        None => Err(format!("the object has no key \"{key}\"")),
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new(Path::new("train.jsonl"), 3)
    }

    fn parsed(line: &str) -> Result<Record, String> {
        record(parse_object(line)?, origin(), &Columns::default())
    }

    #[test]
    fn both_forms_are_read_and_extra_keys_ignored() {
        assert_eq!(
            parsed(r#"{"id": 7, "text": "a \"b\"\n"}"#).unwrap(),
            Record::text("a \"b\"\n", origin())
        );
        assert_eq!(
            parsed(r#"{"completion": " c", "meta": {"x": [1]}, "prompt": "p"}"#).unwrap(),
            Record::prompt_completion("p", " c", origin())
        );
    }

    #[test]
    fn other_keys_can_be_named() {
        let columns = Columns::prompt_completion("q", "a");
        let line = r#"{"q": "1+1?", "a": "2", "text": "ignored"}"#;
        assert_eq!(
            record(parse_object(line).unwrap(), origin(), &columns).unwrap(),
            Record::prompt_completion("1+1?", "2", origin())
        );
    }

    #[test]
    fn each_malformed_object_is_refused_with_its_reason() {
        for (line, reason) in [
            (r#"{"text": "a", "prompt": "b"}"#, "as well as"),
            (r#"{"label": 1}"#, "neither"),
            (r#"{"prompt": "b"}"#, "no key \"completion\""),
            (r#"{"text": null}"#, "is null, expected a string"),
            (r#"{"prompt": "b", "completion": 3}"#, "is a number"),
            (r#"[{"text": "a"}]"#, "found an array"),
            (r#""text""#, "found a string"),
            (r#"{"text": "a""#, "invalid JSON at column 12"),
            (r#"{"text": "a"} {"text": "b"}"#, "trailing characters"),
        ] {
            let message = parsed(line).unwrap_err();
            assert!(message.contains(reason), "{line}: {message}");
            assert!(!message.contains("line 1"), "{line}: {message}");
        }
    }

    #[test]
    fn nesting_without_end_is_an_error_not_a_stack_overflow() {
        let line = format!("{{\"text\": {}", "[".repeat(1_000_000));
        assert!(parsed(&line).unwrap_err().contains("recursion limit"));
    }
}
