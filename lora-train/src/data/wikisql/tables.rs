//! Tables of `WikiSQL`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::data::jsonl::Objects;
use crate::data::record::Origin;
use crate::data::rows::MAX_COLUMNS;
use crate::error::TrainError;

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Text.
    Text,
    /// Numbers.
    Real,
}

/// Table with its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlTable {
    /// Names of the columns, all different: a second one of a name has its number behind it, as in `Date (2)`.
    pub header: Vec<String>,
    /// Type of each column.
    pub types: Vec<ColumnType>,
    /// Rows: texts, numbers or null.
    pub rows: Vec<Vec<Value>>,
}

impl SqlTable {
    /// Returns the index of a column by its name; of two that differ in case only, the one that is written the same.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        let position = |fits: &dyn Fn(&str) -> bool| self.header.iter().position(|own| fits(own));
        let lower = name.to_lowercase();
        position(&|own| own == name).or_else(|| position(&|own| own.to_lowercase() == lower))
    }
}

/// Tables of a file, by their ids.
#[derive(Clone, Debug)]
pub struct SqlTables {
    path: PathBuf,
    tables: HashMap<String, SqlTable>,
}

#[derive(Deserialize)]
struct StoredTable {
    id: String,
    header: Vec<String>,
    types: Vec<ColumnType>,
    rows: Vec<Vec<Value>>,
}

impl SqlTables {
    /// Reads the tables beside a file of questions: `dev.tables.jsonl` beside `dev.jsonl`.
    ///
    /// # Errors
    /// [`TrainError::Io`] if they cannot be read, [`TrainError::DataLine`] for a table that is malformed.
    pub fn beside(questions: &Path) -> Result<Self, TrainError> {
        Self::read(&questions.with_extension("tables.jsonl"))
    }

    /// Reads a file of tables.
    ///
    /// # Errors
    /// As [`beside`](Self::beside).
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let mut objects = Objects::open(path)?;
        let mut tables = HashMap::new();
        while let Some((object, origin)) = objects.next_object()? {
            let stored = serde_json::from_value(Value::Object(object));
            let stored: StoredTable = stored.map_err(|error| origin.error(error.to_string()))?;
            let (id, table) = checked(stored, &origin)?;
            tables.insert(id, table);
        }
        Ok(Self {
            path: path.into(),
            tables,
        })
    }

    /// Returns the table of an id.
    pub fn get(&self, id: &str) -> Option<&SqlTable> {
        self.tables.get(id)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Checks a table, and makes the names of its columns different.
fn checked(stored: StoredTable, origin: &Origin) -> Result<(String, SqlTable), TrainError> {
    let width = stored.header.len();
    let message = if width == 0 || width > MAX_COLUMNS {
        format!("a table of {width} columns, expected 1 to {MAX_COLUMNS}")
    } else if stored.types.len() != width {
        format!("{} types for {width} columns", stored.types.len())
    } else if let Some(row) = stored.rows.iter().find(|row| row.len() != width) {
        format!(
            "a row of {} values in a table of {width} columns",
            row.len()
        )
    } else {
        let header = distinct(stored.header);
        let (types, rows) = (stored.types, stored.rows);
        let table = SqlTable {
            header,
            types,
            rows,
        };
        return Ok((stored.id, table));
    };
    Err(origin.error(message))
}

fn distinct(names: Vec<String>) -> Vec<String> {
    let mut taken: Vec<String> = Vec::with_capacity(names.len());
    let mut distinct = Vec::with_capacity(names.len());
    for name in names {
        let numbered = (2..).map(|number| format!("{name} ({number})"));
        let candidates = std::iter::once(name.clone()).chain(numbered);
        let mut free = candidates.filter(|name| !taken.contains(&name.to_lowercase()));
        // The numbers do not end.
        let chosen = free.next().unwrap_or_else(|| name.clone());
        taken.push(chosen.to_lowercase());
        distinct.push(chosen);
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SqlTables, TrainError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev.tables.jsonl");
        std::fs::write(&path, text).unwrap();
        SqlTables::read(&path)
    }

    #[test]
    fn columns_of_one_name_are_numbered() {
        let tables = read("{\"id\": \"a\", \"header\": [\"Date\", \"date\", \"Score\"], \"types\": [\"text\", \"text\", \"real\"], \"rows\": []}").unwrap();
        let table = tables.get("a").unwrap();
        assert_eq!(table.header, ["Date", "date (2)", "Score"]);
        assert_eq!(table.column("SCORE"), Some(2));
        assert_eq!(table.column("Date (2)"), Some(1));
        assert_eq!(table.column("Points"), None);
    }

    #[test]
    fn malformed_tables_are_named_by_their_line() {
        for (types, rows, reason) in [
            ("[\"text\"]", "[]", "1 types for 2"),
            ("[\"text\", \"real\"]", "[[1]]", "a row of 1"),
            ("[\"text\", \"date\"]", "[]", "date"),
        ] {
            let text = format!(
                "\n{{\"id\": \"a\", \"header\": [\"x\", \"y\"], \"types\": {types}, \"rows\": {rows}}}"
            );
            let message = read(&text).unwrap_err().to_string();
            assert!(
                message.contains("line 2: ") && message.contains(reason),
                "{message}"
            );
        }
    }
}
