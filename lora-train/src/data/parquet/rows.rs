//! Rows of a Parquet file, one by one.

use super::PlacedObject;
use crate::data::lines::MAX_LINE_BYTES;
use crate::data::record::Origin;
use crate::data::rows::MAX_COLUMNS;
use crate::error::TrainError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use lora_core::files::open_regular;
use serde_json::{Map, Number, Value};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Largest number of values within values.
const MAX_DEPTH: usize = 32;

/// Reader of a Parquet file row by row. The line of a row is its number, from 1.
///
/// Texts, numbers and truth values are as in JSON; binary values must be UTF-8; dates, times and decimals become texts. Lists and
/// structs are arrays and objects, and maps are objects. A field of a struct that is null is left out, because all structs of a column have the
/// same fields: a message without `tool_calls` has no such key.
pub(in crate::data) struct ParquetRows {
    rows: RowIter<'static>,
    count: usize,
    path: Arc<Path>,
    row: usize,
}

impl ParquetRows {
    /// Opens `path` at its first row.
    pub(in crate::data) fn open(path: &Path) -> Result<Self, TrainError> {
        let malformed = |reason: String| {
            TrainError::data_format(path, format!("cannot be read as Parquet: {reason}"))
        };
        let (file, _) = open_regular(path)?;
        let reader = guarded(|| SerializedFileReader::new(file)).map_err(malformed)?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let columns = schema.num_columns();
        if columns > MAX_COLUMNS {
            return Err(malformed(format!(
                "it has {columns} columns, and {MAX_COLUMNS} are the most"
            )));
        }
        let count = reader.metadata().file_metadata().num_rows();
        Ok(Self {
            count: usize::try_from(count).unwrap_or(0),
            rows: RowIter::from_file_into(Box::new(reader)),
            path: Arc::from(path),
            row: 0,
        })
    }

    /// Returns the number of rows that the file says it has.
    pub(in crate::data) fn count(&self) -> usize {
        self.count
    }

    /// Returns the next row as an object; `None` at the end of the file.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a row that cannot be read, or has more text than a line may have.
    pub(in crate::data) fn next_object(&mut self) -> Result<Option<PlacedObject>, TrainError> {
        self.row += 1;
        let origin = Origin::new(self.path.clone(), self.row);
        let rows = &mut self.rows;
        let row = guarded(|| rows.next().transpose()).map_err(|reason| origin.error(reason))?;
        let Some(row) = row else {
            return Ok(None);
        };
        let mut left = MAX_LINE_BYTES;
        let object = object(row, &mut left, 0, true);
        let object = object.map_err(|message| origin.error(message))?;
        Ok(Some((object, origin)))
    }
}

/// Calls the reader, which panics on some malformed files.
fn guarded<T>(read: impl FnOnce() -> ::parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("the file is malformed".into()),
    }
}

/// Returns the object of a row or struct. `left` is the number of bytes that the row may still have.
fn object(
    row: Row,
    left: &mut usize,
    depth: usize,
    keeps_null: bool,
) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (name, field) in row.into_columns() {
        let value = value(field, left, depth).map_err(|error| match depth {
            0 => format!("column `{name}`: {error}"),
            _ => error,
        })?;
        if keeps_null || !value.is_null() {
            object.insert(name, value);
        }
    }
    Ok(object)
}

/// Returns the value of a field.
fn value(field: Field, left: &mut usize, depth: usize) -> Result<Value, String> {
    if depth == MAX_DEPTH {
        return Err(format!("more than {MAX_DEPTH} values within values"));
    }
    let mut take = |bytes: usize| {
        *left = left.checked_sub(bytes).ok_or_else(|| {
            format!(
                "a row of more than {} MiB, the maximum for a line",
                MAX_LINE_BYTES / (1024 * 1024)
            )
        })?;
        Ok::<(), String>(())
    };
    // Values without text have a size, too.
    take(1)?;
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => truth.into(),
        Field::Byte(number) => number.into(),
        Field::Short(number) => number.into(),
        Field::Int(number) => number.into(),
        Field::Long(number) => number.into(),
        Field::UByte(number) => number.into(),
        Field::UShort(number) => number.into(),
        Field::UInt(number) => number.into(),
        Field::ULong(number) => number.into(),
        Field::Float16(number) => float(number.to_f64()),
        Field::Float(number) => float(number.into()),
        Field::Double(number) => float(number),
        Field::Str(text) => {
            take(text.len())?;
            text.into()
        }
        Field::Bytes(bytes) => {
            take(bytes.len())?;
            let text = std::str::from_utf8(bytes.data());
            text.map_err(|_| "binary values, expected text")?.into()
        }
        Field::Group(row) => Value::Object(object(row, left, depth + 1, false)?),
        Field::ListInternal(list) => {
            let elements = list.elements().iter();
            let elements = elements.map(|element| value(element.clone(), left, depth + 1));
            Value::Array(elements.collect::<Result<_, _>>()?)
        }
        Field::MapInternal(map) => {
            let mut object = Map::new();
            for (key, field) in map.entries() {
                let Value::String(key) = value(key.clone(), left, depth + 1)? else {
                    return Err("a map whose keys are no texts".into());
                };
                object.insert(key, value(field.clone(), left, depth + 1)?);
            }
            Value::Object(object)
        }
        other @ (Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_)) => {
            let text = other.to_string();
            take(text.len())?;
            text.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{SourceOptions, read_records};
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet");
        tests.join(name)
    }

    fn objects(path: &Path) -> Result<Vec<Map<String, Value>>, TrainError> {
        let mut rows = ParquetRows::open(path)?;
        let mut objects = Vec::new();
        while let Some((object, origin)) = rows.next_object()? {
            objects.push(object);
            assert_eq!(origin.line(), objects.len());
        }
        Ok(objects)
    }

    /// The same rows as JSON Lines, by pyarrow.
    fn lines(name: &str) -> Vec<Map<String, Value>> {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    #[test]
    fn rows_are_the_objects_of_json_lines() {
        for (parquet, jsonl) in [
            ("values.parquet", "values.jsonl"),
            ("values_zstd.parquet", "values.jsonl"),
            ("values_gzip.parquet", "values.jsonl"),
            ("chats.parquet", "chats.jsonl"),
        ] {
            assert_eq!(
                objects(&fixture(parquet)).unwrap(),
                lines(jsonl),
                "{parquet}"
            );
        }
    }

    #[test]
    fn records_are_those_of_json_lines() {
        for (parquet, jsonl) in [
            ("chats.parquet", "chats.jsonl"),
            ("pairs.parquet", "pairs.jsonl"),
        ] {
            let read = |name| read_records(&fixture(name), &SourceOptions::default()).unwrap();
            let content = |name| read(name).into_iter().map(|record| record.content);
            assert!(content(parquet).eq(content(jsonl)), "{parquet}");
        }
    }

    /// Each byte changed and each part of a file: an error, or other rows, and no panic.
    #[test]
    fn damaged_files_end_in_errors() {
        let whole = std::fs::read(fixture("chats.parquet")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.parquet");
        let mut refused = 0;
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            refused += usize::from(objects(&path).is_err());
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(objects(&path).is_err(), "{at}");
        }
        assert!(refused > 20, "{refused}");
    }
}
