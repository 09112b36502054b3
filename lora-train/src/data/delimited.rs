//! Tables with a header row: CSV with quoting as in RFC 4180, TSV without quoting.
//!
//! The quoting is read strictly, by [`split_csv`], and not by the `csv` crate: that one takes a
//! quote that is never closed for the rest of the file, without a word, and its line numbers leave
//! out blank lines.

use std::path::Path;

use super::columns::{Columns, Layout, Mismatch};
use super::lines::{Lines, MAX_LINE_BYTES};
use super::record::{Origin, Record};
use crate::error::TrainError;

/// The most columns of a table. A line of nothing but separators would otherwise fill the memory
/// with empty fields.
const MAX_COLUMNS: usize = 10_000;

/// What separates the fields, and whether a field may be quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Commas; a field in double quotes may hold commas, line breaks and doubled quotes.
    Csv,
    /// Tabs; a double quote is a character like any other.
    Tsv,
}

/// Reads every row of the table. Empty lines are skipped, other columns ignored; a line break
/// within a field becomes `\n`.
pub(super) fn read(
    path: &Path,
    columns: &Columns,
    dialect: Dialect,
) -> Result<Vec<Record>, TrainError> {
    let mut lines = Lines::open(path)?;
    let mut header: Option<(usize, Fields)> = None;
    let mut records = Vec::new();
    while let Some((row, origin)) = next_row(&mut lines, path, dialect)? {
        let limit = header.as_ref().map_or(MAX_COLUMNS, |(width, _)| *width);
        let fields = match dialect {
            Dialect::Csv => split_csv(&row, limit),
            Dialect::Tsv => split_tsv(&row, limit),
        };
        let line = origin.line();
        let fields = fields.map_err(|message| TrainError::data_line(path, line, message))?;
        match &header {
            None => header = Some((fields.len(), Fields::find(path, &fields, columns)?)),
            Some((width, _)) if fields.len() < *width => {
                return Err(TrainError::data_line(
                    path,
                    line,
                    format!(
                        "{} fields, where the header has {width}; is a separator or a quote missing?",
                        fields.len()
                    ),
                ));
            }
            Some((_, found)) => records.push(found.record(fields, origin)),
        }
    }
    Ok(records)
}

/// The next row, of one line or, where a quote is open at the end of a line, of several.
fn next_row(
    lines: &mut Lines,
    path: &Path,
    dialect: Dialect,
) -> Result<Option<(String, Origin)>, TrainError> {
    let odd_quotes = |line: &str| {
        dialect == Dialect::Csv && line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1
    };
    let (mut row, origin) = loop {
        match lines.next_line()? {
            None => return Ok(None),
            Some(("", _)) => {}
            Some((line, origin)) => break (line.to_string(), origin),
        }
    };
    let mut open = odd_quotes(&row);
    while open {
        let next = lines.next_line()?.map(|(line, _)| line);
        let Some(line) = next.filter(|line| row.len() + line.len() < MAX_LINE_BYTES) else {
            return Err(TrainError::data_line(
                path,
                origin.line(),
                format!(
                    "a double quote is not closed by the end of the file, or of the {} MiB that a row \
                     may hold; put a field that holds quotes in double quotes, and double those in it",
                    MAX_LINE_BYTES / (1024 * 1024)
                ),
            ));
        };
        row.push('\n');
        row.push_str(line);
        open ^= odd_quotes(line);
    }
    Ok(Some((row, origin)))
}

/// The fields of a CSV row, at most `limit`: RFC 4180, section 2, rules 4 to 7.
fn split_csv(row: &str, limit: usize) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = Some(row);
    while let Some(at) = rest {
        let number = next_number(&fields, limit)?;
        let (field, after) = match at.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or_else(|| {
                format!("the double quote that opens field {number} is not closed")
            })?,
            None => {
                let (field, after) = at.split_at(at.find(',').unwrap_or(at.len()));
                if field.contains('"') {
                    return Err(format!(
                        "a bare double quote in field {number}; put the field in double quotes, and \
                         double those in it"
                    ));
                }
                (field.to_string(), after)
            }
        };
        rest = after.strip_prefix(',');
        if rest.is_none() && !after.is_empty() {
            return Err(format!(
                "text after the closing double quote of field {number}; double the quotes within a \
                 field"
            ));
        }
        fields.push(field);
    }
    Ok(fields)
}

/// The text up to the closing quote, doubled quotes made single, and what follows that quote;
/// `None` if there is no closing quote.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (text, after) = rest.split_once('"')?;
        field.push_str(text);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

/// The fields of a TSV row, at most `limit`.
fn split_tsv(row: &str, limit: usize) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    for field in row.split('\t') {
        next_number(&fields, limit)?;
        fields.push(field.to_string());
    }
    Ok(fields)
}

