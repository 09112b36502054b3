//! Files of `WikiSQL`: questions about tables, each with its query.
//!
//! `dev.jsonl` has a question, the id of its table and its query in each line; `dev.tables.jsonl` beside it has the tables. The
//! prompt is the table's header and the question, the completion the query as text:
//!
//! ```text
//! table: "Player" | "No." | "Position"
//! question: What position does the player number 6 play?
//! sql: SELECT "Position" FROM table WHERE "No." = '6'
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `tables` | [`SqlTable`], [`SqlTables`]: header, types and rows |
//! | `query` | [`SqlQuery`]: a query, to and from text |
//!
//! Zhong et al., *Seq2SQL: Generating Structured Queries from Natural Language using Reinforcement Learning*, 2017
//! (arXiv 1709.00103).

mod query;
mod tables;

pub use query::{Aggregate, Condition, Operator, SqlQuery, SqlValue};
pub use tables::{ColumnType, SqlTable, SqlTables};

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::jsonl::Objects;
use super::record::Record;
use super::template::PairTemplate;
use crate::error::TrainError;

/// Line of the questions.
#[derive(Deserialize)]
struct Question {
    question: String,
    table_id: String,
    sql: StoredQuery,
}

/// Query by the numbers of its parts.
#[derive(Deserialize)]
struct StoredQuery {
    sel: usize,
    agg: usize,
    conds: Vec<(usize, usize, Value)>,
}

/// Reads every question of the file. A record's id is that of its table.
pub(super) fn read(path: &Path, template: &PairTemplate) -> Result<Vec<Record>, TrainError> {
    let tables = SqlTables::beside(path)?;
    let mut objects = Objects::open(path)?;
    let mut records = Vec::new();
    while let Some((object, origin)) = objects.next_object()? {
        let question = serde_json::from_value(Value::Object(object));
        let question: Question = question.map_err(|error| origin.error(error.to_string()))?;
        let Some(table) = tables.get(&question.table_id) else {
            let (id, path) = (&question.table_id, tables.path().display());
            return Err(origin.error(format!("the table `{id}` is not in {path}")));
        };
        let query = reference_query(&question.sql, table);
        let query = query.map_err(|message| origin.error(format!("`sql`: {message}")))?;
        if question.question.trim().is_empty() {
            return Err(origin.error("`question` is empty"));
        }
        let prompt = prompt(table, &question.question);
        let mut record = template.record(&prompt, &query.text(table), origin);
        record.id = Some(question.table_id);
        records.push(record);
    }
    Ok(records)
}

/// Checks the numbers of a stored query.
fn reference_query(stored: &StoredQuery, table: &SqlTable) -> Result<SqlQuery, String> {
    let width = table.header.len();
    let column = |column: usize| {
        (column < width)
            .then_some(column)
            .ok_or_else(|| format!("column {column}, of a table with {width}"))
    };
    let aggregate = Aggregate::ALL.get(stored.agg).copied();
    let aggregate =
        aggregate.ok_or_else(|| format!("aggregate {}, expected 0 to 5", stored.agg))?;
    let conditions = stored.conds.iter().map(|(at, operator, value)| {
        let found = Operator::ALL.get(*operator).copied();
        Ok(Condition {
            column: column(*at)?,
            operator: found.ok_or_else(|| format!("operator {operator}, expected 0 to 2"))?,
            value: match value {
                Value::String(text) => SqlValue::Text(text.clone()),
                Value::Number(number) => SqlValue::Number(number.to_string()),
                _ => return Err("the value of a condition is no string and no number".to_string()),
            },
        })
    });
    Ok(SqlQuery {
        column: column(stored.sel)?,
        aggregate,
        conditions: conditions.collect::<Result<_, String>>()?,
    })
}

fn prompt(table: &SqlTable, question: &str) -> String {
    let columns: Vec<String> = table
        .header
        .iter()
        .map(|name| query::quoted(name))
        .collect();
    format!(
        "table: {}\nquestion: {}\nsql:",
        columns.join(" | "),
        question.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const TABLES: &str = "{\"id\": \"1-1\", \"header\": [\"Player\", \"No.\"], \"types\": [\"text\", \"real\"], \"rows\": [[\"A\", 6]]}\n";

    fn read_lines(questions: &str, tables: Option<&str>) -> Result<Vec<Record>, TrainError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dev.jsonl");
        fs::write(&path, questions).unwrap();
        if let Some(tables) = tables {
            fs::write(dir.path().join("dev.tables.jsonl"), tables).unwrap();
        }
        read(&path, &PairTemplate::new("", " "))
    }

    fn line(table: &str, sql: &str) -> String {
        format!(
            "{{\"phase\": 1, \"question\": \"Who is 6?\", \"table_id\": \"{table}\", \"sql\": {sql}}}\n"
        )
    }

    #[test]
    fn a_question_becomes_a_prompt_with_the_header_and_its_query_as_text() {
        let sql = r#"{"sel": 0, "agg": 3, "conds": [[1, 1, 5.5], [0, 0, "O'Neal"]]}"#;
        let records = read_lines(&line("1-1", sql), Some(TABLES)).unwrap();
        assert_eq!(records[0].id.as_deref(), Some("1-1"));
        let (prompt, completion) = records[0].content.texts().unwrap();
        assert_eq!(
            prompt,
            "table: \"Player\" | \"No.\"\nquestion: Who is 6?\nsql:"
        );
        let expected =
            " SELECT COUNT(\"Player\") FROM table WHERE \"No.\" > 5.5 AND \"Player\" = 'O''Neal'";
        assert_eq!(completion, Some(expected));
    }

    #[test]
    fn bad_lines_are_named() {
        let fine = line("1-1", r#"{"sel": 0, "agg": 0, "conds": []}"#);
        for (bad, reason) in [
            (
                line("2-2", r#"{"sel": 0, "agg": 0, "conds": []}"#),
                "the table `2-2` is not in",
            ),
            (
                line("1-1", r#"{"sel": 2, "agg": 0, "conds": []}"#),
                "column 2, of a table with 2",
            ),
            (
                line("1-1", r#"{"sel": 0, "agg": 6, "conds": []}"#),
                "aggregate 6",
            ),
            (
                line("1-1", r#"{"sel": 0, "agg": 0, "conds": [[0, 3, "a"]]}"#),
                "operator 3",
            ),
            (
                line("1-1", r#"{"sel": 0, "agg": 0, "conds": [[0, 0, null]]}"#),
                "no string",
            ),
            (line("1-1", r#"{"sel": 0, "agg": 0}"#), "conds"),
        ] {
            let error = read_lines(&format!("{fine}{bad}"), Some(TABLES)).unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("dev.jsonl, line 2: ") && message.contains(reason),
                "{message}"
            );
        }
        let message = read_lines(&fine, None).unwrap_err().to_string();
        assert!(message.contains("dev.tables.jsonl"), "{message}");
    }
}
