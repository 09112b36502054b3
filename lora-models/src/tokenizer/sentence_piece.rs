//! Reader for SentencePiece models: `spm.model`, `sentencepiece.bpe.model`.
//!
//! The file is a protocol buffer, `sentencepiece_model.proto` of google/sentencepiece. The pieces with their scores,
//! the kind of model, the id of unknown tokens and the table that normalizes characters are read. The treatment of
//! spaces depends on the tokenizer's family, as in `transformers`.

use super::protobuf::{Fields, Value};
use super::{MAX_FILE_BYTES, charsmap};
use crate::checkpoint::bounded::read_bounded;
use crate::error::ModelError;
use lora_core::files::DirectoryFile;
use std::collections::HashSet;
use std::path::Path;

/// Limit for the number of pieces. The largest vocabulary in use, that of XLM-V, has some 900 000.
const MAX_PIECES: usize = 1 << 20;

/// Limit for a piece, in bytes. Honest pieces are a few characters long; each byte costs a node of a trie.
const MAX_PIECE_BYTES: usize = 1 << 10;

/// Limit for the text of all pieces, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Content of a model.
#[derive(Debug, PartialEq)]
pub(super) struct SentencePiece {
    /// Pieces in the order of their ids.
    pub(super) pieces: Vec<Piece>,
    /// Kind of the model: 1 for unigram.
    model_type: u64,
    /// Id of unknown tokens, from the trainer's options.
    pub(super) unk_id: usize,
    /// Table that normalizes characters, if there is one; checked.
    pub(super) charsmap: Option<Vec<u8>>,
}

/// A token of the vocabulary.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: Kind,
}

/// Purpose of a piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Part of texts, or unused, or a byte.
    Plain,
    /// Stands for text without a piece.
    Unknown,
    /// Control token that texts do not contain: `<s>`, `[CLS]`.
    Control,
    /// Piece that is never split.
    UserDefined,
}

