//! Rows of a delimited file: CSV with quoting as in RFC 4180, TSV with or without it.
//!
//! [`split_quoted`] reads the quoting strictly. The `csv` crate would accept a quote that is never closed as the rest of the
//! file, without an error, and its line numbers leave out blank lines.

use std::path::Path;

use super::lines::{Lines, MAX_LINE_BYTES};
use super::record::Origin;
use crate::error::TrainError;

/// Maximum number of columns. A line of nothing but separators would otherwise fill the memory
/// with empty fields.
pub(super) const MAX_COLUMNS: usize = 10_000;

/// Separator of the fields, and the rule for quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Commas. A field in double quotes may hold commas, line breaks and doubled quotes.
    Csv,
    /// Tabs. A double quote is a character like any other.
    Tsv,
    /// Tabs, with the quotes of CSV.
    QuotedTsv,
}

impl Dialect {
    /// Returns the separator of fields that may be in quotes; `None` without quotes.
    fn quoted_separator(self) -> Option<char> {
        match self {
            Self::Csv => Some(','),
            Self::QuotedTsv => Some('\t'),
            Self::Tsv => None,
        }
    }
}

/// Reader of a delimited file row by row. The first row, which is usually the header, sets the number of fields of the
/// others. Empty lines are skipped, and a line break within a field becomes `\n`.
pub(super) struct Rows {
    lines: Lines,
    dialect: Dialect,
    width: Option<usize>,
    skips_ragged: bool,
    skipped: usize,
}

impl Rows {
    /// Opens `path` at its first row.
    pub(super) fn open(path: &Path, dialect: Dialect) -> Result<Self, TrainError> {
        Ok(Self {
            lines: Lines::open(path)?,
            dialect,
            width: None,
            skips_ragged: false,
            skipped: 0,
        })
    }

    /// Leaves out and counts the ragged rows that follow, which have another number of fields than the first row: for
    /// published files that are known to hold such rows. By default they are refused.
    pub(super) fn skip_ragged(&mut self) {
        self.skips_ragged = true;
    }

    /// Returns the number of ragged rows that have been left out.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    /// Returns the fields of the next row, with the line it begins on; `None` at the end of the file.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a row that is malformed, too long, or ragged where that is
    /// refused; [`TrainError::Io`].
    pub(super) fn next_row(&mut self) -> Result<Option<(Vec<String>, Origin)>, TrainError> {
        while let Some((row, origin)) = gather(&mut self.lines, self.dialect)? {
            let width = self.width.filter(|_| !self.skips_ragged);
            let limit = width.unwrap_or(MAX_COLUMNS);
            let fields = match self.dialect.quoted_separator() {
                Some(separator) => split_quoted(&row, separator, limit),
                None => split_tsv(&row, limit),
            };
            let fields = fields.map_err(|message| origin.error(message))?;
            let width = *self.width.get_or_insert(fields.len());
            if fields.len() == width {
                return Ok(Some((fields, origin)));
            }
            if !self.skips_ragged {
                return Err(origin.error(format!(
                    "{} fields, where the first row has {width}; is a separator or a quote missing?",
                    fields.len()
                )));
            }
            self.skipped += 1;
        }
        Ok(None)
    }
}

/// Names in the first row of a table, without white space around them.
pub(super) struct Header {
    names: Vec<String>,
}

impl Header {
    pub(super) fn new(fields: &[String]) -> Self {
        let names = fields.iter().map(|name| name.trim().to_string()).collect();
        Self { names }
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.names.iter().any(|name| name == column)
    }

    /// Returns the position of `column`.
    ///
    /// # Errors
    /// [`TrainError::Column`] if it is not there, [`TrainError::DataFormat`] if it is there twice.
    pub(super) fn position(&self, path: &Path, column: &str) -> Result<usize, TrainError> {
        let names = self.names.iter().enumerate();
        let mut found = names.filter(|(_, name)| *name == column);
        match (found.next(), found.next()) {
            (Some((position, _)), None) => Ok(position),
            (None, _) => Err(self.missing(path, column)),
            _ => {
                let message =
                    format!("the table has several columns `{column}`; rename all but one");
                Err(TrainError::data_format(path, message))
            }
        }
    }

    /// Creates the error that `column` is missing, which lists the columns of the table.
    pub(super) fn missing(&self, path: &Path, column: &str) -> TrainError {
        TrainError::Column {
            path: path.to_path_buf(),
            column: column.to_string(),
            available: self.names.clone(),
        }
    }
}

