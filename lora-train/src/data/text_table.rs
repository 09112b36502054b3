//! Texts, or prompts and completions, from CSV, TSV and JSON Lines.

use std::path::Path;

use super::columns::{Columns, Mismatch, TextColumns};
use super::format::DataFormat;
use super::record::{Content, Each, Record};
use super::table::{Column, Row, Table};
use crate::error::TrainError;

/// Calls a function with the record of each row of the table at `path`. Columns that are not asked for are ignored.
pub(super) fn each(
    path: &Path,
    format: DataFormat,
    columns: &Columns,
    each: Each<'_>,
) -> Result<(), TrainError> {
    let Some(mut table) = Table::open(path, format, &|_| None)? else {
        return Ok(());
    };
    // The header of CSV and TSV decides for all rows; each JSON object decides for itself.
    let header = if table.has_objects() {
        None
    } else {
        Some(in_header(&table, columns)?)
    };
    let adapter = table.optional(columns.adapter.as_deref())?;
    while let Some(row) = table.next_row()? {
        let origin = row.origin.clone();
        let record = record(row, header, columns, adapter);
        each(record.map_err(|message| origin.error(message))?)?;
    }
    Ok(())
}

/// Reads the record of a row.
fn record(
    mut row: Row,
    header: Option<TextColumns<Column>>,
    columns: &Columns,
    adapter: Option<Column>,
) -> Result<Record, String> {
    let adapter = row.take_name(adapter)?;
    let fields = match header {
        Some(fields) => fields,
        None => in_object(&row, columns)?,
    };
    let content = match fields {
        TextColumns::Text(text) => Content::Text {
            text: row.take_text(text)?,
        },
        TextColumns::PromptCompletion(prompt, completion) => Content::PromptCompletion {
            prompt: row.take_text(prompt)?,
            completion: row.take_text(completion)?,
        },
    };
    Ok(Record::new(content, row.origin).with_adapter(adapter))
}

/// Finds the columns in the header of a table.
fn in_header<'a>(
    table: &Table,
    columns: &'a Columns,
) -> Result<TextColumns<Column<'a>>, TrainError> {
    let found = columns.text_columns(|name| table.has(name));
    let found = found.map_err(|mismatch| match mismatch {
        Mismatch::Missing(column) => table.missing(column),
        Mismatch::Neither => table.missing("text"),
        Mismatch::Both => table.error(
            "the table has a column `text` as well as `prompt` or `completion`; name \
             the columns to read",
        ),
    })?;
    found.try_map(|name| table.column(name))
}

/// Finds the keys of a JSON object.
fn in_object<'a>(row: &Row, columns: &'a Columns) -> Result<TextColumns<Column<'a>>, String> {
    let found = columns.text_columns(|name| row.has_key(name));
    let found = found.map_err(|mismatch| match mismatch {
        Mismatch::Missing(key) => format!("the object has no key \"{key}\""),
        Mismatch::Neither => "the object has neither a key \"text\" nor the keys \"prompt\" and \
             \"completion\"; name the keys to read if they have other names"
            .to_string(),
        Mismatch::Both => "the object has \"text\" as well as \"prompt\" or \"completion\"; name \
             the keys to read"
            .to_string(),
    })?;
    found.try_map(|key| Ok(Column::key(key)))
}

#[cfg(test)]
mod tests {
    use super::super::lines::MAX_LINE_BYTES;
    use super::super::record::{Origin, collect};
    use super::super::rows::MAX_COLUMNS;
    use super::*;
    use std::io::Write;

