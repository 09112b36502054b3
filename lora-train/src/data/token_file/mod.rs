//! Tokenized examples of a language model in a file that is mapped into memory: for data larger than memory, and not to tokenize it twice.
//!
//! ```text
//! header   magic `LORATOKS`, version u32, bytes of a token u32 (2 or 4), key of 32 hexadecimal digits
//! records  file u32, line u64, tokens u32, parts u32, then the parts (start u32, end u32) and the tokens;
//!          parts is 2³² − 1 for tokens that are learned from a position on, which follows as a u32
//! index    position of each record u64
//! info     JSON: digest of the examples, and what else the reader wants back
//! footer   examples u64, position of the index u64, bytes of the info u64, magic
//! ```
//!
//! All numbers are little-endian. The key is the hash of all that the tokens depend on: a file with another key is of no use. A file is
//! written under a temporary name, and gets its own when it is complete. It is checked as a whole when it is opened, and read as if
//! somebody hostile had made it: sizes before any allocation, and each record against the index and the digest.
//!
//! | file | contents |
//! | --- | --- |
//! | `layout` | header, record and footer |
//! | `writer` | [`TokenFileWriter`] |
//! | `reader` | [`TokenFile`] |

mod layout;
mod reader;
mod writer;

pub(crate) use layout::TokenLimits;
pub use reader::{Rejected, TokenFile};
pub(crate) use writer::TokenFileWriter;