/// Reads the next row: one line, or several where a quote is open at the end of a line.
fn gather(lines: &mut Lines, dialect: Dialect) -> Result<Option<(String, Origin)>, TrainError> {
    let odd_quotes = |line: &str| {
        dialect.quoted_separator().is_some()
            && line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1
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
            return Err(origin.error(format!(
                "a double quote is not closed by the end of the file, or of the {} MiB that a row \
                 may hold; put a field that holds quotes in double quotes, and double those in it",
                MAX_LINE_BYTES / (1024 * 1024)
            )));
        };
        row.push('\n');
        row.push_str(line);
        open ^= odd_quotes(line);
    }
    Ok(Some((row, origin)))
}

/// Splits a row into at most `limit` fields, which may be in quotes: RFC 4180, section 2, rules 4 to 7.
fn split_quoted(row: &str, separator: char, limit: usize) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = Some(row);
    while let Some(at) = rest {
        let number = next_number(&fields, limit)?;
        let (field, after) = match at.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or_else(|| {
                format!("the double quote that opens field {number} is not closed")
            })?,
            None => {
                let (field, after) = at.split_at(at.find(separator).unwrap_or(at.len()));
                if field.contains('"') {
                    return Err(format!(
                        "a bare double quote in field {number}; put the field in double quotes, and \
                         double those in it"
                    ));
                }
                (field.to_string(), after)
            }
        };
        rest = after.strip_prefix(separator);
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

/// Splits at the closing quote: the text before it, with doubled quotes made single, and the rest after it. `None` if
/// there is no closing quote.
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

/// Splits a TSV row into at most `limit` fields.
fn split_tsv(row: &str, limit: usize) -> Result<Vec<String>, String> {
    let fields: Vec<String> = row.splitn(limit + 1, '\t').map(Into::into).collect();
    next_number(&fields[..fields.len() - 1], limit)?;
    Ok(fields)
}

/// Returns the number of the next field, counted from 1.
fn next_number(fields: &[String], limit: usize) -> Result<usize, String> {
    if fields.len() < limit {
        return Ok(fields.len() + 1);
    }
    Err(format!(
        "more than the {limit} fields that {}; is a separator too many, or a quote missing?",
        if limit == MAX_COLUMNS {
            "a table may have"
        } else {
            "the first row has"
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn widths(text: &str, skip: bool) -> Result<(Vec<usize>, usize), TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut rows = Rows::open(file.path(), Dialect::Tsv)?;
        if skip {
            rows.skip_ragged();
        }
        let mut lines = Vec::new();
        while let Some((_, origin)) = rows.next_row()? {
            lines.push(origin.line());
        }
        Ok((lines, rows.skipped()))
    }

    #[test]
    fn ragged_rows_are_refused_or_left_out_and_counted() {
        let text = "a\tb\n1\t2\n3\n\n4\t5\t6\n7\t8\n";
        assert_eq!(widths(text, true).unwrap(), (vec![1, 2, 6], 2));
        let message = widths(text, false).unwrap_err().to_string();
        assert!(message.contains("line 3: 1 fields"), "{message}");
    }

    #[test]
    fn a_column_is_found_once_or_not_at_all() {
        let header = Header::new(&["id ".into(), "text".into(), "text".into()]);
        let path = Path::new("a.tsv");
        assert_eq!(header.position(path, "id").unwrap(), 0);
        assert!(header.has("text") && !header.has("label"));
        let message = |column| header.position(path, column).unwrap_err().to_string();
        assert!(message("text").contains("several columns `text`"));
        assert!(message("label").contains("its columns are `id`, `text`"));
    }

    #[test]
    fn malformed_quoting_is_refused_with_its_field() {
        for (row, reason) in [
            ("a,5\" pipe \"", "a bare double quote in field 2"),
            ("\"a\"b,c", "text after the closing double quote of field 1"),
            ("a\"b,\"c", "a bare double quote in field 1"),
        ] {
            let error = split_quoted(row, ',', 2).unwrap_err();
            assert!(error.contains(reason), "{row}: {error}");
        }
    }

    #[test]
    fn empty_fields_count_also_at_the_ends() {
        assert_eq!(split_quoted(",\"\",", ',', 3).unwrap(), ["", "", ""]);
        assert_eq!(split_quoted("\"\"\"\"", ',', 1).unwrap(), ["\""]);
        assert_eq!(split_tsv("\t\t", 3).unwrap(), ["", "", ""]);
    }
}
