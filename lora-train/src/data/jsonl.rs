//! Objects of a JSON Lines file, one a line, or of a Parquet file, one a row.

use std::path::Path;

use serde_json::{Map, Value};

use super::lines::Lines;
use super::parquet::{ParquetRows, is_parquet};
use super::record::Origin;
use crate::error::TrainError;

/// JSON object.
pub(super) type Object = Map<String, Value>;

/// Reader of a JSON Lines file object by object, without blank lines, or of a Parquet file row by row.
pub(super) enum Objects {
    Lines(Lines),
    Rows(Box<ParquetRows>),
}

impl Objects {
    /// Opens `path` at its first object.
    pub(super) fn open(path: &Path) -> Result<Self, TrainError> {
        if is_parquet(path)? {
            return Ok(Self::Rows(Box::new(ParquetRows::open(path)?)));
        }
        Lines::open(path).map(Self::Lines)
    }

    /// Returns the next object, with its line; `None` at the end of the file.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a line that is no object, too long or not UTF-8;
    /// [`TrainError::Io`].
    pub(super) fn next_object(&mut self) -> Result<Option<(Object, Origin)>, TrainError> {
        let lines = match self {
            Self::Lines(lines) => lines,
            Self::Rows(rows) => return rows.next_object(),
        };
        let Some((line, origin)) = lines.next_text()? else {
            return Ok(None);
        };
        let object = parse_object(&line).map_err(|message| origin.error(message))?;
        Ok(Some((object, origin)))
    }
}

/// Parses a line as a JSON object.
pub(super) fn parse_object(line: &str) -> Result<Object, String> {
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Array(_)) => Err(
            "expected a JSON object, found an array; write one object per line instead of an array \
             of objects"
                .to_string(),
        ),
        Ok(other) => Err(format!("expected a JSON object, found {}", kind(&other))),
        // serde_json counts lines within its input, which is always line 1 here: a
        // misleading number beside the line of the file.
        Err(error) => {
            let message = error.to_string();
            let cause = message.split(" at line ").next().unwrap_or(&message);
            Err(format!("invalid JSON at column {}: {cause}", error.column()))
        }
    }
}

/// Returns the string under `key`; `None` if the key is missing or null.
pub(super) fn optional_string(value: Option<Value>, key: &str) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => string(Some(value), key).map(Some),
    }
}

/// Returns the string under `key`, which must be there.
pub(super) fn string(value: Option<Value>, key: &str) -> Result<String, String> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!(
            "the value of \"{key}\" is {}, expected a string",
            kind(&other)
        )),
        None => Err(format!("the object has no key \"{key}\"")),
    }
}

/// Returns the type of a value, in words.
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
