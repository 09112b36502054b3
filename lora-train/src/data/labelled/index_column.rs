//! Detection of a column of word numbers before the words of a `CoNLL` file.
//!
//! `CoNLL-X`, `CoNLL-U` and `GermEval` number the words of each sentence from 1; `pandas` numbers the rows of a file from 0.

use std::path::Path;

use crate::data::lines::{Lines, is_blank};
use crate::error::TrainError;

/// Start of the line that separates documents in the files of `CoNLL` 2003.
pub(super) const DOCUMENT: &str = "-DOCSTART-";

/// Start of a comment in a file with word numbers. In other files `#` is a word.
pub(super) const COMMENT: char = '#';

/// Number of columns of `CoNLL-U`.
const CONLL_U: usize = 10;

/// Returns true if the first column of the file at `path` numbers the words: from 0 or 1, on from line to line, and perhaps from
/// the start again in each sentence.
///
/// # Errors
/// As [`Lines::next_line`], and [`TrainError::DataFormat`] for `CoNLL-U`, whose last column is no label.
pub(super) fn has_index(path: &Path) -> Result<bool, TrainError> {
    let mut lines = Lines::open(path)?;
    let (mut first, mut last, mut steps) = (None, None, 0);
    let mut is_start = true;
    while let Some((line, _)) = lines.next_line()? {
        if is_blank(line) || line.starts_with(DOCUMENT) || (is_start && line.starts_with(COMMENT)) {
            is_start = true;
            continue;
        }
        let separator = if line.contains('\t') { '\t' } else { ' ' };
        let (number, rest) = line.trim().split_once(separator).unwrap_or((line, ""));
        let value = number.trim().parse::<usize>().ok();
        let follows = last.is_some() && value == last.map(|last: usize| last + 1);
        // `CoNLL-U` has rows of several words, `3-4`, and of none, `5.1`.
        let is_special = last.is_some() && number.contains(['-', '.']);
        if rest.matches('\t').count() + 2 == CONLL_U && (follows || is_special) {
            let message = "has the columns of CoNLL-U, which has no column of labels; write the words and their labels, in two \
                           columns";
            return Err(TrainError::data_format(path, message));
        }
        let Some(number) = value else {
            return Ok(false);
        };
        let starts = match first {
            None => number <= 1,
            Some(first) => is_start && number == first,
        };
        if rest.is_empty() || !(follows || starts) {
            return Ok(false);
        }
        first.get_or_insert(number);
        (last, is_start) = (Some(number), false);
        steps += usize::from(follows);
    }
    Ok(steps > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Result<bool, TrainError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.conll");
        std::fs::write(&path, text).unwrap();
        has_index(&path)
    }

    #[test]
    fn numbers_of_words_are_told_from_words() {
        for (text, expected) in [
            ("1\tEU\tB-ORG\n2\trejects\tO\n\n1\tIt\tO\n", true),
            ("0 EU B-ORG\n1 rejects O\n\n2 It O\n", true),
            (
                "# text = EU\n1\tEU\tO\n2\tsays\tO\n\n# more\n1\tNo\tO\n",
                true,
            ),
            ("-DOCSTART-\tO\n\n1\tEU\tO\n2\tsays\tO\n", true),
            ("EU B-ORG\nrejects O\n", false),
            ("1 O\n3 O\n", false),
            ("1 O\n\n1 O\n", false),
            ("1\n2\n", false),
            ("1 a O\n2 b O\n\n7 c O\n", false),
            ("# O\n1 O\n2 O\nx O\n", false),
            ("", false),
        ] {
            assert_eq!(index(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn conll_u_is_refused_with_its_reason() {
        let row = |id: &str, word: &str| format!("{id}\t{word}{}\n", "\t_".repeat(8));
        for rows in [
            [row("1", "Der"), row("2", "Hund")],
            [row("1", "Am"), row("2-3", "im")],
        ] {
            let message = index(&rows.concat()).unwrap_err().to_string();
            assert!(message.contains("CoNLL-U"), "{message}");
        }
    }
}
