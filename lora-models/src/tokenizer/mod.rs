//! Text to token ids and back, with the tokenizer files of a Hugging Face model directory.
//!
//! | concept | file |
//! | --- | --- |
//! | [`Tokenizer`]: text to ids and back; ids of special tokens | `mod.rs` |
//! | [`Sequence`]: texts and pairs as model inputs | `encode.rs` |
//! | a directory's files and the tokenizer built from them | `load.rs` |
//! | BERT, RoBERTa, XLM-R, DeBERTa, GPT-2: their names, files and special tokens | `family.rs` |
//! | normalizer, pre-tokenizer, model, decoder and post-processor of each family | `pipeline.rs` |
//! | tokens added to a tokenizer, and its files with them | `added.rs` |
//! | comparison with the files in another directory | `copied.rs` |
//! | special tokens and their roles | `special_tokens.rs`, `roles.rs`, `token_entries.rs` |
//! | `vocab.txt`, `vocab.json` and `merges.txt` | `vocabulary.rs` |
//! | `tokenizer.json`, and the bound on its steps | `whole_file.rs`, `growth.rs` |
//! | SentencePiece models, their format, their table of characters | `sentence_piece.rs`, `protobuf.rs`, `charsmap.rs` |
//!
//! Hugging Face's own `tokenizers` crate does the work, configured as by `AutoTokenizer` of `transformers` 5, so ids
//! are those of `transformers`. Deliberate differences: [`Tokenizer::encode`] adds no special tokens around a text
//! ([`Tokenizer::encode_inputs`] does), nothing is padded or truncated whatever `tokenizer.json` says, and decoding
//! never "cleans up" spaces, so that decoding undoes encoding for byte-level BPE.

mod added;
mod charsmap;
mod copied;
mod encode;
mod family;
mod growth;
mod load;
mod pipeline;
mod protobuf;
mod roles;
mod sentence_piece;
mod special_tokens;
mod token_entries;
mod vocabulary;
mod whole_file;

pub use encode::Sequence;

use crate::error::ModelError;
use lora_core::file::{TOKENIZER_FILES, TOKENIZER_LIMIT};
use lora_core::files::{Directory, Overwrite, create_folder_of, write_file};
use roles::{ByRole, Role, RoleTexts};
use serde_json::{Map, Value};
use special_tokens::{Side, SpecialTokens};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::PostProcessorWrapper;

/// Files of a tokenizer: names with contents.
pub type TokenizerFiles = Vec<(String, Vec<u8>)>;

/// Limit for a tokenizer file, in bytes.
const MAX_FILE_BYTES: u64 = TOKENIZER_LIMIT;

/// Number of texts encoded at once: enough for all threads, with bounded memory for a corpus of any length.
const BATCH: usize = 1024;

/// A tokenizer with the special ids of its model.
///
/// # Examples
/// ```no_run
/// use lora_models::tokenizer::Tokenizer;
///
/// # fn main() -> Result<(), lora_models::ModelError> {
/// let tokenizer = Tokenizer::from_dir("gpt2")?;
/// let ids = tokenizer.encode("Hello world<|endoftext|>")?;
/// assert_eq!(ids, [15496, 995, 50256]);
/// assert_eq!(tokenizer.eos_id(), Some(50256));
/// assert_eq!(tokenizer.decode(&ids, true)?, "Hello world");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    /// The tokenizer without its post-processor.
    inner: tokenizers::Tokenizer,
    /// Post-processor, which puts the special tokens around a text.
    processor: Option<PostProcessorWrapper>,
    /// Special tokens that it puts before and after a text.
    around: [Vec<u32>; 2],
    /// Directory that was loaded; of one in memory, the tokenizer's files.
    dir: Directory,
    /// File of it that was loaded, for messages.
    path: PathBuf,
    files: Vec<PathBuf>,
    /// Ids of the special tokens, by role.
    ids: ByRole<Option<u32>>,
    /// Texts of the special tokens that the files name, by role.
    named: RoleTexts,
    pad_type_id: u32,
    /// True if truncation removes the start of a text instead of its end.
    cut_left: bool,
    vocab_size: usize,
    largest_id: Option<u32>,
    /// Number of tokens that the model has, if it is known: a text with an id beyond them is refused.
    limit: Option<usize>,
}