    fn read_bytes(
        bytes: &[u8],
        columns: &Columns,
        format: DataFormat,
    ) -> Result<Vec<Record>, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        collect(|record| each(file.path(), format, columns, record))
    }

    fn csv(text: &str) -> Result<Vec<Record>, TrainError> {
        read_bytes(text.as_bytes(), &Columns::default(), DataFormat::Csv)
    }

    fn texts(records: &[Record]) -> Vec<(usize, String)> {
        let text = |record: &Record| match &record.content {
            Content::Text { text } => text.clone(),
            Content::PromptCompletion { prompt, completion } => format!("{prompt}>{completion}"),
            other => panic!("{other:?}"),
        };
        records
            .iter()
            .map(|record| (record.origin.line(), text(record)))
            .collect()
    }

    fn message(result: Result<Vec<Record>, TrainError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn csv_fields_are_quoted_as_in_rfc_4180() {
        let records = csv("id,text\n1,plain\n2,\"a, \"\"b\"\"\nc\"\n\n3,last\n").unwrap();
        let expected = [(2, "plain"), (3, "a, \"b\"\nc"), (6, "last")];
        assert_eq!(texts(&records), expected.map(|(n, t)| (n, t.to_string())));
    }

    #[test]
    fn lines_are_counted_right_with_windows_line_endings() {
        let records = csv("text\r\none\r\n\"two\r\nlines\"\r\nthree\r\n").unwrap();
        let expected = [(2, "one"), (3, "two\nlines"), (5, "three")];
        assert_eq!(texts(&records), expected.map(|(n, t)| (n, t.to_string())));
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_column_name() {
        assert_eq!(csv("\u{feff}text\na\n").unwrap().len(), 1);
    }

    #[test]
    fn tsv_has_no_quoting_and_keeps_commas() {
        let table = b"prompt\tlabel\tcompletion\n5\" pipe, new\t1\t\"yes\n";
        let records = read_bytes(table, &Columns::default(), DataFormat::Tsv).unwrap();
        assert_eq!(texts(&records), [(2, "5\" pipe, new>\"yes".to_string())]);
    }

    #[test]
    fn columns_of_other_names_are_read_and_a_missing_one_lists_those_there_are() {
        let table = b"sentence, answer\nq,a\n";
        let named = Columns::prompt_completion("sentence", "answer");
        let records = read_bytes(table, &named, DataFormat::Csv).unwrap();
        assert_eq!(texts(&records), [(2, "q>a".to_string())]);

        let error = read_bytes(table, &Columns::text("body"), DataFormat::Csv).unwrap_err();
        let TrainError::Column {
            column, available, ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!(column, "body");
        assert_eq!(available, ["sentence", "answer"]);
    }

    #[test]
    fn a_column_twice_and_both_forms_are_refused() {
        assert!(message(csv("text,text\na,b\n")).contains("several columns `text`"));
        assert!(message(csv("text,prompt\na,b\n")).contains("as well as"));
    }

    #[test]
    fn a_row_with_too_few_or_too_many_fields_is_named_by_its_line() {
        let error = message(csv("id,text\n1,a\n2\n"));
        assert!(error.contains("line 3: 1 fields"), "{error}");
        let error = message(csv("id,text\r\n1,a\r\n2,b,c\r\n"));
        assert!(error.contains("line 3: more than the 2 fields"), "{error}");
    }

    #[test]
    fn an_unclosed_quote_does_not_swallow_the_rest_of_the_file() {
        let error = message(csv("text\nfine\n\"open\nlost\nlost too\n"));
        assert!(error.contains("line 3: a double quote"), "{error}");
    }

    #[test]
    fn invalid_utf8_is_named_by_its_line() {
        let error = message(read_bytes(
            b"id,text\n1,a\n2,\xFF\n",
            &Columns::default(),
            DataFormat::Csv,
        ));
        assert!(
            error.contains("line 3: not valid UTF-8 from byte 3"),
            "{error}"
        );
    }

    #[test]
    fn a_row_without_end_is_refused_at_the_bound() {
        let mut bytes = b"text\nfine\n\"".to_vec();
        while bytes.len() < MAX_LINE_BYTES + 100_000 {
            bytes.extend([b'x'; 1000]);
            bytes.push(b'\n');
        }
        let error = message(read_bytes(&bytes, &Columns::default(), DataFormat::Csv));
        assert!(
            error.contains("line 3: a double quote is not closed"),
            "{error}"
        );
        assert!(error.contains("16 MiB"), "{error}");
    }

    #[test]
    fn a_header_of_nothing_but_separators_is_refused() {
        let header = ",".repeat(MAX_COLUMNS);
        let error = message(csv(&header));
        assert!(error.contains("that a table may have"), "{error}");
    }

    fn origin() -> Origin {
        Origin::new(Path::new("train.jsonl"), 3)
    }

    fn json(line: &str, columns: &Columns) -> Result<Record, TrainError> {
        let text = format!("\n\n{line}\n");
        let mut records = read_bytes(text.as_bytes(), columns, DataFormat::JsonLines)?;
        let mut record = records.pop().unwrap();
        assert_eq!(record.origin.line(), 3);
        record.origin = origin();
        Ok(record)
    }

    fn parsed(line: &str) -> Result<Record, String> {
        let error = |error: TrainError| match error {
            TrainError::DataLine {
                line: 3, message, ..
            } => message,
            other => panic!("{other}"),
        };
        json(line, &Columns::default()).map_err(error)
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
            json(line, &columns).unwrap(),
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

    #[test]
    fn the_adapter_may_be_missing_from_any_row() {
        let columns = Columns {
            adapter: Some("adapter".into()),
            ..Columns::default()
        };
        let adapters = |text: &str, format| {
            let records = read_bytes(text.as_bytes(), &columns, format).unwrap();
            let adapters = records.into_iter().map(|r| (r.origin.line(), r.adapter));
            adapters.collect::<Vec<_>>()
        };
        let some = |name: &str| Some(name.to_string());
        let text = "{\"text\": \"x\"}\n{\"text\": \"x\", \"adapter\": \"a\"}\n\n{\"text\": \"x\", \"adapter\": null}\n{\"adapter\": \"b\", \"text\": \"\"}\n";
        let expected = [(1, None), (2, some("a")), (4, None), (5, some("b"))];
        assert_eq!(adapters(text, DataFormat::JsonLines), expected);
        let expected = [(2, some("a")), (3, None), (5, some("b"))];
        let text = "text,adapter\n\"x, y\",a\n\"two\nlines\",\nz,b\n";
        assert_eq!(adapters(text, DataFormat::Csv), expected);
        assert_eq!(
            adapters("text\tadapter\nx\ta\n", DataFormat::Tsv),
            [(2, some("a"))]
        );
        assert_eq!(
            adapters("text\tlabel\nx\ta\n", DataFormat::Tsv),
            [(2, None)]
        );
        let error = read_bytes(
            b"{\"text\": \"x\", \"adapter\": 3}\n",
            &columns,
            DataFormat::JsonLines,
        );
        assert!(message(error).contains("line 1"));
    }
}