/// Reads a model of the unigram kind.
///
/// # Errors
/// [`ModelError::Malformed`] if the bytes are not a model, and [`ModelError::Tokenizer`] for a model of a kind that is
/// not supported.
pub(super) fn read(file: &DirectoryFile) -> Result<SentencePiece, ModelError> {
    parse(file.path(), &read_bounded(file, MAX_FILE_BYTES)?)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<SentencePiece, ModelError> {
    let malformed = |message: String| {
        ModelError::malformed(path, format!("not a SentencePiece model: {message}"))
    };
    let model = SentencePiece::read(bytes).map_err(malformed)?;
    let kind = match model.model_type {
        1 => None,
        2 => Some("BPE"),
        3 => Some("word"),
        4 => Some("character"),
        other => return Err(malformed(format!("there is no model type {other}"))),
    };
    if let Some(kind) = kind {
        let message = format!(
            "a SentencePiece model of the {kind} kind, but only unigram models are supported; save the tokenizer as \
             `tokenizer.json`"
        );
        return Err(ModelError::tokenizer(path, message));
    }
    model.check().map_err(malformed)?;
    Ok(model)
}

impl SentencePiece {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        // Defaults of the format.
        let mut model = Self {
            pieces: Vec::new(),
            model_type: 1,
            unk_id: 0,
            charsmap: None,
        };
        let mut text_bytes = 0;
        for field in Fields::new(bytes) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(message)) => {
                    let piece = Piece::read(message)
                        .map_err(|err| format!("piece {}: {err}", model.pieces.len()))?;
                    text_bytes += piece.text.len();
                    if model.pieces.len() == MAX_PIECES || text_bytes > MAX_TEXT_BYTES {
                        return Err(format!(
                            "it has more than {MAX_PIECES} pieces, or more than {MAX_TEXT_BYTES} bytes in them"
                        ));
                    }
                    model.pieces.push(piece);
                }
                (2, Value::Bytes(message)) => model.read_trainer(message)?,
                (3, Value::Bytes(message)) => model.read_normalizer(message)?,
                (number @ 1..=3, _) => return Err(format!("field {number} is not a message")),
                _ => {}
            }
        }
        Ok(model)
    }

    /// Reads the fields of `TrainerSpec` that matter for using the model.
    fn read_trainer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Fields::new(message) {
            let field = field?;
            match (field.number, field.value) {
                (3, Value::Varint(value)) => self.model_type = value,
                (40, Value::Varint(value)) => {
                    self.unk_id = usize::try_from(value).unwrap_or(usize::MAX);
                }
                (3 | 40, _) => return Err(format!("`trainer_spec` field {}", field.number)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the fields of `NormalizerSpec` that matter for using the model.
    fn read_normalizer(&mut self, message: &[u8]) -> Result<(), String> {
        for field in Fields::new(message) {
            let field = field?;
            match (field.number, field.value) {
                (2, Value::Bytes(table)) => {
                    self.charsmap = (!table.is_empty()).then(|| table.to_vec());
                }
                (2, _) => return Err("`precompiled_charsmap` is not a table".to_string()),
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = HashSet::with_capacity(self.pieces.len());
        if let Some(piece) = self.pieces.iter().find(|piece| !seen.insert(&piece.text)) {
            return Err(format!("the piece {:?} is listed twice", piece.text));
        }
        // Texts outside the vocabulary need the unknown token.
        let (count, unk_id) = (self.pieces.len(), self.unk_id);
        let known = self.pieces.iter().all(|piece| piece.kind != Kind::Unknown);
        if known || unk_id >= count {
            return Err(format!(
                "none of its {count} pieces is the unknown token, or piece {unk_id} does not exist"
            ));
        }
        self.charsmap.as_deref().map_or(Ok(()), charsmap::check)
    }
}

impl Piece {
    fn read(message: &[u8]) -> Result<Self, String> {
        let (mut text, mut score, mut kind) = (None, 0.0, Kind::Plain);
        for field in Fields::new(message) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => text = Some(bytes),
                (2, Value::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
                (3, Value::Varint(value)) => {
                    kind = match value {
                        1 | 5 | 6 => Kind::Plain,
                        2 => Kind::Unknown,
                        3 => Kind::Control,
                        4 => Kind::UserDefined,
                        other => return Err(format!("there is no type {other}")),
                    }
                }
                (1..=3, _) => return Err(format!("field {} is of another type", field.number)),
                _ => {}
            }
        }
        let text = text.filter(|text| (1..=MAX_PIECE_BYTES).contains(&text.len()));
        let text = text.ok_or_else(|| format!("its length is not 1 to {MAX_PIECE_BYTES} bytes"))?;
        let text = std::str::from_utf8(text).map_err(|err| err.to_string())?;
        // An infinite score would win or lose every sum, and NaN compares with nothing.
        if !score.is_finite() {
            return Err(format!("{text:?} has the score {score}"));
        }
        Ok(Self {
            text: text.to_string(),
            score,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut field = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        field.extend(content);
        field
    }

    fn piece(text: &[u8], score: f32, kind: u8) -> Vec<u8> {
        let mut message = bytes(1, text);
        message.push(2 << 3 | 5);
        message.extend(score.to_le_bytes());
        message.extend([3 << 3, kind]);
        bytes(1, &message)
    }

    fn model(parts: &[Vec<u8>]) -> Result<SentencePiece, ModelError> {
        parse(Path::new("x.model"), &parts.concat())
    }

    fn unknown() -> Vec<u8> {
        piece(b"<unk>", 0.0, 2)
    }

    #[test]
    fn pieces_and_what_is_said_of_them_are_read() {
        let found = model(&[
            unknown(),
            piece(b"<s>", 0.0, 3),
            piece("▁a".as_bytes(), -1.5, 1),
            piece(b"#", 0.0, 4),
            bytes(2, &[3 << 3, 1]),
            bytes(9, b"something newer"),
        ])
        .unwrap();
        assert_eq!((found.unk_id, found.charsmap), (0, None));
        let pieces: Vec<(&str, f32, Kind)> = found
            .pieces
            .iter()
            .map(|piece| (piece.text.as_str(), piece.score, piece.kind))
            .collect();
        assert_eq!(
            pieces,
            [
                ("<unk>", 0.0, Kind::Unknown),
                ("<s>", 0.0, Kind::Control),
                ("▁a", -1.5, Kind::Plain),
                ("#", 0.0, Kind::UserDefined),
            ]
        );
    }

    #[test]
    fn a_model_that_contradicts_itself_is_refused() {
        let trainer = |field: &[u8]| bytes(2, field);
        for (parts, part) in [
            (vec![], "none of its 0 pieces"),
            (vec![piece(b"a", 0.0, 1)], "none of its 1 pieces"),
            (
                vec![unknown(), trainer(&[0xc0, 0x02, 7])],
                "piece 7 does not exist",
            ),
            (
                vec![unknown(), piece(b"a", 0.0, 1), piece(b"a", 1.0, 1)],
                "twice",
            ),
            (vec![unknown(), piece(b"a", f32::NAN, 1)], "NaN"),
            (vec![unknown(), piece(b"a", f32::INFINITY, 1)], "inf"),
            (vec![unknown(), piece(b"", 0.0, 1)], "piece 1"),
            (vec![unknown(), piece(b"\xff", 0.0, 1)], "utf-8"),
            (vec![unknown(), piece(b"a", 0.0, 9)], "no type 9"),
            (vec![unknown(), vec![0x08, 1]], "not a message"),
            (vec![unknown(), trainer(&[3 << 3, 9])], "no model type 9"),
            (vec![unknown(), bytes(3, &bytes(2, b"abc"))], "header"),
            (vec![unknown(), vec![0x0a, 0x7f]], "127 bytes"),
        ] {
            let message = model(&parts).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains("x.model"),
                "{message}"
            );
        }
    }

    #[test]
    fn models_of_other_kinds_are_refused_by_name() {
        for (kind, name) in [(2, "BPE"), (3, "word"), (4, "character")] {
            let error = model(&[unknown(), bytes(2, &[3 << 3, kind])]).unwrap_err();
            assert!(matches!(error, ModelError::Tokenizer { .. }));
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_piece_longer_than_any_is_refused() {
        let mut message = vec![0x0a, 0x81, 0x08];
        message.extend([b'a'; 1025]);
        let mut field = vec![0x0a, 0x84, 0x08];
        field.extend(&message);
        let message = model(&[unknown(), field]).unwrap_err().to_string();
        assert!(message.contains("1 to 1024 bytes"), "{message}");
    }
}
