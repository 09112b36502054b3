//! Plain text, such as `WikiText`, to pretrain on or to measure perplexity.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lines::{Lines, is_blank};
use super::record::{Each, Origin, Record};
use crate::error::TrainError;

/// Division of a plain text file into documents. The text is kept without trimming,
/// except for the line ending after its last line, and with `\n` as the only line ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextDocuments {
    /// A document for each line that is not blank.
    Line,
    /// A document for each block of lines, between blank lines.
    #[default]
    Block,
    /// One document for the whole file with its blank lines, as `run_clm.py` concatenates
    /// the lines of a file.
    File,
}

/// Calls a function with each document of the file.
pub(super) fn each(
    path: &Path,
    documents: TextDocuments,
    each: Each<'_>,
) -> Result<(), TrainError> {
    let mut lines = Lines::open(path)?;
    let mut open: Option<(String, Origin)> = None;
    // A file of nothing but blank lines holds no text, even if it is one document.
    let mut end = |open: Option<(String, Origin)>| match open {
        Some((text, origin)) if !is_blank(&text) => each(Record::text(text, origin)),
        _ => Ok(()),
    };
    while let Some((line, origin)) = lines.next_line()? {
        let blank = is_blank(line);
        let ends_before = match documents {
            TextDocuments::Line => true,
            TextDocuments::Block => blank,
            TextDocuments::File => false,
        };
        if ends_before {
            end(open.take())?;
        }
        if blank && documents != TextDocuments::File {
            continue;
        }
        match &mut open {
            Some((text, _)) => {
                text.push('\n');
                text.push_str(line);
            }
            None => open = Some((line.to_string(), origin)),
        }
    }
    end(open)
}

#[cfg(test)]
mod tests {
    use super::super::record::{Content, collect};
    use super::*;
    use std::io::Write;

    const TEXT: &str = " \n = Title = \n \n first line\r\nsecond line\n\n\nlast\n";

    fn read_text(text: &str, documents: TextDocuments) -> Vec<(usize, String)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let records = collect(|record| each(file.path(), documents, record)).unwrap();
        let entry = |record: Record| match record.content {
            Content::Text { text } => (record.origin.line(), text),
            other => panic!("{other:?}"),
        };
        records.into_iter().map(entry).collect()
    }

    fn owned<const N: usize>(expected: [(usize, &str); N]) -> Vec<(usize, String)> {
        expected.map(|(n, text)| (n, text.to_string())).to_vec()
    }

    #[test]
    fn a_block_ends_at_a_blank_line() {
        assert_eq!(
            read_text(TEXT, TextDocuments::Block),
            owned([
                (2, " = Title = "),
                (4, " first line\nsecond line"),
                (8, "last")
            ])
        );
    }

    #[test]
    fn each_line_is_a_document_and_blank_ones_are_none() {
        assert_eq!(
            read_text(TEXT, TextDocuments::Line),
            owned([
                (2, " = Title = "),
                (4, " first line"),
                (5, "second line"),
                (8, "last")
            ])
        );
    }

    #[test]
    fn a_whole_file_keeps_its_blank_lines() {
        assert_eq!(
            read_text(TEXT, TextDocuments::File),
            owned([(1, " \n = Title = \n \n first line\nsecond line\n\n\nlast")])
        );
    }

    #[test]
    fn a_file_of_blank_lines_holds_no_document() {
        for documents in [
            TextDocuments::Line,
            TextDocuments::Block,
            TextDocuments::File,
        ] {
            assert!(read_text("\n  \n\t\n", documents).is_empty());
            assert!(read_text("", documents).is_empty());
        }
    }
}
