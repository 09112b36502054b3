//! Columns of `CoNLL`: a word a line, with blank lines between sentences.
//!
//! ```text
//! EU NNP B-NP B-ORG
//! rejects VBZ B-VP O
//! ```
//!
//! The first column is the word and the last its label. A file with one column has no labels. A column of word numbers before
//! the words is left out, with the comments that such files have.
//! Columns are separated by tabs, if the first line has any, or by spaces.

use std::path::Path;

use super::index_column::{COMMENT, DOCUMENT, has_index};
use crate::data::lines::{Lines, MAX_LINE_BYTES, is_blank};
use crate::data::record::Origin;
use crate::error::TrainError;

/// Sentence as the file has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sentence {
    /// Words.
    pub(super) words: Vec<String>,
    /// Label of each word; empty for a sentence without labels.
    pub(super) labels: Vec<String>,
    /// Name of the adapter, where the file names one.
    pub(super) adapter: Option<String>,
}

/// Reader of a file sentence by sentence.
pub(super) struct Sentences {
    lines: Lines,
    /// Separator of the columns, and their number.
    columns: Option<(char, usize)>,
    /// True if the first column numbers the words.
    pub(super) has_index: bool,
}

impl Sentences {
    /// Opens `path` at its first sentence.
    ///
    /// # Errors
    /// As [`has_index`].
    pub(super) fn open(path: &Path) -> Result<Self, TrainError> {
        Ok(Self {
            lines: Lines::open(path)?,
            columns: None,
            has_index: has_index(path)?,
        })
    }

    /// Returns the next sentence, with its first line; `None` at the end of the file.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a line without the columns of the first one, a sentence that is
    /// too long, and as [`Lines::next_line`].
    pub(super) fn next_sentence(&mut self) -> Result<Option<(Sentence, Origin)>, TrainError> {
        let mut open: Option<(Sentence, Origin)> = None;
        let mut bytes = 0;
        while let Some((line, origin)) = self.lines.next_line()? {
            let is_comment = self.has_index && open.is_none() && line.starts_with(COMMENT);
            let line = if is_comment || !self.has_index {
                line
            } else {
                without_index(line)
            };
            if is_blank(line) || is_comment || line.starts_with(DOCUMENT) {
                if open.is_some() {
                    break;
                }
                continue;
            }
            // A file without blank lines would otherwise be one sentence that fills the memory.
            bytes += line.len();
            if bytes > MAX_LINE_BYTES {
                return Err(origin.error(format!(
                    "a sentence of more than {} MiB; are there blank lines between sentences?",
                    MAX_LINE_BYTES / (1024 * 1024)
                )));
            }
            let (word, label) =
                split(line, &mut self.columns).map_err(|message| origin.error(message))?;
            let (sentence, _) = open.get_or_insert_with(|| (Sentence::default(), origin));
            sentence.words.push(word.to_string());
            sentence.labels.extend(label.map(ToString::to_string));
        }
        Ok(open)
    }
}

/// Returns a line without its first column.
fn without_index(line: &str) -> &str {
    let line = line.trim_start();
    let separator = if line.contains('\t') { '\t' } else { ' ' };
    match line.split_once(separator) {
        Some((number, rest)) if number.trim().parse::<usize>().is_ok() => rest,
        _ => line,
    }
}

