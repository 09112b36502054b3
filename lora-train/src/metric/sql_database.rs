//! Tables of `WikiSQL` in an SQLite database in memory, as its `dbengine.py` queries them.

use std::collections::HashMap;

use rusqlite::types::Value as Cell;
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use crate::data::{Aggregate, ColumnType, SqlQuery, SqlTable, SqlValue};

/// Tables by their ids, created when they are first queried.
pub(super) struct Database {
    connection: Connection,
    /// Number of each table that is there.
    tables: HashMap<String, usize>,
}

/// Value of a result. Integers and other numbers are compared as numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SqlCell {
    Null,
    Number(f64),
    Text(String),
}

impl Database {
    /// Creates a database without tables.
    pub(super) fn new() -> Result<Self, String> {
        let connection = Connection::open_in_memory().map_err(message)?;
        Ok(Self {
            connection,
            tables: HashMap::new(),
        })
    }

    /// Executes a query on a table.
    ///
    /// As in the data set's own evaluation, texts are compared in lower case, a text that is compared with numbers is the first
    /// number in it, and of several conditions on one column all have the value of the last.
    pub(super) fn execute(
        &mut self,
        id: &str,
        table: &SqlTable,
        query: &SqlQuery,
    ) -> Result<Vec<SqlCell>, String> {
        let number = self.create(id, table)?;
        let column = format!("col{}", query.column);
        let selected = match query.aggregate {
            Aggregate::None => column,
            aggregate => format!("{}({column})", aggregate.name()),
        };
        let mut sql = format!("SELECT {selected} FROM table{number}");
        let mut values: Vec<Cell> = Vec::with_capacity(query.conditions.len());
        for (at, condition) in query.conditions.iter().enumerate() {
            let before = if at == 0 { "WHERE" } else { "AND" };
            let (own, sign) = (condition.column, condition.operator.sign());
            sql.push_str(&format!(" {before} col{own} {sign} ?{}", at + 1));
            let mut same = query.conditions.iter().rev();
            let last = same.find(|other| other.column == own).unwrap_or(condition);
            values.push(bound(&last.value, table.types[own])?);
        }
        let mut statement = self.connection.prepare(&sql).map_err(message)?;
        let rows = statement.query_map(params_from_iter(values), |row| row.get(0));
        let rows = rows.map_err(message)?;
        rows.map(|cell| Ok(result_cell(cell.map_err(message)?)))
            .collect()
    }

    /// Creates a table, if it is not there, and returns its number.
    fn create(&mut self, id: &str, table: &SqlTable) -> Result<usize, String> {
        if let Some(number) = self.tables.get(id) {
            return Ok(*number);
        }
        let (number, width) = (self.tables.len(), table.header.len());
        let columns = table.types.iter().enumerate().map(|(at, kind)| match kind {
            ColumnType::Text => format!("col{at} text"),
            ColumnType::Real => format!("col{at} real"),
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let marks = vec!["?"; width].join(", ");
        let transaction = self.connection.transaction().map_err(message)?;
        let create = format!("CREATE TABLE table{number} ({columns})");
        transaction.execute(&create, []).map_err(message)?;
        {
            let insert = format!("INSERT INTO table{number} VALUES ({marks})");
            let mut insert = transaction.prepare(&insert).map_err(message)?;
            for row in &table.rows {
                let cells = row.iter().map(cell).collect::<Result<Vec<_>, _>>()?;
                insert.execute(params_from_iter(cells)).map_err(message)?;
            }
        }
        transaction.commit().map_err(message)?;
        self.tables.insert(id.to_string(), number);
        Ok(number)
    }
}

fn message(error: rusqlite::Error) -> String {
    error.to_string()
}

/// Returns the cell of a value in a file of tables.
fn cell(value: &Value) -> Result<Cell, String> {
    match value {
        Value::Null => Ok(Cell::Null),
        Value::String(text) => Ok(Cell::Text(text.to_lowercase())),
        Value::Number(number) => Ok(numeric(&number.to_string())),
        other => Err(format!("the cell {other} is no text and no number")),
    }
}

/// Returns the value that a column is compared with.
fn bound(value: &SqlValue, kind: ColumnType) -> Result<Cell, String> {
    match (value, kind) {
        (SqlValue::Number(number), _) => Ok(numeric(number)),
        (SqlValue::Text(text), ColumnType::Text) => Ok(Cell::Text(text.to_lowercase())),
        (SqlValue::Text(text), ColumnType::Real) => {
            let number = decimal(text).or_else(|| first_number(text));
            let number = number.ok_or_else(|| format!("`{text}` has no number"))?;
            Ok(Cell::Real(number))
        }
    }
}

fn numeric(text: &str) -> Cell {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(integer), _) => Cell::Integer(integer),
        (_, Ok(number)) => Cell::Real(number),
        _ => Cell::Text(text.to_string()),
    }
}

/// Parses a number with commas between its thousands.
fn decimal(text: &str) -> Option<f64> {
    text.trim().replace(',', "").parse().ok()
}

/// Finds the first number in a text: digits with a point before the last of them, with their sign, or else digits alone.
fn first_number(text: &str) -> Option<f64> {
    let start = text.find(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))?;
    let mut rest = &text[start..];
    loop {
        let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        let sign = rest.len() - unsigned.len();
        let whole = digits(unsigned);
        let fraction = unsigned[whole..].strip_prefix('.').map_or(0, digits);
        if fraction > 0 {
            return rest[..sign + whole + 1 + fraction].parse().ok();
        }
        if whole > 0 && sign == 0 {
            return rest[..whole].parse().ok();
        }
        let mut characters = rest.chars();
        characters.next()?;
        rest = characters.as_str();
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn result_cell(cell: Cell) -> SqlCell {
    match cell {
        Cell::Null => SqlCell::Null,
        Cell::Integer(integer) => SqlCell::Number(integer as f64),
        Cell::Real(number) => SqlCell::Number(number),
        Cell::Text(text) => SqlCell::Text(text),
        // No table has bytes.
        Cell::Blob(bytes) => SqlCell::Text(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_as_the_expression_of_wikisql_finds_them() {
        // re.findall(r'[-+]?\d*\.\d+|\d+', text)[0] of Python.
        for (text, expected) in [
            ("12 km", Some(12.0)),
            ("about -3.5 to 4", Some(-3.5)),
            ("-7 m", Some(7.0)),
            (".5x", Some(0.5)),
            ("x. 5", Some(5.0)),
            ("+-1.25", Some(-1.25)),
            ("é6", Some(6.0)),
            ("none", None),
        ] {
            assert_eq!(first_number(text), expected, "{text}");
        }
        assert_eq!(decimal(" 1,234.5 "), Some(1234.5));
        assert_eq!(decimal("1 km"), None);
    }
}
