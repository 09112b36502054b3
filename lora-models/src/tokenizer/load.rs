//! Building a tokenizer from the files that define it.

use super::special_tokens::{END_OF_TEXT, SpecialTokens};
use super::{MAX_FILE_BYTES, guarded};
use crate::checkpoint::bounded::{read_bounded, read_json};
use crate::error::ModelError;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// The whole tokenizer in one file.
const TOKENIZER_JSON: &str = "tokenizer.json";
/// The tokens of byte-level BPE with their ids.
const VOCAB_JSON: &str = "vocab.json";
/// The pairs that byte-level BPE merges, the most frequent first.
const MERGES_TXT: &str = "merges.txt";

/// A tokenizer and what its directory says about it.
pub(super) struct Loaded {
    pub(super) inner: Tokenizer,
    /// The file that defines it.
    pub(super) path: PathBuf,
    pub(super) special: SpecialTokens,
}

/// Loads whichever kind of tokenizer a directory has.
///
/// # Errors
///
/// [`ModelError::MissingFile`] where it has none, and what reading the files can give.
pub(super) fn load(dir: &Path) -> Result<Loaded, ModelError> {
    let mut special = SpecialTokens::read(dir)?;
    let whole = dir.join(TOKENIZER_JSON);
    let (vocab, merges) = (dir.join(VOCAB_JSON), dir.join(MERGES_TXT));
    let (mut inner, path) = if whole.exists() {
        (from_tokenizer_json(&whole)?, whole)
    } else if vocab.exists() && merges.exists() {
        let inner = from_vocab_and_merges(&vocab, &merges, special.add_prefix_space)?;
        if special.tokens.is_empty() && inner.token_to_id(END_OF_TEXT).is_some() {
            special.tokens.push(AddedToken::from(END_OF_TEXT, true));
        }
        (inner, vocab)
    } else {
        return Err(ModelError::MissingFile {
            path: dir.to_path_buf(),
            looked_for: vec![
                TOKENIZER_JSON.to_string(),
                format!("{VOCAB_JSON} with {MERGES_TXT}"),
            ],
        });
    };
    add_missing(&mut inner, &path, &special.tokens)?;
    Ok(Loaded {
        inner,
        path,
        special,
    })
}

/// `tokenizer.json`, without the padding and truncation that it may ask for: how long a text may be is the business of
/// who trains or generates, and a tokenizer that cuts in silence spoils an evaluation.
fn from_tokenizer_json(path: &Path) -> Result<Tokenizer, ModelError> {
    let bytes = read_bounded(path, MAX_FILE_BYTES)?;
    guarded(path, || {
        let mut tokenizer = Tokenizer::from_bytes(&bytes)?;
        tokenizer.with_truncation(None)?;
        tokenizer.with_padding(None);
        Ok(tokenizer)
    })
}

/// Byte-level BPE from its two files, as GPT-2 was published.
fn from_vocab_and_merges(
    vocab_path: &Path,
    merges_path: &Path,
    add_prefix_space: bool,
) -> Result<Tokenizer, ModelError> {
    let vocab: HashMap<String, u32> = read_json(vocab_path, MAX_FILE_BYTES)?;
    let mut seen = HashSet::with_capacity(vocab.len());
    if let Some((token, id)) = vocab.iter().find(|&(_, id)| !seen.insert(*id)) {
        return Err(ModelError::Tokenizer {
            path: vocab_path.to_path_buf(),
            message: format!("two tokens have the id {id}, one of them {token:?}"),
        });
    }
    let merges = read_merges(merges_path)?;
    guarded(vocab_path, || {
        let vocab: Vocab = vocab.into_iter().collect();
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).build()?;
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
        tokenizer.with_decoder(Some(ByteLevelDecoder::default()));
        Ok(tokenizer)
    })
}

/// The lines of `merges.txt`: two tokens with a space between them, after a first line with the version.
fn read_merges(path: &Path) -> Result<Merges, ModelError> {
    let fail = |message: String| ModelError::Tokenizer {
        path: path.to_path_buf(),
        message,
    };
    let text = String::from_utf8(read_bounded(path, MAX_FILE_BYTES)?)
        .map_err(|err| fail(format!("not UTF-8: {err}")))?;
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
            _ => Err(fail(format!(
                "line {} is not two tokens with a space between",
                number + 1
            ))),
        })
        .collect()
}

/// Adds the tokens that the tokenizer does not yet know as added ones. Those it knows keep the rules that it has for
/// them.
fn add_missing(
    tokenizer: &mut Tokenizer,
    path: &Path,
    tokens: &[AddedToken],
) -> Result<(), ModelError> {
    let mut known: HashSet<String> = tokenizer
        .get_added_tokens_decoder()
        .into_values()
        .map(|token| token.content)
        .collect();
    let missing: Vec<AddedToken> = tokens
        .iter()
        .filter(|token| known.insert(token.content.clone()))
        .cloned()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    guarded(path, || {
        tokenizer.add_tokens(&missing);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merges(text: &str) -> Result<Merges, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MERGES_TXT);
        std::fs::write(&path, text).unwrap();
        read_merges(&path)
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
}
