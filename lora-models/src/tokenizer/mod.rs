//! Text to token ids and back, from the tokenizer files of a Hugging Face model directory.
//!
//! | concept | file |
//! | --- | --- |
//! | [`Tokenizer`]: the ids of a text, and back; the ids with a meaning | `mod.rs` |
//! | [`Sequence`]: texts and pairs as a model takes them | `encode.rs` |
//! | which files a directory has, and what is built from them | `load.rs` |
//! | BERT, RoBERTa, XLM-R, DeBERTa, GPT-2: their names, files and special tokens | `family.rs` |
//! | what each of them does with a text | `pipeline.rs` |
//! | which tokens are special, and which ends a text | `special_tokens.rs`, `named.rs`, `token_entries.rs` |
//! | reading `vocab.txt`, `vocab.json` and `merges.txt` | `vocabulary.rs` |
//! | reading `tokenizer.json`, and what its steps may do | `whole_file.rs`, `growth.rs` |
//! | reading SentencePiece models, their format, their table of characters | `sentence_piece.rs`, `protobuf.rs`, `charsmap.rs` |
//!
//! The work is done by Hugging Face's own `tokenizers` crate, set up as `AutoTokenizer` of `transformers` 5 does it, so
//! ids are those of `transformers`. What is different on purpose: [`Tokenizer::encode`] adds no special tokens around a
//! text ([`Tokenizer::encode_inputs`] does), nothing is padded or cut off whatever `tokenizer.json` says, and decoding
//! never "cleans up" spaces, so that for byte-level BPE decoding undoes encoding.

mod charsmap;
mod encode;
mod family;
mod growth;
mod load;
mod named;
mod pipeline;
mod protobuf;
mod sentence_piece;
mod special_tokens;
mod token_entries;
mod vocabulary;
mod whole_file;

pub use encode::Sequence;

use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use load::Loaded;
use lora_core::files::{Overwrite, write_file};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::PostProcessorWrapper;

/// The longest tokenizer file read. The largest in use, with a quarter of a million tokens, have some 30 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Texts encoded at once: enough for all threads, and bounded memory for a corpus of any length.
const BATCH: usize = 1024;

/// All files that can belong to a tokenizer, those that define it and those that say how it is used.
const FILES: [&str; 10] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// A tokenizer with the ids that a language model needs.
///
/// # Examples
///
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
    /// Without its last step, which puts the special tokens around a text.
    inner: tokenizers::Tokenizer,
    /// That step.
    processor: Option<PostProcessorWrapper>,
    /// The file or directory it came from, for messages.
    path: PathBuf,
    files: Vec<PathBuf>,
    eos_id: Option<u32>,
    bos_id: Option<u32>,
    pad_id: Option<u32>,
    pad_type_id: u32,
    cls_id: Option<u32>,
    sep_id: Option<u32>,
    mask_id: Option<u32>,
    unk_id: Option<u32>,
    /// Whether what is too long loses its start and not its end.
    cut_left: bool,
    vocab_size: usize,
    largest_id: Option<u32>,
}

