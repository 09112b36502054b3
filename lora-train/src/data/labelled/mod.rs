//! Labelled data: sentences and pairs of sentences to classify or to score, and words to tag.
//!
//! ```text
//! file ──read_labelled──▶ LabelledRecord: one or two texts, a Label
//! file ──read_tokens────▶ TokenRecord: words, a class for each
//!                         LabelSet: what the classes are called
//! either ──encode_labelled, encode_tagged──▶ LabelledExample ──collate──▶ LabelledBatch
//! predictions ──glue_submission──▶ the file that GLUE's server scores
//! ```
//!
//! | file | what it holds |
//! | --- | --- |
//! | `record` | what is read, and the report on what was not |
//! | `label_set`, `classes` | the names of the classes; from labels in a file to classes |
//! | `table` | rows with named cells, from CSV, TSV or JSON Lines |
//! | `glue`, `glue_files` | the tasks of GLUE, and which columns their files have |
//! | `columns` | which columns other files have |
//! | `row_plan`, `read` | what is read from each row; [`read_labelled`] |
//! | `tokens`, `conll` | [`read_tokens`], from JSON Lines or CoNLL's columns |
//! | `encode`, `example` | tokenised examples, and batches of them |
//! | `submission` | [`glue_submission`] |

mod classes;
mod columns;
mod conll;
mod encode;
mod example;
mod glue;
mod glue_files;
mod label_set;
mod read;
mod record;
mod row_plan;
mod submission;
mod table;
mod tokens;

pub use columns::LabelledColumns;
pub use encode::{ClassWeights, EncodeInputs, Encoded, encode_labelled, encode_tagged};
pub use example::{LabelledBatch, LabelledExample, Target, Targets};
pub use glue::GlueTask;
pub use label_set::LabelSet;
pub use read::{LabelledData, LabelledLayout, LabelledSource, read_labelled};
pub use record::{Label, LabelKind, LabelledRecord, ReadReport, TokenRecord, Unlabelled};
pub use submission::{Predictions, glue_submission, write_glue_submission};
pub use tokens::{TokenData, TokenFormat, TokenKeys, TokenSource, read_tokens};