impl Tokenizer {
    /// Loads the tokenizer of a model directory, on disk or in memory, as `AutoTokenizer.from_pretrained` of `transformers` does.
    ///
    /// | family | `tokenizer_class`, else `model_type` | files, where there is no `tokenizer.json` |
    /// | --- | --- | --- |
    /// | BERT, DistilBERT, ELECTRA | `BertTokenizer`, `bert` | `vocab.txt` |
    /// | RoBERTa | `RobertaTokenizer`, `roberta` | `vocab.json`, `merges.txt` |
    /// | XLM-R | `XLMRobertaTokenizer`, `xlm-roberta` | `sentencepiece.bpe.model` |
    /// | DeBERTa | `DebertaTokenizer`, `deberta` | `vocab.json`, `merges.txt` |
    /// | DeBERTa v2 and v3 | `DebertaV2Tokenizer`, `deberta-v2` | `spm.model` |
    /// | GPT-2 | `GPT2Tokenizer`, `gpt2` | `vocab.json`, `merges.txt` |
    ///
    /// The class is read from `tokenizer_config.json` or `config.json`, the model type from `config.json`. If neither
    /// is known, `tokenizer.json` is used as described there; without that file, the other files and their special
    /// tokens determine the family.
    ///
    /// For every known family but GPT-2, only the vocabulary is read from `tokenizer.json`, and the rest from
    /// `tokenizer_config.json`: BERT's `do_lower_case` counts there, for example, and not the normalizer of
    /// `tokenizer.json`. `transformers` does the same, so ids in training here equal those in use there.
    ///
    /// The end-of-text id is that of `eos_token` in `tokenizer_config.json`, else in `special_tokens_map.json`, else
    /// that of the family, else `eos_token_id` of `config.json` if the tokenizer has that id, else `<|endoftext|>` if
    /// the vocabulary has it. The ids for the beginning of a text and for padding are found in the same way, without
    /// the last step. Special tokens of these files are recognized in texts, and appended to the vocabulary if it
    /// lacks them, as in `transformers`.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] if the directory has no tokenizer; [`ModelError::Tokenizer`], [`ModelError::Json`],
    /// [`ModelError::Malformed`] or [`ModelError::TooLarge`] if a file is invalid, and [`ModelError::Tokenizer`] if
    /// the files fit several tokenizers; [`ModelError::Io`].
    pub fn from_dir(dir: impl Into<Directory>) -> Result<Self, ModelError> {
        Self::load(dir.into(), None)
    }

    /// Loads a tokenizer from the content of its `tokenizer.json`, such as one that a program embeds by `include_bytes!`.
    ///
    /// The file is used as described there. A tokenizer with further files, such as the `tokenizer_config.json` that names BERT's
    /// settings, is a [`Directory`] in memory, which [`from_dir`](Self::from_dir) takes.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir); messages name `memory/tokenizer.json`.
    pub fn from_bytes(tokenizer_json: impl Into<Cow<'static, [u8]>>) -> Result<Self, ModelError> {
        let dir = Directory::in_memory("memory");
        Self::from_dir(dir.with_file(load::TOKENIZER_JSON, tokenizer_json))
    }

    /// Loads the tokenizer of a directory whose `config.json` has been read.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir).
    pub fn with_config(
        dir: impl Into<Directory>,
        config: &Map<String, Value>,
    ) -> Result<Self, ModelError> {
        Self::load(dir.into(), Some(config))
    }

    fn load(dir: Directory, config: Option<&Map<String, Value>>) -> Result<Self, ModelError> {
        let special = SpecialTokens::read(&dir, config)?;
        let (mut inner, path, named) = load::load(&dir, &special)?;
        let processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let around = encode::around(processor.as_ref(), &path)?;
        let mut ids = ByRole::from_fn(|role| {
            let named = named[role].as_deref();
            // A `config.json` written without its tokenizer has the ids of another one, so they are looked up.
            let from_config =
                special.config_ids[role].filter(|&id| inner.id_to_token(id).is_some());
            named
                .and_then(|token| inner.token_to_id(token))
                .or(from_config)
        });
        ids[Role::Eos] = ids[Role::Eos].or_else(|| inner.token_to_id(family::END_OF_TEXT));
        let vocab = inner.get_vocab(true);
        let (vocab_size, largest_id) = (vocab.len(), vocab.into_values().max());
        let files = TOKENIZER_FILES.map(|name| dir.file(name)).into_iter();
        let files = files.filter(|file| file.is_file());
        Ok(Self {
            files: files.map(|file| file.path().into()).collect(),
            dir: dir.with_only(&TOKENIZER_FILES),
            inner,
            processor,
            around,
            path,
            ids,
            named,
            pad_type_id: special.settings.pad_token_type_id.unwrap_or(0),
            cut_left: special.settings.truncation_side == Some(Side::Left),
            vocab_size,
            largest_id,
            limit: None,
        })
    }