/// The number of the field to come, counted from 1.
fn next_number(fields: &[String], limit: usize) -> Result<usize, String> {
    if fields.len() < limit {
        return Ok(fields.len() + 1);
    }
    Err(format!(
        "more than the {limit} fields that {}; is a separator too many, or a quote missing?",
        if limit == MAX_COLUMNS {
            "a table may have"
        } else {
            "the header has"
        }
    ))
}

/// Where in a row the text lies.
enum Fields {
    Text(usize),
    PromptCompletion(usize, usize),
}

impl Fields {
    fn find(path: &Path, header: &[String], columns: &Columns) -> Result<Self, TrainError> {
        let names: Vec<&str> = header.iter().map(|name| name.trim()).collect();
        let available = || names.iter().map(ToString::to_string).collect();
        let layout = columns.layout(|name| names.contains(&name)).map_err(
            |mismatch| match mismatch {
                Mismatch::Missing(column) => TrainError::Column {
                    path: path.to_path_buf(),
                    column: column.to_string(),
                    available: available(),
                },
                Mismatch::Neither => TrainError::Column {
                    path: path.to_path_buf(),
                    column: "text".to_string(),
                    available: available(),
                },
                Mismatch::Both => TrainError::data_format(
                    path,
                    "the table has a column `text` as well as `prompt` or `completion`; name the \
                     columns to read",
                ),
            },
        )?;
        let index = |column: &str| -> Result<usize, TrainError> {
            let mut found = names
                .iter()
                .enumerate()
                .filter(|(_, name)| **name == column);
            match (found.next(), found.next()) {
                (Some((index, _)), None) => Ok(index),
                _ => Err(TrainError::data_format(
                    path,
                    format!("the table has several columns `{column}`; rename all but one"),
                )),
            }
        };
        Ok(match layout {
            Layout::Text(text) => Self::Text(index(text)?),
            Layout::PromptCompletion(prompt, completion) => {
                Self::PromptCompletion(index(prompt)?, index(completion)?)
            }
        })
    }

    fn record(&self, mut row: Vec<String>, origin: Origin) -> Record {
        // A row has as many fields as the header, in which the index was found.
        let mut field = |index: usize| row.get_mut(index).map(std::mem::take).unwrap_or_default();
        match *self {
            Self::Text(text) => Record::text(field(text), origin),
            Self::PromptCompletion(prompt, completion) => {
                Record::prompt_completion(field(prompt), field(completion), origin)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_bytes(
        bytes: &[u8],
        columns: &Columns,
        dialect: Dialect,
    ) -> Result<Vec<Record>, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        read(file.path(), columns, dialect)
    }

    fn csv(text: &str) -> Result<Vec<Record>, TrainError> {
        read_bytes(text.as_bytes(), &Columns::default(), Dialect::Csv)
    }

    fn texts(records: &[Record]) -> Vec<(usize, String)> {
        let text = |record: &Record| match &record.content {
            super::super::Content::Text { text } => text.clone(),
            super::super::Content::PromptCompletion { prompt, completion } => {
                format!("{prompt}>{completion}")
            }
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
        let records = read_bytes(table, &Columns::default(), Dialect::Tsv).unwrap();
        assert_eq!(texts(&records), [(2, "5\" pipe, new>\"yes".to_string())]);
    }

    #[test]
    fn columns_of_other_names_are_read_and_a_missing_one_lists_those_there_are() {
        let table = b"sentence, answer\nq,a\n";
        let named = Columns::prompt_completion("sentence", "answer");
        let records = read_bytes(table, &named, Dialect::Csv).unwrap();
        assert_eq!(texts(&records), [(2, "q>a".to_string())]);

        let error = read_bytes(table, &Columns::text("body"), Dialect::Csv).unwrap_err();
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
            Dialect::Csv,
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
        let error = message(read_bytes(&bytes, &Columns::default(), Dialect::Csv));
        assert!(
            error.contains("line 3: a double quote is not closed"),
            "{error}"
        );
        assert!(error.contains("16 MiB"), "{error}");
    }

    #[test]
    fn malformed_quoting_is_refused_with_its_field() {
        for (row, reason) in [
            ("a,5\" pipe \"", "a bare double quote in field 2"),
            ("\"a\"b,c", "text after the closing double quote of field 1"),
            ("a\"b,\"c", "a bare double quote in field 1"),
        ] {
            let error = split_csv(row, 2).unwrap_err();
            assert!(error.contains(reason), "{row}: {error}");
        }
    }

    #[test]
    fn empty_fields_count_also_at_the_ends() {
        assert_eq!(split_csv(",\"\",", 3).unwrap(), ["", "", ""]);
        assert_eq!(split_csv("\"\"\"\"", 1).unwrap(), ["\""]);
        assert_eq!(split_tsv("\t\t", 3).unwrap(), ["", "", ""]);
    }

    #[test]
    fn a_header_of_nothing_but_separators_is_refused() {
        let header = ",".repeat(MAX_COLUMNS);
        let error = message(csv(&header));
        assert!(error.contains("that a table may have"), "{error}");
    }
}
