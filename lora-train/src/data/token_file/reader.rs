//! Reading of a file of tokens.

use super::layout::{
    FOOTER, Footer, HEADER, StoredExample, TokenLimits, VERSION, Width, header, u64_from,
};
use crate::data::digest::{DataDigest, DigestBuilder};
use crate::data::example::{Example, Target};
use crate::data::record::Origin;
use bytes::Bytes;
use lora_core::files::open_regular;
use lora_models::checkpoint::map_file;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest info in bytes.
const MAX_INFO: u64 = 1 << 24;
/// Number of bytes that are read at a time.
const BLOCK: usize = 1 << 20;

/// Facts that a file has beside the examples.
#[derive(Serialize, Deserialize)]
pub(super) struct Info {
    /// Digest of the examples.
    pub(super) digest: DataDigest,
    /// Value that the writer was given.
    pub(super) more: serde_json::Value,
}

/// Reason why a file of tokens is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// No file.
    Missing,
    /// File of other data, or with another tokenizer, template or options.
    OtherKey,
    /// Content that is not what was written, with the reason.
    Damaged(String),
    /// The system maps no files.
    NotMapped,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none"),
            Self::OtherKey => f.write_str("it is of other data or options"),
            Self::Damaged(reason) => write!(f, "it is damaged: {reason}"),
            Self::NotMapped => f.write_str("the system does not map it into memory"),
        }
    }
}

/// Examples of a language model in a mapped file.
///
/// Each is decoded when it is asked for. Beside the map, an example takes 4 bytes.
#[derive(Clone)]
pub struct TokenFile {
    bytes: Bytes,
    limits: TokenLimits,
    footer: Footer,
    /// Data files that examples belong to.
    files: Vec<Arc<Path>>,
    /// Number of tokens of each example.
    lengths: Vec<u32>,
    digest: DataDigest,
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (examples, bytes) = (self.len(), self.bytes.len());
        write!(f, "TokenFile({examples} examples, {bytes} bytes)")
    }
}

impl TokenFile {
    /// Opens a file and checks it as a whole. `files` are the data files, in the order in which they had when it was written. Returns
    /// what the writer gave, too.
    ///
    /// # Errors
    /// The reason why it is of no use.
    pub(crate) fn open<T: DeserializeOwned>(
        path: &Path,
        key: &str,
        limits: TokenLimits,
        files: &[PathBuf],
    ) -> Result<(Self, T), Rejected> {
        if !path.exists() {
            return Err(Rejected::Missing);
        }
        let damaged = |reason: String| Rejected::Damaged(reason);
        let unread = |error: std::io::Error| Rejected::Damaged(error.to_string());
        let (mut file, length) = open_regular(path).map_err(|e| damaged(e.to_string()))?;
        if length < HEADER + FOOTER {
            return Err(damaged("it is too short".into()));
        }
        let expected = header(Width::of(limits.vocabulary), key);
        let mut start = vec![0; expected.len()];
        file.read_exact(&mut start).map_err(unread)?;
        if start[..8] != expected[..8] || start[8..12] != VERSION.to_le_bytes() {
            return Err(damaged("it does not begin as a file of tokens".into()));
        }
        if start != expected {
            return Err(Rejected::OtherKey);
        }
        let mut footer = [0; FOOTER as usize];
        file.seek(SeekFrom::Start(length - FOOTER))
            .map_err(unread)?;
        file.read_exact(&mut footer).map_err(unread)?;
        let footer = Footer::from_bytes(&footer, length)
            .filter(|footer| footer.info <= MAX_INFO)
            .ok_or_else(|| damaged("its end is not that of a file of tokens".into()))?;
        file.seek(SeekFrom::Start(footer.info_at()))
            .map_err(unread)?;
        let mut info = vec![0; footer.info as usize];
        file.read_exact(&mut info).map_err(unread)?;
        let malformed = |error: serde_json::Error| Rejected::Damaged(error.to_string());
        let info: Info = serde_json::from_slice(&info).map_err(malformed)?;
        let more = serde_json::from_value(info.more).map_err(malformed)?;

        let files: Vec<Arc<Path>> = files.iter().map(|path| Arc::from(path.as_path())).collect();
        let again = open_regular(path).map_err(|e| damaged(e.to_string()))?.0;
        let records = Records {
            file: &file,
            index: again,
            limits,
            footer,
        };
        let (lengths, digest) = records.check(&files).map_err(damaged)?;
        if digest != info.digest {
            return Err(damaged(
                "its examples are not those that were written".into(),
            ));
        }
        let bytes = map_file(&file).ok_or(Rejected::NotMapped)?;
        if bytes.len() as u64 != length {
            return Err(damaged("it changes".into()));
        }
        let opened = Self {
            bytes,
            limits,
            footer,
            files,
            lengths,
            digest,
        };
        Ok((opened, more))
    }

    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Returns true if there is no example.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Returns the number of tokens of each example.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().map(|&length| length as usize)
    }

    /// Returns the digest of the examples.
    pub fn digest(&self) -> &DataDigest {
        &self.digest
    }

    /// Decodes an example.
    ///
    /// # Panics
    /// If there is no such example, or another process has changed the file since it was opened.
    pub fn get(&self, index: usize) -> Example {
        let found = self.decode(index);
        found.unwrap_or_else(|| {
            panic!("example {index}: the file of tokens has changed while it is in use")
        })
    }

    fn decode(&self, index: usize) -> Option<Example> {
        let place = usize::try_from(self.footer.index).ok()? + 8 * index;
        let end = usize::try_from(self.footer.info_at()).ok()?;
        let position = self.bytes.get(place..place + 8).filter(|_| place < end)?;
        let position = u64::from_le_bytes(position.try_into().ok()?);
        let left = self.footer.index.checked_sub(position)?;
        let mut bytes = self.bytes.get(usize::try_from(position).ok()?..)?;
        let (stored, _) = StoredExample::read(&mut bytes, self.limits, left).ok()?;
        example(stored, index, &self.files)
    }
}