    /// Sets the number of tokens of the model. The tokenizer may have more: only a text that uses one of those is refused.
    pub fn with_limit(mut self, tokens: usize) -> Self {
        self.limit = Some(tokens);
        self
    }

    /// Returns the tokens that another tokenizer, made from this one, has beside those of this one; `None` if it encodes some of them
    /// otherwise.
    pub fn added_in(&self, other: &Self) -> Option<usize> {
        let own = self.inner.get_vocab(true);
        let mut own = own.iter();
        let same = own.all(|(token, &id)| other.inner.token_to_id(token) == Some(id));
        same.then(|| other.vocab_size.saturating_sub(self.vocab_size))
    }

    /// Refuses ids that the model has no embedding for.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] with the first such token.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), ModelError> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        match ids.iter().find(|&&id| id as usize >= limit) {
            None => Ok(()),
            Some(&id) => {
                let token = self.id_to_token(id).unwrap_or_default();
                let message = format!(
                    "a text has the token `{token}` with id {id}, but the model has only {limit} tokens: use the model whose embeddings \
                     were resized for it, an adapter that brings them, or train with `--new-tokens`"
                );
                Err(ModelError::tokenizer(&self.path, message))
            }
        }
    }

    /// Encodes a text. No tokens are added around it; the text of a special token in it becomes that token.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer's own rules fail on the text. Byte-level BPE has a token for every
    /// byte and does not fail.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = guarded(&self.path, || self.inner.encode_fast(text, false))?;
        self.check_ids(encoding.get_ids())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a text as [`encode`](Self::encode), and returns for each token the bytes of the text that it stands for.
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode).
    pub fn encode_with_offsets(
        &self,
        text: &str,
    ) -> Result<(Vec<u32>, Vec<Range<usize>>), ModelError> {
        let encoding = guarded(&self.path, || self.inner.encode(text, false))?;
        self.check_ids(encoding.get_ids())?;
        let offsets = encoding.get_offsets().iter();
        let offsets = offsets.map(|&(from, to)| from..to).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    /// Encodes a text that a language model continues: with the special tokens that the tokenizer puts before a text, as
    /// `tokenizer(text)` of `transformers`, but without those after it.
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        Ok([&self.around[0][..], &self.encode(text)?].concat())
    }

    /// Returns the special tokens that the tokenizer puts before and after a text.
    pub fn around(&self) -> (&[u32], &[u32]) {
        let [before, after] = &self.around;
        (before, after)
    }

    /// Encodes texts on several threads, otherwise as [`encode`](Self::encode).
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode).
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut ids = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let batch: Vec<&str> = batch.iter().map(AsRef::as_ref).collect();
            let encodings = guarded(&self.path, || self.inner.encode_batch_fast(batch, false))?;
            for encoding in &encodings {
                self.check_ids(encoding.get_ids())?;
            }
            ids.extend(encodings.iter().map(|encoding| encoding.get_ids().to_vec()));
        }
        Ok(ids)
    }

    /// Decodes ids to a text, without special tokens if `skip_special` is true.
    ///
    /// Ids without a token are skipped, and bytes that are not UTF-8 (a character may be split between two tokens)
    /// become U+FFFD, both as in `transformers`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer's own rules fail on the tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        guarded(&self.path, || self.inner.decode(ids, skip_special))
    }

    /// Returns the number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Returns the content of a `tokenizer.json` without the tokens around texts.
    pub(crate) fn to_json(&self) -> Result<String, ModelError> {
        let text = self.inner.to_string(false);
        text.map_err(|error| ModelError::malformed(&self.path, error.to_string()))
    }

    /// Returns the largest id that a text can have, `None` for an empty vocabulary.
    ///
    /// Ids may have gaps, so the model's embedding needs more rows than this id, not than
    /// [`vocab_size`](Self::vocab_size).
    pub fn largest_id(&self) -> Option<u32> {
        self.largest_id
    }

    /// Returns the id that ends a text (`eos_token`).
    pub fn eos_id(&self) -> Option<u32> {
        self.ids[Role::Eos]
    }

    /// Returns the id that begins a text (`bos_token`), for models that have one.
    pub fn bos_id(&self) -> Option<u32> {
        self.ids[Role::Bos]
    }

    /// Returns the padding id. GPT-2 has none; the end of the text is often used for it.
    pub fn pad_id(&self) -> Option<u32> {
        self.ids[Role::Pad]
    }

    /// Returns the token type id of padding.
    pub fn pad_type_id(&self) -> u32 {
        self.pad_type_id
    }

    /// Returns the id that begins a text and stands for all of it: `[CLS]`, `<s>`.
    pub fn cls_id(&self) -> Option<u32> {
        self.ids[Role::Cls]
    }

    /// Returns the id that ends a text, and separates two: `[SEP]`, `</s>`.
    pub fn sep_id(&self) -> Option<u32> {
        self.ids[Role::Sep]
    }

    /// Returns the id that stands for a token to be predicted: `[MASK]`, `<mask>`.
    pub fn mask_id(&self) -> Option<u32> {
        self.ids[Role::Mask]
    }

    /// Returns the id of unknown tokens (`unk_token`).
    pub fn unk_id(&self) -> Option<u32> {
        self.ids[Role::Unk]
    }

    /// Returns the texts of the special tokens that the tokenizer's files name, with their keys there, such as `bos_token`.
    pub fn named_tokens(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let roles = Role::ALL.into_iter();
        roles.filter_map(|role| Some((role.key(), self.named[role].as_deref()?)))
    }

    /// Returns the id of a token in its vocabulary form: byte-level BPE writes a space as `Ġ`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the token of an id in its vocabulary form.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Returns the tokenizer's files in its directory: those to copy beside an exported model.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads the tokenizer's files for a copy: names and contents.
    ///
    /// # Errors
    /// As [`Directory::read_companion`], and [`ModelError::MissingFile`] if a file has gone meanwhile.
    pub fn read_files(&self) -> Result<TokenizerFiles, ModelError> {
        let files = self.files.iter();
        files.map(|file| self.for_copy(file)).collect()
    }

    /// Copies the tokenizer's files to `dir`, byte for byte, and returns the copies. A file that is already there is
    /// left alone.
    ///
    /// # Errors
    /// As [`read_files`](Self::read_files), and [`ModelError::Io`] if a copy cannot be written.
    pub fn save_to(&self, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>, ModelError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        let mut copies = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let copy = dir.join(self.name_of(file));
            if !is_same_file(file, &copy) {
                let (_, bytes) = self.for_copy(file)?;
                create_folder_of(&copy)?;
                write_file(&copy, Overwrite::Replace, |w| w.write_all(&bytes))?;
            }
            copies.push(copy);
        }
        Ok(copies)
    }

    /// Returns the name of a file in the tokenizer's directory.
    fn name_of<'a>(&self, file: &'a Path) -> &'a Path {
        file.strip_prefix(self.dir.path()).unwrap_or(file)
    }

    /// Reads a file of the tokenizer, to be copied: its name and content.
    fn for_copy(&self, file: &Path) -> Result<(String, Vec<u8>), ModelError> {
        let missing = || ModelError::MissingFile {
            path: file.into(),
            looked_for: TOKENIZER_FILES.map(String::from).into(),
        };
        let name = self.name_of(file).to_str().ok_or_else(missing)?;
        let bytes = self.dir.read_companion(name, MAX_FILE_BYTES)?;
        Ok((name.into(), bytes.ok_or_else(missing)?))
    }
}

impl fmt::Debug for Tokenizer {
    /// Omits the vocabulary, which would fill screens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.vocab_size)
            .field("eos_id", &self.eos_id())
            .field("bos_id", &self.bos_id())
            .field("pad_id", &self.pad_id())
            .finish_non_exhaustive()
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Runs code of the `tokenizers` crate and turns its errors and panics into [`ModelError::Tokenizer`].
///
/// A file can make the crate panic, for example by a `continuing_subword_prefix` longer than a merged token, or by an
/// id of 2^32 - 1 before another token is added. A tokenizer may come from an attacker, and must not end the program.
fn guarded<T>(path: &Path, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, ModelError> {
    // No state that a panic leaves incomplete is used again: loading drops it, and encoding writes only to a cache
    // behind a lock, one complete entry at a time.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err)) => Err(ModelError::tokenizer(path, err.to_string())),
        Err(_) => {
            let message = "its definition is inconsistent, and the tokenizers crate panicked";
            Err(ModelError::tokenizer(path, message))
        }
    }
}