impl Tokenizer {
    /// Loads the tokenizer of a model directory, as `AutoTokenizer.from_pretrained` of `transformers` does.
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
    /// The class stands in `tokenizer_config.json` or `config.json`, the model type in `config.json`. Where neither is
    /// known, `tokenizer.json` is taken as it stands, and without it the files and their special tokens tell.
    ///
    /// For a known family but GPT-2, `tokenizer.json` gives the vocabulary, and the rest comes from
    /// `tokenizer_config.json`: BERT's `do_lower_case`, say, counts there and not the normalizer of `tokenizer.json`.
    /// That is what `transformers` does, so the ids are the same in training here and in use there.
    ///
    /// The end-of-text id is that of `eos_token` in `tokenizer_config.json`, else in `special_tokens_map.json`, else
    /// that of the family, else `eos_token_id` of `config.json` where the tokenizer has that id, else `<|endoftext|>`
    /// where the vocabulary has it. The ids for the beginning of a text and for padding are found likewise, without the
    /// last step. Tokens that these files call special are recognised in texts, and appended to the vocabulary where it
    /// lacks them, as `transformers` does.
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingFile`] where the directory has no tokenizer; [`ModelError::Tokenizer`],
    /// [`ModelError::Json`], [`ModelError::Malformed`] or [`ModelError::TooLarge`] where a file is not what it should
    /// be, and [`ModelError::Tokenizer`] where it could be several tokenizers; [`ModelError::Io`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        let Loaded {
            mut inner,
            path,
            named,
            settings,
            config_ids,
        } = load::load(dir)?;
        let processor = inner.get_post_processor().cloned();
        inner.with_post_processor(None::<PostProcessorWrapper>);
        let named_id =
            |token: &Option<String>| token.as_deref().and_then(|token| inner.token_to_id(token));
        let id_of = |token: &Option<String>, config_id: Option<u32>| {
            // A `config.json` made without its tokenizer has the ids of another one, so they are looked up.
            named_id(token).or(config_id.filter(|&id| inner.id_to_token(id).is_some()))
        };
        let eos_id =
            id_of(&named.eos, config_ids.eos).or_else(|| inner.token_to_id(family::END_OF_TEXT));
        let bos_id = id_of(&named.bos, config_ids.bos);
        let pad_id = id_of(&named.pad, config_ids.pad);
        let (cls_id, sep_id) = (named_id(&named.cls), named_id(&named.sep));
        let (mask_id, unk_id) = (named_id(&named.mask), named_id(&named.unk));
        let vocab = inner.get_vocab(true);
        let (vocab_size, largest_id) = (vocab.len(), vocab.into_values().max());
        let files = FILES
            .iter()
            .map(|name| dir.join(name))
            .filter(|path| path.is_file())
            .collect();
        Ok(Self {
            inner,
            processor,
            path,
            files,
            eos_id,
            bos_id,
            pad_id,
            pad_type_id: settings.pad_token_type_id.unwrap_or(0),
            cls_id,
            sep_id,
            mask_id,
            unk_id,
            cut_left: settings.truncation_side == Some(special_tokens::Side::Left),
            vocab_size,
            largest_id,
        })
    }

    /// The ids of a text. None are added around it; the text of a special token in it becomes that token.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] where the tokenizer's own rules fail on the text. Byte-level BPE has a token for
    /// every byte and does not.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = guarded(&self.path, || self.inner.encode_fast(text, false))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of each text, worked out on several threads, otherwise as [`encode`](Self::encode).
    ///
    /// # Errors
    ///
    /// Those of [`encode`](Self::encode).
    pub fn encode_batch<S: AsRef<str>>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut ids = Vec::with_capacity(texts.len());
        for batch in texts.chunks(BATCH) {
            let batch: Vec<&str> = batch.iter().map(AsRef::as_ref).collect();
            let encodings = guarded(&self.path, || self.inner.encode_batch_fast(batch, false))?;
            ids.extend(encodings.iter().map(|encoding| encoding.get_ids().to_vec()));
        }
        Ok(ids)
    }

    /// The text of some ids, without special tokens where `skip_special` says so.
    ///
    /// Ids that the vocabulary lacks are passed over, and bytes that are no UTF-8 (a character may be cut between two
    /// tokens) become U+FFFD, both as in `transformers`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenizer`] where the tokenizer's own rules fail on the tokens.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        guarded(&self.path, || self.inner.decode(ids, skip_special))
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The largest id that a text can have, `None` for an empty vocabulary.
    ///
    /// Ids may have gaps, so this and not [`vocab_size`](Self::vocab_size) is what must be smaller than the number of
    /// rows of the model's embedding.
    pub fn largest_id(&self) -> Option<u32> {
        self.largest_id
    }

    /// The id that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// The id that begins a text, for models that have one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// The id that fills up short texts. GPT-2 has none; the end of the text is often taken for it.
    pub fn pad_id(&self) -> Option<u32> {
        self.pad_id
    }

    /// The type of what fills up short texts.
    pub fn pad_type_id(&self) -> u32 {
        self.pad_type_id
    }

    /// The id that begins a text and stands for all of it: `[CLS]`, `<s>`.
    pub fn cls_id(&self) -> Option<u32> {
        self.cls_id
    }

    /// The id that ends a text, and stands between two: `[SEP]`, `</s>`.
    pub fn sep_id(&self) -> Option<u32> {
        self.sep_id
    }

    /// The id that stands for a token to be guessed: `[MASK]`, `<mask>`.
    pub fn mask_id(&self) -> Option<u32> {
        self.mask_id
    }

    /// The id that stands for what has no token.
    pub fn unk_id(&self) -> Option<u32> {
        self.unk_id
    }

    /// The id of a token, given as it stands in the vocabulary: byte-level BPE writes a space as `Ġ`.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as it stands in the vocabulary.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The tokenizer's files in its directory: those to copy beside an exported model.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Copies the tokenizer's files to `dir`, byte for byte, and returns the copies. Copying to where they already are
    /// does nothing.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`], or [`ModelError::TooLarge`] where a file has grown past what is read.
    pub fn save_to(&self, dir: impl AsRef<Path>) -> Result<Vec<PathBuf>, ModelError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        let mut copies = Vec::with_capacity(self.files.len());
        for file in &self.files {
            let Some(name) = file.file_name() else {
                continue;
            };
            let copy = dir.join(name);
            if !is_same_file(file, &copy) {
                let bytes = read_bounded(file, MAX_FILE_BYTES)?;
                write_file(&copy, Overwrite::Replace, |w| w.write_all(&bytes))?;
            }
            copies.push(copy);
        }
        Ok(copies)
    }
}

impl fmt::Debug for Tokenizer {
    /// Without the vocabulary, which would fill screens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.vocab_size)
            .field("eos_id", &self.eos_id)
            .field("bos_id", &self.bos_id)
            .field("pad_id", &self.pad_id)
            .finish_non_exhaustive()
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Runs a piece of the `tokenizers` crate, with its errors and its panics as ours.
///
/// A file can make the crate panic: a `continuing_subword_prefix` longer than a merged token, for one, or an id of
/// 2^32 - 1 before another token is added. A tokenizer is somebody else's file, and must not end the program.
fn guarded<T>(path: &Path, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, ModelError> {
    let fail = |message: String| {
        Err(ModelError::Tokenizer {
            path: path.to_path_buf(),
            message,
        })
    };
    // Nothing that a panic leaves half-done is used again: loading drops it, and encoding writes only to a cache
    // behind a lock, one whole entry at a time.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(err)) => fail(err.to_string()),
        Err(_) => fail(
            "its definition contradicts itself, and the tokenizers crate gave up on it".to_string(),
        ),
    }
}
