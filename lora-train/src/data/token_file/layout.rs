//! Header, record and footer of a file of tokens.

use crate::data::example::{Example, Target};
use std::io::{Read, Write};

/// First and last bytes of a file.
pub(super) const MAGIC: [u8; 8] = *b"LORATOKS";
/// Version of the layout.
pub(super) const VERSION: u32 = 1;
/// Length of a key in hexadecimal digits.
const KEY: usize = 32;
/// Length of the header.
pub(super) const HEADER: u64 = 8 + 4 + 4 + KEY as u64;
/// Length of the footer.
pub(super) const FOOTER: u64 = 8 + 8 + 8 + 8;
/// Length of a record without parts and tokens.
const RECORD: u64 = 4 + 8 + 4 + 4;
/// Number of parts that stands for tokens learned from a position on.
const FROM: u32 = u32::MAX;

/// Largest token, and largest example, of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenLimits {
    /// Number of tokens of the model.
    pub vocabulary: usize,
    /// Maximum number of tokens of an example.
    pub length: usize,
}

/// Number of bytes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Two,
    Four,
}

impl Width {
    /// Returns the width for a vocabulary of so many tokens.
    pub(super) fn of(vocabulary: usize) -> Self {
        if vocabulary <= 1 << 16 {
            Self::Two
        } else {
            Self::Four
        }
    }

    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// Returns the header of a file.
pub(super) fn header(width: Width, key: &str) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((width.bytes() as u32).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.resize(HEADER as usize, 0);
    bytes
}

/// Footer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Number of examples.
    pub(super) examples: u64,
    /// Position of the index.
    pub(super) index: u64,
    /// Length of the info in bytes.
    pub(super) info: u64,
}

impl Footer {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let numbers = [self.examples, self.index, self.info];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(MAGIC);
        bytes
    }

    /// Reads the footer of a file of `length` bytes; `None` if the parts do not fill the file.
    pub(super) fn from_bytes(bytes: &[u8; FOOTER as usize], length: u64) -> Option<Self> {
        let number = |at: usize| {
            let bytes = bytes[at..at + 8].try_into().ok();
            bytes.map(u64::from_le_bytes)
        };
        let footer = Self {
            examples: number(0)?,
            index: number(8)?,
            info: number(16)?,
        };
        let index = footer.examples.checked_mul(8)?;
        let end = footer.index.checked_add(index)?.checked_add(footer.info)?;
        let fills = end.checked_add(FOOTER)? == length && footer.index >= HEADER;
        (fills && bytes[24..] == MAGIC).then_some(footer)
    }

    /// Returns the position of the info.
    pub(super) fn info_at(self) -> u64 {
        self.index + 8 * self.examples
    }
}

/// Record of a file, as it is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StoredExample {
    /// Place of its data file.
    pub(super) file: u32,
    /// Line.
    pub(super) line: u64,
    /// Tokens.
    pub(super) tokens: Vec<u32>,
    /// Learned tokens.
    pub(super) target: Target,
}

impl StoredExample {
    /// Writes the record of an example, and returns its length; `None` for an example of no language model, and for one too long.
    pub(super) fn write(
        example: &Example,
        file: u32,
        width: Width,
        buffer: &mut Vec<u8>,
    ) -> Option<()> {
        buffer.clear();
        buffer.extend(file.to_le_bytes());
        buffer.extend((example.origin().line() as u64).to_le_bytes());
        buffer.extend(u32::try_from(example.len()).ok()?.to_le_bytes());
        let number = |position: &usize| u32::try_from(*position).ok();
        match example.target() {
            Target::Tokens { from } => {
                buffer.extend(FROM.to_le_bytes());
                buffer.extend(number(from)?.to_le_bytes());
            }
            Target::Parts(parts) => {
                buffer.extend(number(&parts.len())?.to_le_bytes());
                for part in parts {
                    buffer.extend(number(&part.start)?.to_le_bytes());
                    buffer.extend(number(&part.end)?.to_le_bytes());
                }
            }
            _ => return None,
        }
        for token in example.tokens() {
            match width {
                Width::Two => buffer.extend(u16::try_from(*token).ok()?.to_le_bytes()),
                Width::Four => buffer.extend(token.to_le_bytes()),
            }
        }
        let is_plain = example.type_ids().is_empty() && example.adapter().is_none();
        is_plain.then_some(())
    }

    /// Reads the next record of at most `left` bytes, and returns it with its length. Messages tell what is wrong.
    pub(super) fn read(
        reader: &mut dyn Read,
        limits: TokenLimits,
        left: u64,
    ) -> Result<(Self, u64), String> {
        let width = Width::of(limits.vocabulary);
        if left < RECORD {
            return Err("a record ends early".into());
        }
        let file = u32_from(reader)?;
        let line = u64_from(reader)?;
        let (tokens, parts) = (u32_from(reader)?, u32_from(reader)?);
        let described = if parts == FROM {
            4
        } else {
            8 * u64::from(parts)
        };
        let length = RECORD + described + width.bytes() * u64::from(tokens);
        if length > left || tokens as usize > limits.length {
            return Err("a record is longer than it may be".into());
        }
        let target = if parts == FROM {
            let from = u32_from(reader)? as usize;
            if from == 0 {
                return Err("the first token of a text is to be learned".into());
            }
            Target::Tokens { from }
        } else {
            let mut ranges = Vec::with_capacity(parts as usize);
            let mut end = 1;
            for _ in 0..parts {
                let part = u32_from(reader)? as usize..u32_from(reader)? as usize;
                if part.start < end || part.is_empty() || part.end > tokens as usize {
                    return Err("learned parts are not in their order".into());
                }
                end = part.end;
                ranges.push(part);
            }
            Target::Parts(ranges)
        };
        let mut bytes = vec![0; (width.bytes() * u64::from(tokens)) as usize];
        reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        let tokens = match width {
            Width::Two => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| u16::from_le_bytes(*bytes).into())
                .collect(),
            Width::Four => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| u32::from_le_bytes(*bytes))
                .collect(),
        };
        let stored = Self {
            file,
            line,
            tokens,
            target,
        };
        Ok((stored, length))
    }
}

/// Reads a number.
pub(super) fn u32_from(reader: &mut dyn Read) -> Result<u32, String> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(u32::from_le_bytes(bytes))
}

/// Reads a number.
pub(super) fn u64_from(reader: &mut dyn Read) -> Result<u64, String> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(u64::from_le_bytes(bytes))
}

/// Writes bytes, and adds up their number.
pub(super) fn write_counted(
    writer: &mut dyn Write,
    bytes: &[u8],
    position: &mut u64,
) -> std::io::Result<()> {
    writer.write_all(bytes)?;
    *position += bytes.len() as u64;
    Ok(())
}
