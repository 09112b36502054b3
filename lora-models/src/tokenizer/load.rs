//! Building a tokenizer from the files that a directory has.

use super::family::{self, END_OF_TEXT, Family, Identity};
use super::guarded;
use super::named::Named;
use super::sentence_piece::{self, Kind, SentencePiece};
use super::special_tokens::{ConfigIds, Settings, SpecialTokens};
use super::vocabulary::{Pieces, Vocabulary, read_merges, read_vocab_json, read_vocab_txt};
use super::whole_file::WholeFile;
use super::{MAX_FILE_BYTES, pipeline};
use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tokenizers::{AddedToken, Tokenizer};

/// The whole tokenizer in one file.
const TOKENIZER_JSON: &str = "tokenizer.json";

/// A tokenizer and what its directory says about it.
pub(super) struct Loaded {
    pub(super) inner: Tokenizer,
    /// The file that defines it.
    pub(super) path: PathBuf,
    pub(super) named: Named,
    pub(super) settings: Settings,
    pub(super) config_ids: ConfigIds,
}

/// Loads whichever kind of tokenizer a directory has.
///
/// # Errors
///
/// [`ModelError::MissingFile`] where it has none, [`ModelError::Tokenizer`] where it could be several, and what reading
/// the files can give.
pub(super) fn load(dir: &Path) -> Result<Loaded, ModelError> {
    let special = SpecialTokens::read(dir)?;
    let named = Family::named(special.class.as_deref(), special.model_type.as_deref());
    let whole = dir.join(TOKENIZER_JSON);
    let (inner, path, named) = if whole.exists() {
        from_whole_file(whole, &named, &special)?
    } else {
        let family = match named {
            Identity::Family(family) => family,
            Identity::Nothing => family_by_files(dir)?,
            Identity::Other(class) => return Err(unknown_class(dir, &class)),
        };
        from_vocabulary(dir, family, &special)?
    };
    Ok(Loaded {
        inner,
        path,
        named,
        settings: special.settings,
        config_ids: special.config_ids,
    })
}

/// `tokenizer.json`: taken as it stands, but for the families that `transformers` builds anew from its vocabulary.
///
/// GPT-2's is taken as it stands: many models of that type have a tokenizer of their own in it.
fn from_whole_file(
    path: PathBuf,
    named: &Identity,
    special: &SpecialTokens,
) -> Result<(Tokenizer, PathBuf, Named), ModelError> {
    let mut file = WholeFile::read(&path)?;
    if let Identity::Family(family) = *named
        && family != Family::Gpt2
        && let Some((vocabulary, added)) = file.parts_for(family)
    {
        let (named, tokens) = special.of_family(family, added, Vec::new());
        let inner = build(&path, family, vocabulary, &named, special, &tokens)?;
        return Ok((inner, path, named));
    }
    let mut inner = file.tokenizer(&path)?;
    add_missing(&mut inner, &path, &special.tokens)?;
    let named = special.named.clone().or_usual(&inner);
    Ok((inner, path, named))
}

/// A tokenizer from the files of its family.
fn from_vocabulary(
    dir: &Path,
    family: Family,
    special: &SpecialTokens,
) -> Result<(Tokenizer, PathBuf, Named), ModelError> {
    if !has_all(dir, family) {
        return Err(ModelError::MissingFile {
            path: dir.to_path_buf(),
            looked_for: vec![TOKENIZER_JSON.to_string(), family.files().join(" with ")],
        });
    }
    let path = dir.join(family.files()[0]);
    if family == Family::Gpt2 {
        return gpt2(dir, path, special);
    }
    let (vocabulary, named, tokens) = match family {
        Family::XlmRoberta | Family::DebertaV2 => {
            let model = sentence_piece::parse(&path, &read_bounded(&path, MAX_FILE_BYTES)?)?;
            let (named, tokens) = special.of_family(family, BTreeMap::new(), unsplit(&model));
            let vocabulary = match family {
                Family::XlmRoberta => fairseq(&path, model, &named)?,
                _ => unigram(model),
            };
            (Vocabulary::Unigram(vocabulary), named, tokens)
        }
        _ => {
            let vocabulary = match family {
                Family::Bert => Vocabulary::WordPiece(read_vocab_txt(&path)?),
                _ => bpe(dir, &path)?,
            };
            let (named, tokens) = special.of_family(family, BTreeMap::new(), Vec::new());
            (vocabulary, named, tokens)
        }
    };
    let inner = build(&path, family, vocabulary, &named, special, &tokens)?;
    Ok((inner, path, named))
}

/// GPT-2 as it was published. Its one special token is added where the vocabulary has it, and not to others.
fn gpt2(
    dir: &Path,
    path: PathBuf,
    special: &SpecialTokens,
) -> Result<(Tokenizer, PathBuf, Named), ModelError> {
    let vocabulary = bpe(dir, &path)?;
    let mut tokens = special.tokens.clone();
    if let Vocabulary::Bpe(vocab, _) = &vocabulary
        && tokens.is_empty()
        && vocab.contains_key(END_OF_TEXT)
    {
        tokens.push(AddedToken::from(END_OF_TEXT, true));
    }
    let mut seen = HashSet::new();
    tokens.retain(|token| seen.insert(token.content.clone()));
    let ends = Named {
        bos: special.named.bos.clone().or(Some(END_OF_TEXT.to_string())),
        eos: special.named.eos.clone().or(Some(END_OF_TEXT.to_string())),
        ..Named::default()
    };
    let inner = build(&path, Family::Gpt2, vocabulary, &ends, special, &tokens)?;
    Ok((inner, path, special.named.clone()))
}