/// Splits a line into the word and, if there are several columns, its label. The first line of a file
/// sets the columns.
fn split<'a>(
    line: &'a str,
    columns: &mut Option<(char, usize)>,
) -> Result<(&'a str, Option<&'a str>), String> {
    let separator = match columns {
        Some((separator, _)) => *separator,
        None if line.contains('\t') => '\t',
        None => ' ',
    };
    // Tabs count, each of them; spaces may be several between two columns.
    let mut fields = line
        .split(separator)
        .map(str::trim)
        .filter(|field| separator == '\t' || !field.is_empty());
    let word = fields.next().unwrap_or_default();
    let (label, more) = fields.fold((None, 0), |(_, count), field| (Some(field), count + 1));
    let (_, expected) = *columns.get_or_insert((separator, more + 1));
    if more + 1 != expected {
        return Err(format!(
            "{} columns, where the first line has {expected}; expected a word and, last, its label, \
             with {} between",
            more + 1,
            if separator == '\t' { "tabs" } else { "spaces" }
        ));
    }
    if word.is_empty() || label.is_some_and(str::is_empty) {
        return Err("the word or its label is empty".to_string());
    }
    Ok((word, label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(text: &str) -> Result<Vec<(Sentence, usize)>, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut sentences = Sentences::open(file.path())?;
        let mut found = Vec::new();
        while let Some((sentence, origin)) = sentences.next_sentence()? {
            found.push((sentence, origin.line()));
        }
        Ok(found)
    }

    fn sentence(words: &[&str], labels: &[&str]) -> Sentence {
        let strings = |of: &[&str]| of.iter().map(ToString::to_string).collect();
        Sentence {
            words: strings(words),
            labels: strings(labels),
            adapter: None,
        }
    }

    #[test]
    fn sentences_end_at_blank_lines_documents_and_the_end() {
        let text = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects  VBZ O\n \n\nIt PRP O\n-DOCSTART- -X- O\nA DT O";
        assert_eq!(
            read(text).unwrap(),
            [
                (sentence(&["EU", "rejects"], &["B-ORG", "O"]), 3),
                (sentence(&["It"], &["O"]), 7),
                (sentence(&["A"], &["O"]), 9),
            ]
        );
    }

    #[test]
    fn a_word_between_tabs_may_hold_spaces_and_words_alone_have_no_labels() {
        assert_eq!(
            read("New York\tB-LOC\nis\tO\n").unwrap(),
            [(sentence(&["New York", "is"], &["B-LOC", "O"]), 1)]
        );
        assert_eq!(
            read("one\ntwo\n").unwrap(),
            [(sentence(&["one", "two"], &[]), 1)]
        );
    }

    #[test]
    fn numbers_of_words_are_no_words() {
        let text = "# a comment without tabs\n1\tEU\tB-ORG\n2\t#\tO\n\n0\t-DOCSTART-\tO\n\n1\tIt\tO\n2\t7\tO\n";
        let text = text.replace("0\t-DOCSTART-", "-DOCSTART-");
        assert_eq!(
            read(&text).unwrap(),
            [
                (sentence(&["EU", "#"], &["B-ORG", "O"]), 2),
                (sentence(&["It", "7"], &["O", "O"]), 7),
            ]
        );
        // The rows of a file, with the lines between documents among them.
        let text = "0 -DOCSTART- -X- O\n\n1 EU NNP B-ORG\n2 is VBZ O\n\n3 -DOCSTART- -X- O\n\n4 It PRP O\n";
        assert_eq!(
            read(text).unwrap(),
            [
                (sentence(&["EU", "is"], &["B-ORG", "O"]), 3),
                (sentence(&["It"], &["O"]), 8),
            ]
        );
    }

    #[test]
    fn a_line_with_other_columns_is_named() {
        for (text, reason) in [
            ("a O\nb\n", "line 2: 1 columns, where the first line has 2"),
            ("a O\nb X O\n", "line 2: 3 columns"),
            ("a\tO\nb O\n", "line 2: 1 columns"),
            ("a\tO\n\tO\n", "line 2: the word or its label is empty"),
            ("a\tO\nb\t\n", "line 2: the word or its label is empty"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
        }
    }

    #[test]
    fn a_sentence_without_end_is_refused_at_the_bound() {
        let line = format!("{} O\n", "x".repeat(99_998));
        let text = line.repeat(MAX_LINE_BYTES / 100_000 + 1);
        let message = read(&text).unwrap_err().to_string();
        assert!(message.contains("more than 16 MiB"), "{message}");
    }
}
