//! Readers for files that hold only a vocabulary: `vocab.txt`, `vocab.json` with `merges.txt`.

use super::MAX_FILE_BYTES;
use crate::checkpoint::bounded::{read_bounded, read_json};
use crate::error::ModelError;
use lora_core::files::DirectoryFile;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use tokenizers::models::bpe::Merges;

/// Tokens of a file with their ids.
pub(super) type Tokens = HashMap<String, u32>;

/// A vocabulary, by the kind of its model.
pub(super) enum Vocabulary {
    /// Words and ends of words, which are marked by `##`.
    WordPiece(Tokens),
    /// Pieces and the pairs to merge, the most frequent first.
    Bpe(Tokens, Merges),
    /// Pieces with their log probabilities, in the order of their ids.
    Unigram(Pieces),
}

/// The vocabulary of a unigram model.
pub(super) struct Pieces {
    pub(super) pieces: Vec<(String, f64)>,
    /// Id of unknown tokens, if the file has it.
    pub(super) unk_id: Option<usize>,
    /// Table that normalizes characters, checked.
    pub(super) charsmap: Option<Vec<u8>>,
}

/// Reads `vocab.txt`: one token a line, its id is the number of the line.
///
/// # Errors
/// [`ModelError::Tokenizer`] for an empty file, one that is not UTF-8, and a repeated token, and the errors of reading
/// it.
pub(super) fn read_vocab_txt(file: &DirectoryFile) -> Result<Tokens, ModelError> {
    let text = read_text(file)?;
    let mut tokens = Tokens::new();
    for (id, line) in (0_u32..).zip(text.split_terminator('\n')) {
        // White space is not part of a token: lines may end as on Windows.
        let token = line.trim_end();
        if let Some(first) = tokens.insert(token.to_string(), id) {
            let message = format!("lines {} and {} are both {token:?}", first + 1, id + 1);
            return Err(ModelError::tokenizer(file.path(), message));
        }
    }
    if tokens.is_empty() {
        return Err(ModelError::tokenizer(file.path(), "it has no tokens"));
    }
    Ok(tokens)
}

/// Reads `vocab.json`: an object of tokens with their ids.
///
/// # Errors
/// [`ModelError::Tokenizer`] if two tokens have one id, and the errors of reading it.
pub(super) fn read_vocab_json(file: &DirectoryFile) -> Result<Tokens, ModelError> {
    let vocab: Tokens = read_json(file, MAX_FILE_BYTES)?;
    check_ids(file.path(), &vocab)?;
    Ok(vocab)
}

/// Checks that no two tokens have one id.
///
/// # Errors
/// [`ModelError::Tokenizer`] with one of the tokens.
pub(super) fn check_ids(path: &Path, vocab: &Tokens) -> Result<(), ModelError> {
    let mut seen = HashSet::with_capacity(vocab.len());
    match vocab.iter().find(|&(_, id)| !seen.insert(*id)) {
        Some((token, id)) => {
            let message = format!("two tokens have the id {id}, one of them {token:?}");
            Err(ModelError::tokenizer(path, message))
        }
        None => Ok(()),
    }
}

/// Checks that tokens which were added to a vocabulary have ids of their own: the `tokenizers` crate numbers them by the number of
/// tokens, and ids with gaps may hold those numbers already. `vocab` has the added tokens too.
///
/// # Errors
/// [`ModelError::Tokenizer`] with the two tokens.
pub(super) fn check_added<'a>(
    path: &Path,
    vocab: &Tokens,
    added: impl IntoIterator<Item = &'a str>,
) -> Result<(), ModelError> {
    let added = added
        .into_iter()
        .filter_map(|token| Some((*vocab.get(token)?, token)));
    let added: HashMap<u32, &str> = added.collect();
    let clash = vocab.iter().find_map(|(token, id)| {
        let new = added.get(id).filter(|new| *new != token)?;
        Some((new, token, id))
    });
    match clash {
        Some((new, token, id)) => {
            let message = format!(
                "the token `{new}`, which the vocabulary lacks, gets the id {id}, which `{token}` has: new ids follow the number of \
                 tokens, and the ids of this vocabulary have gaps; give it a token for each missing id first"
            );
            Err(ModelError::tokenizer(path, message))
        }
        None => Ok(()),
    }
}

/// Reads the lines of `merges.txt`: two tokens with a space between them, after a first line with the version.
///
/// # Errors
/// [`ModelError::Tokenizer`] for any other line, and the errors of reading the file.
pub(super) fn read_merges(file: &DirectoryFile) -> Result<Merges, ModelError> {
    let text = read_text(file)?;
    let is_version = |number: usize, line: &str| number == 0 && line.starts_with("#version");
    text.lines()
        .enumerate()
        .filter(|&(number, line)| !line.is_empty() && !is_version(number, line))
        .map(|(number, line)| match line.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                Ok((left.to_string(), right.to_string()))
            }
            _ => {
                let message = format!("line {} is not two tokens separated by a space", number + 1);
                Err(ModelError::tokenizer(file.path(), message))
            }
        })
        .collect()
}

fn read_text(file: &DirectoryFile) -> Result<String, ModelError> {
    String::from_utf8(read_bounded(file, MAX_FILE_BYTES)?)
        .map_err(|err| ModelError::tokenizer(file.path(), format!("not UTF-8: {err}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file<T>(text: impl AsRef<[u8]>, read: impl FnOnce(&DirectoryFile) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, text).unwrap();
        read(&path.into())
    }

    fn merges(text: &str) -> Result<Merges, ModelError> {
        with_file(text, read_merges)
    }

    #[test]
    fn merges_are_pairs_after_a_version() {
        let pairs = merges("#version: 0.2\na b\n# #\nab c\n").unwrap();
        assert_eq!(pairs.len(), 3);
        assert_eq!(pairs[1], ("#".to_string(), "#".to_string()));
    }

    #[test]
    fn a_merge_of_one_or_three_is_an_error_with_its_line() {
        for text in [
            "#version: 0.2\na\n",
            "#version: 0.2\na b c\n",
            "#version: 0.2\n b\n",
        ] {
            let message = merges(text).unwrap_err().to_string();
            assert!(message.contains("line 2"), "{message}");
        }
    }

    #[test]
    fn lines_of_vocab_txt_are_numbered_from_zero() {
        for text in ["[PAD]\n##a\n!", "[PAD]\r\n##a\r\n!\r\n"] {
            let tokens = with_file(text, read_vocab_txt).unwrap();
            assert_eq!(tokens.len(), 3);
            assert_eq!((tokens["[PAD]"], tokens["##a"], tokens["!"]), (0, 1, 2));
        }
    }

    #[test]
    fn a_vocab_txt_that_makes_no_sense_is_an_error() {
        for (text, part) in [
            (b"".as_slice(), "no tokens"),
            (b"a\nb\na\n", "lines 1 and 3"),
            (b"a\n\n\n", "lines 2 and 3"),
            (b"a\n\xff\n", "UTF-8"),
        ] {
            let message = with_file(text, read_vocab_txt).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn an_id_of_two_tokens_is_an_error() {
        let message = with_file(r#"{"a": 0, "b": 0}"#, read_vocab_json)
            .unwrap_err()
            .to_string();
        assert!(message.contains("the id 0"), "{message}");
    }
}
