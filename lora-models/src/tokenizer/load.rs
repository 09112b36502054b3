//! Construction of a tokenizer from the files of a directory.

use super::family::{self, END_OF_TEXT, Family, Identity};
use super::roles::{Role, RoleTexts};
use super::sentence_piece::{self, Kind, SentencePiece};
use super::special_tokens::SpecialTokens;
use super::vocabulary::{
    Pieces, Vocabulary, check_added, check_ids, read_merges, read_vocab_json, read_vocab_txt,
};
use super::whole_file::WholeFile;
use super::{guarded, pipeline};
use crate::error::ModelError;
use lora_core::files::{Directory, DirectoryFile};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, Tokenizer};

/// Name of the file that holds a whole tokenizer.
pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";

/// A tokenizer, the file that defines it, and the texts of its special tokens by role.
type Loaded = (Tokenizer, PathBuf, RoleTexts);

/// Loads the tokenizer of a directory, of any kind.
///
/// # Errors
/// [`ModelError::MissingFile`] if it has none, [`ModelError::Tokenizer`] if it could be several, and the errors of
/// reading the files.
pub(super) fn load(dir: &Directory, special: &SpecialTokens) -> Result<Loaded, ModelError> {
    let named = Family::named(special.class.as_deref(), special.model_type.as_deref());
    let whole = dir.file(TOKENIZER_JSON);
    if whole.exists() {
        return from_whole_file(&whole, &named, special);
    }
    let family = match named {
        Identity::Family(family) => family,
        Identity::Unknown => family_by_files(dir)?,
        Identity::Other(class) => return Err(unknown_class(dir.path(), &class)),
    };
    from_vocabulary(dir, family, special)
}

/// Builds the tokenizer of `tokenizer.json`: as described there, but for the families that `transformers` rebuilds
/// from their vocabulary.
///
/// GPT-2's is used as described: many models of that type have a tokenizer of their own in the file.
fn from_whole_file(
    file: &DirectoryFile,
    named: &Identity,
    special: &SpecialTokens,
) -> Result<Loaded, ModelError> {
    let path = file.path();
    let mut file = WholeFile::read(file)?;
    if let Identity::Family(family) = *named
        && family != Family::Gpt2
        && let Some((vocabulary, added)) = file.parts_for(family)
    {
        let (named, tokens) = special.for_family(family, added, None);
        let inner = build(path, family, vocabulary, &named, special, &tokens)?;
        return Ok((inner, path.into(), named));
    }
    let mut inner = file.tokenizer(path)?;
    add_missing(&mut inner, path, &special.tokens)?;
    let named = special.named.clone().or_usual(&inner);
    Ok((inner, path.into(), named))
}

/// Builds a tokenizer from the vocabulary files of its family.
fn from_vocabulary(
    dir: &Directory,
    family: Family,
    special: &SpecialTokens,
) -> Result<Loaded, ModelError> {
    if !has_all(dir, family) {
        return Err(missing(dir, &[family]));
    }
    let file = dir.file(family.files()[0]);
    let path = file.path();
    if family == Family::Gpt2 {
        return gpt2(dir, &file, special);
    }
    let for_family = |pieces| special.for_family(family, BTreeMap::new(), pieces);
    let (vocabulary, (named, tokens)) = match family {
        Family::XlmRoberta | Family::DebertaV2 => {
            let model = sentence_piece::read(&file)?;
            let special = for_family(Some(unsplit(&model)));
            let vocabulary = match family {
                Family::XlmRoberta => fairseq(path, model, &special.0)?,
                _ => unigram(model),
            };
            (Vocabulary::Unigram(vocabulary), special)
        }
        Family::Bert => {
            let tokens = read_vocab_txt(&file)?;
            (Vocabulary::WordPiece(tokens), for_family(None))
        }
        _ => (bpe(dir, &file)?, for_family(None)),
    };
    let inner = build(path, family, vocabulary, &named, special, &tokens)?;
    Ok((inner, path.into(), named))
}

/// Builds GPT-2's published tokenizer. Its special token is added if the vocabulary has it, and only then.
fn gpt2(
    dir: &Directory,
    file: &DirectoryFile,
    special: &SpecialTokens,
) -> Result<Loaded, ModelError> {
    let path = file.path();
    let vocabulary = bpe(dir, file)?;
    let mut tokens = special.tokens.clone();
    if let Vocabulary::Bpe(vocab, _) = &vocabulary
        && tokens.is_empty()
        && vocab.contains_key(END_OF_TEXT)
    {
        tokens.push(AddedToken::from(END_OF_TEXT, true));
    }
    let mut seen = HashSet::new();
    tokens.retain(|token| seen.insert(token.content.clone()));
    let ends = special.texts_for(Family::Gpt2);
    let inner = build(path, Family::Gpt2, vocabulary, &ends, special, &tokens)?;
    Ok((inner, path.into(), special.named.clone()))
}

fn build(
    path: &Path,
    family: Family,
    vocabulary: Vocabulary,
    named: &RoleTexts,
    special: &SpecialTokens,
    tokens: &[AddedToken],
) -> Result<Tokenizer, ModelError> {
    let settings = &special.settings;
    let build = || pipeline::build(family, vocabulary, named, settings, tokens);
    let inner = guarded(path, build)?;
    // Added tokens get ids after the number of tokens, which ids with gaps may hold already.
    check_ids(path, &inner.get_vocab(true))?;
    Ok(inner)
}

