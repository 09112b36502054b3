//! Tables of `WikiSQL`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::data::jsonl::Objects;
use crate::data::record::Origin;
use crate::error::TrainError;

/// Largest number of columns, which is SQLite's.
const MAX_COLUMNS: usize = 2000;

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
        let mut tables: HashMap<String, SqlTable> = HashMap::new();
        while let Some((object, origin)) = objects.next_object()? {
            let stored = serde_json::from_value(Value::Object(object));
            let stored: StoredTable = stored.map_err(|error| origin.error(error.to_string()))?;
            let (id, table) = checked(stored, &origin)?;
            match tables.entry(id) {
                Entry::Vacant(entry) => entry.insert(table),
                Entry::Occupied(entry) => {
                    let message = format!("a second table with the id `{}`", entry.key());
                    return Err(origin.error(message));
                }
            };
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
    } else if let Some(cell) = stored.rows.iter().flatten().find(|cell| !is_cell(cell)) {
        format!("the cell {cell}, expected a text, a number or null")
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

/// Returns true for the value of a cell.
fn is_cell(value: &Value) -> bool {
    matches!(value, Value::Null | Value::String(_) | Value::Number(_))
}

/// Numbers names that occur again, whatever their case, from 2 on.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut taken: HashSet<String> = HashSet::with_capacity(names.len());
    // The number to try next for each name.
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut distinct = Vec::with_capacity(names.len());
    for name in names {
        let lower = name.to_lowercase();
        let mut chosen = name.clone();
        if !taken.insert(lower.clone()) {
            let number = numbers.entry(lower).or_insert(2);
            loop {
                chosen = format!("{name} ({number})");
                *number += 1;
                if taken.insert(chosen.to_lowercase()) {
                    break;
                }
            }
        }
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

    /// Each number is tried once: a search from 2 on for every name took minutes here.
    #[test]
    fn many_columns_of_one_name_are_numbered_at_once() {
        let mut names = vec!["a".to_string(); 200_000];
        names.extend(["A (2)", "a (2)"].map(String::from));
        let start = std::time::Instant::now();
        let found = distinct(names);
        assert!(start.elapsed().as_secs() < 60);
        assert_eq!(found[1], "a (2)");
        assert_eq!(found[199_999], "a (200000)");
        assert_eq!(found[200_000..], ["A (2) (2)", "a (2) (3)"]);
    }

    #[test]
    fn a_second_table_of_an_id_is_refused() {
        let table = "{\"id\": \"a\", \"header\": [\"x\"], \"types\": [\"text\"], \"rows\": []}\n";
        let message = read(&table.repeat(2)).unwrap_err().to_string();
        assert!(message.contains("line 2: a second table"), "{message}");
        let names = vec!["\"x\""; MAX_COLUMNS + 1].join(",");
        let types = vec!["\"text\""; MAX_COLUMNS + 1].join(",");
        let wide =
            format!("{{\"id\": \"b\", \"header\": [{names}], \"types\": [{types}], \"rows\": []}}");
        let message = read(&format!("{table}{wide}")).unwrap_err().to_string();
        assert!(message.contains("line 2: a table of 2001"), "{message}");
    }

    #[test]
    fn malformed_tables_are_named_by_their_line() {
        for (types, rows, reason) in [
            ("[\"text\"]", "[]", "1 types for 2"),
            ("[\"text\", \"real\"]", "[[1]]", "a row of 1"),
            ("[\"text\", \"real\"]", "[[1, true]]", "the cell true"),
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