/// Makes the example of a record; `None` if its data file is unknown.
fn example(stored: StoredExample, index: usize, files: &[Arc<Path>]) -> Option<Example> {
    let StoredExample {
        file,
        line,
        tokens,
        target,
    } = stored;
    let path = files.get(file as usize)?.clone();
    let origin = Origin::new(path, usize::try_from(line).ok()?);
    Some(match target {
        Target::Parts(parts) => Example::with_parts(index, tokens, parts, origin),
        Target::Tokens { from } => Example::new(index, tokens, from, origin),
        _ => return None,
    })
}

/// Records of a file, to be checked one after the other.
struct Records<'a> {
    file: &'a File,
    /// The same file, opened once more.
    index: File,
    limits: TokenLimits,
    footer: Footer,
}

impl Records<'_> {
    /// Reads all records, without a map, so that no more than one is in memory. Returns their lengths, and their digest.
    fn check(self, files: &[Arc<Path>]) -> Result<(Vec<u32>, DataDigest), String> {
        let Footer {
            examples, index, ..
        } = self.footer;
        let (mut records, mut positions) = (self.file, self.index);
        let failed = |error: std::io::Error| error.to_string();
        records.seek(SeekFrom::Start(HEADER)).map_err(failed)?;
        positions.seek(SeekFrom::Start(index)).map_err(failed)?;
        let mut records = BufReader::with_capacity(BLOCK, records);
        let mut positions = BufReader::with_capacity(BLOCK, positions);
        let mut lengths = Vec::new();
        let mut digest = DigestBuilder::new(&[]);
        let mut position = HEADER;
        for _ in 0..examples {
            if u64_from(&mut positions)? != position {
                return Err("its index does not belong to its records".into());
            }
            let left = index - position;
            let (stored, length) = StoredExample::read(&mut records, self.limits, left)?;
            if stored
                .tokens
                .iter()
                .any(|id| *id as usize >= self.limits.vocabulary)
            {
                return Err("it has a token that the model does not have".into());
            }
            position += length;
            lengths.push(u32::try_from(stored.tokens.len()).map_err(|e| e.to_string())?);
            let example = example(stored, lengths.len() - 1, files);
            digest.add(&example.ok_or("it has examples of more files than there are")?);
        }
        if position != index {
            return Err("there is something between its records and its index".into());
        }
        Ok((lengths, digest.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::TokenFileWriter;
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn limits(vocabulary: usize) -> TokenLimits {
        TokenLimits {
            vocabulary,
            length: 5,
        }
    }

    fn files() -> [PathBuf; 2] {
        ["a.jsonl", "b.jsonl"].map(PathBuf::from)
    }

    fn examples(vocabulary: u32) -> Vec<Example> {
        let origin = |file: usize, line| Origin::new(files()[file].as_path(), line);
        let last = vocabulary - 1;
        vec![
            Example::new(0, vec![5, 6, last], 2, origin(0, 1)),
            Example::with_parts(1, vec![1, 2, 3, 4, 5], vec![1..2, 3..5], origin(0, 9)),
            Example::with_parts(2, vec![7, last, 8, 9], vec![1..2, 3..4], origin(1, 3)),
        ]
    }

    fn write(path: &Path, vocabulary: u32) {
        let files = files();
        let mut writer =
            TokenFileWriter::create(path, KEY, limits(vocabulary as usize), &files).unwrap();
        for example in examples(vocabulary) {
            writer.add(&example).unwrap();
        }
        writer.finish(&("more", 7)).unwrap();
    }

    fn open(path: &Path, vocabulary: usize) -> Result<TokenFile, Rejected> {
        let opened = TokenFile::open(path, KEY, limits(vocabulary), &files());
        opened.map(|(file, more): (TokenFile, (String, u32))| {
            assert_eq!(more, ("more".into(), 7));
            file
        })
    }

    #[test]
    fn what_is_written_comes_back_equal() {
        let dir = tempfile::tempdir().unwrap();
        for vocabulary in [1 << 16, 1 << 17] {
            let path = dir.path().join("tokens").join(vocabulary.to_string());
            write(&path, vocabulary);
            let file = open(&path, vocabulary as usize).unwrap();
            let expected = examples(vocabulary);
            let found: Vec<Example> = (0..file.len()).map(|index| file.get(index)).collect();
            assert_eq!(found, expected);
            assert_eq!(file.lengths().collect::<Vec<_>>(), [3, 5, 4]);
            assert_eq!(file.digest(), &DataDigest::new(&expected, &[]));
        }
    }

    #[test]
    fn a_writer_that_does_not_finish_leaves_nothing_and_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.tokens");
        for before in [0, 1] {
            let files = files();
            let mut writer = TokenFileWriter::create(&path, KEY, limits(99), &files).unwrap();
            writer.add(&examples(99)[0]).unwrap();
            drop(writer);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), before);
            write(&path, 99);
        }
        assert!(open(&path, 99).is_ok());
    }

    #[test]
    fn an_example_longer_than_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.tokens");
        write(&path, 99);
        let limits = TokenLimits {
            length: 4,
            ..limits(99)
        };
        let opened = TokenFile::open::<(String, u32)>(&path, KEY, limits, &files());
        let message = opened.unwrap_err().to_string();
        assert!(message.contains("longer than it may be"), "{message}");
    }

    #[test]
    fn another_key_or_vocabulary_is_of_no_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.tokens");
        assert_eq!(open(&path, 99).unwrap_err(), Rejected::Missing);
        write(&path, 99);
        let key = KEY.replace('3', "x");
        let other = TokenFile::open::<(String, u32)>(&path, &key, limits(99), &files());
        assert_eq!(other.unwrap_err(), Rejected::OtherKey);
        assert_eq!(open(&path, 1 << 17).unwrap_err(), Rejected::OtherKey);
        let message = open(&path, 98).unwrap_err().to_string();
        assert!(
            message.contains("that the model does not have"),
            "{message}"
        );
        let one = TokenFile::open::<(String, u32)>(&path, KEY, limits(99), &files()[..1]);
        assert!(one.unwrap_err().to_string().contains("more files"));
    }

    /// Each byte changed, and each length that is too short: no panic, and no other examples than were written.
    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.tokens");
        write(&path, 300);
        let whole = std::fs::read(&path).unwrap();
        let damaged = dir.path().join("damaged");
        for length in 0..whole.len() {
            std::fs::write(&damaged, &whole[..length]).unwrap();
            assert!(matches!(open(&damaged, 300), Err(Rejected::Damaged(_))));
        }
        let expected = examples(300);
        for at in 0..whole.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                std::fs::write(&damaged, &bytes).unwrap();
                let opened =
                    TokenFile::open::<serde_json::Value>(&damaged, KEY, limits(300), &files());
                let Ok((file, _)) = opened else { continue };
                // The lines, and the name of a file, are in no digest.
                for (index, expected) in expected.iter().enumerate() {
                    let found = file.get(index);
                    assert_eq!(found.tokens(), expected.tokens(), "byte {at}");
                    assert_eq!(found.target(), expected.target(), "byte {at}");
                }
            }
        }
    }
}
