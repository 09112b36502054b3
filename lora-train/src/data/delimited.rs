//! Tables with a header row, CSV or TSV, as records to train a language model on.

use std::path::Path;

use super::columns::{Columns, Layout, Mismatch};
use super::record::{Origin, Record};
use super::rows::{Dialect, Header, Rows};
use crate::error::TrainError;

/// Reads every row of the table. Other columns are ignored.
pub(super) fn read(
    path: &Path,
    columns: &Columns,
    dialect: Dialect,
) -> Result<Vec<Record>, TrainError> {
    let mut rows = Rows::open(path, dialect)?;
    let Some((header, _)) = rows.next_row()? else {
        return Ok(Vec::new());
    };
    let fields = Fields::find(path, &Header::new(&header), columns)?;
    let mut records = Vec::new();
    while let Some((row, origin)) = rows.next_row()? {
        records.push(fields.record(row, origin));
    }
    Ok(records)
}

/// Where in a row the text lies.
enum Fields {
    Text(usize),
    PromptCompletion(usize, usize),
}

impl Fields {
    fn find(path: &Path, header: &Header, columns: &Columns) -> Result<Self, TrainError> {
        let layout =
            columns
                .layout(|name| header.has(name))
                .map_err(|mismatch| match mismatch {
                    Mismatch::Missing(column) => header.missing(path, column),
                    Mismatch::Neither => header.missing(path, "text"),
                    Mismatch::Both => TrainError::data_format(
                        path,
                        "the table has a column `text` as well as `prompt` or `completion`; name \
                         the columns to read",
                    ),
                })?;
        let position = |column: &str| header.position(path, column);
        Ok(match layout {
            Layout::Text(text) => Self::Text(position(text)?),
            Layout::PromptCompletion(prompt, completion) => {
                Self::PromptCompletion(position(prompt)?, position(completion)?)
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
    use crate::data::lines::MAX_LINE_BYTES;
    use crate::data::rows::MAX_COLUMNS;
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
    fn a_header_of_nothing_but_separators_is_refused() {
        let header = ",".repeat(MAX_COLUMNS);
        let error = message(csv(&header));
        assert!(error.contains("that a table may have"), "{error}");
    }
}