fn has_all(dir: &Directory, family: Family) -> bool {
    let mut names = family.files().iter();
    names.all(|name| dir.file(name).exists())
}

/// Finds the family of a directory in which no file names it.
fn family_by_files(dir: &Directory) -> Result<Family, ModelError> {
    // The three families with byte-level BPE have the same files.
    let sorts = [
        Family::Bert,
        Family::Gpt2,
        Family::XlmRoberta,
        Family::DebertaV2,
    ];
    let found = sorts.into_iter().filter(|&sort| has_all(dir, sort));
    let found: Vec<Family> = found.collect();
    let fail = |message: String| {
        let message = format!("{message}; {}", family::how_to_choose());
        Err(ModelError::tokenizer(dir.path(), message))
    };
    match found[..] {
        [] => Err(missing(dir, &sorts)),
        [Family::Gpt2] => {
            let file = dir.file(Family::Gpt2.files()[0]);
            Family::detect_bpe(file.path(), &read_vocab_json(&file)?)
        }
        [Family::DebertaV2] => {
            let model = sentence_piece::read(&dir.file(Family::DebertaV2.files()[0]))?;
            // Other models have a file of this name as well.
            let has = |text: &str| model.pieces.iter().any(|piece| piece.text == text);
            if !has("[CLS]") || !has("[SEP]") {
                return fail("its spm.model lacks the special tokens of DeBERTa".into());
            }
            Ok(Family::DebertaV2)
        }
        [one] => Ok(one),
        _ => {
            let found: Vec<String> = found.iter().map(Family::file_names).collect();
            fail(format!("it has {}", found.join(" and ")))
        }
    }
}

/// Builds the error for a directory that has none of these families' files.
fn missing(dir: &Directory, families: &[Family]) -> ModelError {
    let names = families.iter().map(Family::file_names);
    let names = std::iter::once(TOKENIZER_JSON.to_string()).chain(names);
    ModelError::missing_file(dir.path(), names.collect::<Vec<_>>())
}

fn unknown_class(dir: &Path, class: &str) -> ModelError {
    let message = format!(
        "its class `{class}` is read from {TOKENIZER_JSON}, which is not there; save it with that file, or, if it is \
         one of {}, say so as `tokenizer_class` in tokenizer_config.json",
        Family::class_names()
    );
    ModelError::tokenizer(dir, message)
}

fn bpe(dir: &Directory, vocab: &DirectoryFile) -> Result<Vocabulary, ModelError> {
    let merges = read_merges(&dir.file("merges.txt"));
    Ok(Vocabulary::Bpe(read_vocab_json(vocab)?, merges?))
}

fn unigram(model: SentencePiece) -> Pieces {
    let pieces = model.pieces.into_iter();
    let pieces = pieces.map(|piece| (piece.text, f64::from(piece.score)));
    Pieces {
        pieces: pieces.collect(),
        unk_id: Some(model.unk_id),
        charsmap: model.charsmap,
    }
}

/// Rearranges the vocabulary to XLM-R's ids, which are fairseq's: four special tokens in place of SentencePiece's
/// three, and the mask at the end.
fn fairseq(path: &Path, model: SentencePiece, named: &RoleTexts) -> Result<Pieces, ModelError> {
    let first = model.pieces.iter().take(3).map(|piece| piece.kind);
    if !first.eq([Kind::Unknown, Kind::Control, Kind::Control]) {
        let message = "its first pieces are not `<unk>`, `<s>`, `</s>`, as they are in XLM-R";
        return Err(ModelError::malformed(path, message));
    }
    let mut pieces = unigram(model);
    let token = |role: Role| (named[role].clone().unwrap_or_default(), 0.0);
    let start = [Role::Bos, Role::Pad, Role::Eos, Role::Unk].map(token);
    pieces.pieces.splice(..3, start);
    pieces.pieces.push(token(Role::Mask));
    Ok(pieces)
}

/// Returns the pieces that are found in a text before it is split.
fn unsplit(model: &SentencePiece) -> Vec<AddedToken> {
    let pieces = model.pieces.iter();
    let unsplit = pieces.filter(|piece| matches!(piece.kind, Kind::Control | Kind::UserDefined));
    let added = unsplit.map(|piece| {
        AddedToken::from(&piece.text[..], piece.kind == Kind::Control).normalized(false)
    });
    added.collect()
}

/// Adds the tokens that the tokenizer does not have as added tokens yet. Existing ones keep their rules.
fn add_missing(
    tokenizer: &mut Tokenizer,
    path: &Path,
    tokens: &[AddedToken],
) -> Result<(), ModelError> {
    let known = tokenizer.get_added_tokens_decoder().into_values();
    let mut known: HashSet<String> = known.map(|token| token.content).collect();
    let mut missing = tokens.to_vec();
    missing.retain(|token| known.insert(token.content.clone()));
    if missing.is_empty() {
        return Ok(());
    }
    guarded(path, || {
        tokenizer.add_tokens(missing.iter().cloned())?;
        Ok(())
    })?;
    let added = missing.iter().map(|token| token.content.as_str());
    check_added(path, &tokenizer.get_vocab(true), added)
}