fn build(
    path: &Path,
    family: Family,
    vocabulary: Vocabulary,
    named: &Named,
    special: &SpecialTokens,
    tokens: &[AddedToken],
) -> Result<Tokenizer, ModelError> {
    let settings = &special.settings;
    let inner = guarded(path, || {
        pipeline::build(family, vocabulary, named, settings, tokens)
    })?;
    // Ids with gaps leave no room for the tokens that are added after as many as there are.
    let mut seen = HashSet::new();
    let vocab = inner.get_vocab(true);
    match vocab.iter().find(|&(_, id)| !seen.insert(*id)) {
        Some((token, id)) => Err(ModelError::Tokenizer {
            path: path.to_path_buf(),
            message: format!("two tokens have the id {id}, one of them {token:?}"),
        }),
        None => Ok(inner),
    }
}

fn has_all(dir: &Path, family: Family) -> bool {
    family.files().iter().all(|name| dir.join(name).exists())
}

/// The family of a directory in which nothing names it.
fn family_by_files(dir: &Path) -> Result<Family, ModelError> {
    // The three with byte-level BPE have the same files.
    let sorts = [
        Family::Bert,
        Family::Gpt2,
        Family::XlmRoberta,
        Family::DebertaV2,
    ];
    let names = |family: &Family| family.files().join(" with ");
    let found: Vec<Family> = sorts
        .into_iter()
        .filter(|&sort| has_all(dir, sort))
        .collect();
    let fail = |message: String| {
        Err(ModelError::Tokenizer {
            path: dir.to_path_buf(),
            message,
        })
    };
    match found[..] {
        [] => Err(ModelError::MissingFile {
            path: dir.to_path_buf(),
            looked_for: std::iter::once(TOKENIZER_JSON.to_string())
                .chain(sorts.iter().map(names))
                .collect(),
        }),
        [Family::Gpt2] => {
            let path = dir.join(Family::Gpt2.files()[0]);
            Family::of_bpe(&path, &read_vocab_json(&path)?)
        }
        [Family::DebertaV2] => {
            let path = dir.join(Family::DebertaV2.files()[0]);
            let model = sentence_piece::parse(&path, &read_bounded(&path, MAX_FILE_BYTES)?)?;
            // Other models have a file of this name as well.
            let has = |text: &str| model.pieces.iter().any(|piece| piece.text == text);
            if has("[CLS]") && has("[SEP]") {
                Ok(Family::DebertaV2)
            } else {
                fail(format!(
                    "its spm.model has not the special tokens of DeBERTa; {}",
                    family::say_which()
                ))
            }
        }
        [one] => Ok(one),
        _ => {
            let found: Vec<String> = found.iter().map(names).collect();
            fail(format!(
                "it has {}; {}",
                found.join(" and "),
                family::say_which()
            ))
        }
    }
}

fn unknown_class(dir: &Path, class: &str) -> ModelError {
    ModelError::Tokenizer {
        path: dir.to_path_buf(),
        message: format!(
            "its class `{class}` is read from {TOKENIZER_JSON}, which is not there; save it with that file, or, if it \
             is one of {}, say so as `tokenizer_class` in tokenizer_config.json",
            Family::class_names()
        ),
    }
}

fn bpe(dir: &Path, vocab: &Path) -> Result<Vocabulary, ModelError> {
    let tokens = read_vocab_json(vocab)?;
    Ok(Vocabulary::Bpe(
        tokens,
        read_merges(&dir.join("merges.txt"))?,
    ))
}

fn unigram(model: SentencePiece) -> Pieces {
    let pieces = model.pieces.into_iter();
    Pieces {
        pieces: pieces
            .map(|piece| (piece.text, f64::from(piece.score)))
            .collect(),
        unk_id: Some(model.unk_id),
        charsmap: model.charsmap,
    }
}

/// XLM-R's ids, which are fairseq's: four special tokens in place of SentencePiece's three, and the mask at the end.
fn fairseq(path: &Path, model: SentencePiece, named: &Named) -> Result<Pieces, ModelError> {
    let first = model.pieces.iter().take(3).map(|piece| piece.kind);
    if !first.eq([Kind::Unknown, Kind::Control, Kind::Control]) {
        return Err(ModelError::malformed(
            path,
            "its first pieces are not `<unk>`, `<s>`, `</s>`, as they are in XLM-R",
        ));
    }
    let mut pieces = unigram(model);
    let token = |token: &Option<String>| (token.clone().unwrap_or_default(), 0.0);
    let start = [&named.bos, &named.pad, &named.eos, &named.unk].map(token);
    pieces.pieces.splice(..3, start);
    pieces.pieces.push(token(&named.mask));
    Ok(pieces)
}

/// The pieces that are found in a text before it is split up.
fn unsplit(model: &SentencePiece) -> Vec<AddedToken> {
    let pieces = model.pieces.iter();
    pieces
        .filter(|piece| matches!(piece.kind, Kind::Control | Kind::UserDefined))
        .map(|piece| {
            AddedToken::from(piece.text.clone(), piece.kind == Kind::Control).normalized(false)
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
