//! Records with labels: texts and pairs of texts to classify or to score, and words to tag.
//!
//! ```text
//! file ──read_labelled──▶ Record with a Label, and the LabelSet ──encode_labelled──▶ Example
//! ```
//!
//! | file | contents |
//! | --- | --- |
//! | `read` | [`read_labelled`]: texts and pairs from CSV, TSV and JSON Lines |
//! | `sets`, `scores`, `list` | several labels of a record: classes or numbers, in a list or one a column |
//! | `words`, `conll`, `index_column` | words, from JSON Lines or the columns of CoNLL, which may be numbered |
//! | `records` | [`LabelledData`] with its [`ReadReport`]: counts of the records read and left out |
//! | `encode` | [`encode_labelled`]: tokenized examples |

mod conll;
mod encode;
mod index_column;
mod list;
mod read;
mod records;
mod scores;
mod sets;
mod words;

pub use encode::encode_labelled;
pub(crate) use read::read_labelled_files;
pub use read::{LabelledLayout, LabelledSource, read_labelled};
pub use records::{LabelledData, ReadReport};
