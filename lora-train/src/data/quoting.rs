//! Detection of quotes in TSV files.
//!
//! Two kinds of files have tabs between fields. Published ones, such as GLUE's, have no quoting: a double quote is a character
//! like any other. `pandas.to_csv(sep="\t")` and the `csv` module of Python put a field in double quotes if it holds a quote, a
//! tab or a line break, and double the quotes in it.

use std::path::Path;

use super::lines::Lines;
use crate::error::TrainError;

/// Returns true if fields of the TSV file at `path` are in quotes, as in CSV.
///
/// All quotes of the file must be where quoting puts them, and one of three must hold: quotes within a field are doubled; every
/// field but numbers is in quotes; or a field in quotes holds a tab or a line break, and the lines do not have equal numbers of
/// tabs. Otherwise the quotes belong to the texts.
///
/// # Errors
/// As [`Lines::next_line`].
pub(super) fn is_quoted(path: &Path) -> Result<bool, TrainError> {
    let mut lines = Lines::open(path)?;
    let mut scan = Scan::default();
    while let Some((line, _)) = lines.next_line()? {
        if scan.line(line).is_err() {
            return Ok(false);
        }
    }
    Ok(scan.is_quoted())
}

/// A quote where quoting puts none.
struct Misplaced;

/// Place of a character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the first character of a field.
    #[default]
    Start,
    /// In a field without quotes.
    Bare,
    /// In a field with quotes.
    Quoted,
    /// After a quote in a field with quotes: the end of the field, or the first of two.
    AfterQuote,
}

/// Observations on the lines of a file.
#[derive(Debug, Default)]
struct Scan {
    place: Place,
    /// True if a field in quotes was seen.
    quoted: bool,
    /// True if such a field holds a doubled quote.
    doubled: bool,
    /// True if such a field holds a tab or a line break.
    broken: bool,
    /// True if a field without quotes is neither empty nor a number.
    bare_text: bool,
    /// Number of tabs in the first line.
    tabs: Option<usize>,
    /// True if a line has another number of tabs.
    ragged: bool,
    /// Number of fields in the open row, without the open field.
    fields: usize,
    /// Number of fields in the first row.
    width: Option<usize>,
    /// True if a row has another number of fields.
    ragged_rows: bool,
}

impl Scan {
    /// Reads a line.
    fn line(&mut self, line: &str) -> Result<(), Misplaced> {
        if line.is_empty() && self.place != Place::Quoted {
            return Ok(());
        }
        let tabs = line.bytes().filter(|byte| *byte == b'\t').count();
        self.ragged |= *self.tabs.get_or_insert(tabs) != tabs;
        let mut start = 0;
        for (at, character) in line.char_indices() {
            self.place = match (self.place, character) {
                (Place::Start, '"') => {
                    self.quoted = true;
                    Place::Quoted
                }
                (Place::Quoted, '"') => Place::AfterQuote,
                (Place::AfterQuote, '"') => {
                    self.doubled = true;
                    Place::Quoted
                }
                (Place::Quoted, character) => {
                    self.broken |= character == '\t';
                    Place::Quoted
                }
                (_, '\t') => {
                    self.end_field(&line[start..at]);
                    start = at + 1;
                    Place::Start
                }
                (Place::Bare, '"') | (Place::AfterQuote, _) => return Err(Misplaced),
                (Place::Start | Place::Bare, _) => Place::Bare,
            };
        }
        if self.place == Place::Quoted {
            self.broken = true;
            return Ok(());
        }
        self.end_field(&line[start..]);
        self.ragged_rows |= *self.width.get_or_insert(self.fields) != self.fields;
        (self.fields, self.place) = (0, Place::Start);
        Ok(())
    }

    /// Ends a field with this text.
    fn end_field(&mut self, text: &str) {
        self.fields += 1;
        if self.place == Place::Bare {
            self.bare_text |= text.trim().parse::<f64>().is_err();
        }
    }

    fn is_quoted(&self) -> bool {
        if !self.quoted || self.place == Place::Quoted || self.ragged_rows {
            return false;
        }
        if self.broken {
            // Two texts of which one begins and one ends with a quote look alike, but for the lines between.
            return self.ragged;
        }
        self.doubled || !self.bare_text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> bool {
        let mut scan = Scan::default();
        text.lines().all(|line| scan.line(line).is_ok()) && scan.is_quoted()
    }

    /// Written by `csv.writer(delimiter="\t")` of Python and by `DataFrame.to_csv(sep="\t")`, with every style of quoting.
    #[test]
    fn what_python_writes_with_quotes_is_quoted() {
        for text in [
            "text\tlabel\nplain\tx\n\"He said \"\"no\"\"\"\ty\n",
            "\ttext\tlabel\n0\t\"a \"\"b\"\" c\"\t1\n1\td\t0\n",
            "text\tlabel\n\"two\nlines\"\tx\none\ty\n",
            "text\tlabel\n\"a\ttab\"\tx\nnone\ty\n",
            "\"text\"\t\"label\"\n\"a\"\t\"x\"\n\"\"\t\"y\"\n",
            "\"text\"\t\"label\"\n\"a\"\t1\n\"b\"\t-2.5\n",
        ] {
            assert!(quoted(text), "{text}");
        }
    }

    #[test]
    fn quotes_of_texts_stay() {
        for text in [
            "text\tlabel\nplain\tx\n",
            "text\tlabel\n5\" pipe\tx\n",
            "text\tlabel\n\"No.\"\tx\nplain\ty\n",
            "text\tlabel\n\"No,\" he said.\tx\n\"\"\"\ty\n",
            "text\tlabel\n\"open\tx\nplain\ty\n",
            // One text begins with a quote and another ends with one.
            "text\tlabel\n\"open\tx\nplain\ty\nclosed\"\tz\n",
            "\"a\ttab in a row of three\"\tx\nplain\ty\tz\n",
        ] {
            assert!(!quoted(text), "{text}");
        }
    }
}
