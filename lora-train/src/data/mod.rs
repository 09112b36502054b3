//! Data: from files to batches.
//!
//! ```text
//! file ──read_records──▶ Record ──encode_records──▶ Example ──collate──▶ Batch
//!                          │    └─concatenate_records▶ ▲
//!                          └──group_references──▶ ReferenceGroup (to evaluate generation)
//!                                                BatchPlan: which examples, in which order
//! ```
//!
//! Nothing here knows of tensors or devices: a [`Batch`] is plain vectors, and the trainer puts them
//! on a device.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `source` | which formats there are, how one is told, [`read_records`] |
//! | `jsonl`, `delimited`, `e2e`, `plain_text` | a reader each |
//! | `rows` | the rows of CSV and TSV |
//! | `columns` | which columns or keys hold the text |
//! | `lines` | lines of a file, bounded |
//! | `record` | [`Record`] and where it was read |
//! | `example`, `encode`, `concatenate` | tokenised examples, and the two ways to make them |
//! | `batch`, `batch_size`, `plan` | padding side by side, or packing; order, shuffling, grouping by length, sizes in examples or tokens |
//! | `reference` | several references to one prompt |
//! | `labelled` | data to classify: [`read_labelled`], [`read_tokens`], GLUE, [`LabelSet`] |
//!
//! # Examples
//! ```
//! use lora_train::data::*;
//! use lora_train::error::TrainError;
//! use std::path::Path;
//!
//! /// Each byte is a token.
//! struct Bytes;
//! impl Encode for Bytes {
//!     fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
//!         Ok(text.bytes().map(u32::from).collect())
//!     }
//! }
//!
//! # fn main() -> Result<(), TrainError> {
//! // What `read_records(path, &SourceOptions::default())?` would return:
//! let origin = Origin::new(Path::new("train.jsonl"), 1);
//! let records = [Record::prompt_completion("2 + 2 =", " 4", origin)];
//!
//! let (examples, report) =
//!     encode_records(&records, &Bytes, Some(256), &EncodingOptions::default())?;
//! assert_eq!(report.to_string(), "1 examples, none cut (longest 10 of 512 tokens)");
//!
//! let lengths = examples.iter().map(Example::len).collect();
//! let plan = BatchPlan::new(lengths, 8, BatchOrder::Shuffled, 42)?;
//! for indices in plan.epoch(0) {
//!     let members: Vec<&Example> = indices.iter().map(|&i| &examples[i]).collect();
//!     let batch = collate(&members, 0);
//!     // " 4" and the end-of-sequence token are learned, the prompt is not.
//!     assert_eq!(batch.label_tokens, 3);
//! }
//! # Ok(())
//! # }
//! ```

mod adapter_names;
mod batch;
mod batch_size;
mod columns;
mod concatenate;
mod delimited;
mod e2e;
mod encode;
mod example;
mod jsonl;
mod labelled;
mod lines;
mod plain_text;
mod plan;
mod record;
mod reference;
mod rows;
mod sample;
mod source;

pub(crate) use adapter_names::read_adapter_names;
pub use batch::{Batch, IGNORE_INDEX, collate, pack};
pub use batch_size::BatchSize;
pub use columns::Columns;
pub use concatenate::{ConcatenationReport, concatenate_and_chunk, concatenate_records};
pub use e2e::E2eTemplate;
pub use encode::{Encode, EncodingOptions, TruncationReport, encode_records};
pub use example::Example;
pub use labelled::{
    ClassWeights, EncodeInputs, Encoded, GlueTask, Label, LabelKind, LabelSet, LabelledBatch,
    LabelledColumns, LabelledData, LabelledExample, LabelledLayout, LabelledRecord, LabelledSource,
    Predictions, ReadReport, Target, Targets, TokenData, TokenFormat, TokenKeys, TokenRecord,
    TokenSource, Unlabelled, encode_labelled, encode_tagged, glue_submission, read_labelled,
    read_tokens, write_glue_submission,
};
pub use lines::MAX_LINE_BYTES;
pub(crate) use lines::{Lines, is_blank};
pub use plain_text::TextDocuments;
pub use plan::{BatchOrder, BatchPlan};
pub use record::{Content, Origin, Record};
pub use reference::{ReferenceGroup, group_references};
pub use sample::{Sample, SampleBatch};
pub use source::{DataFormat, SourceOptions, read_records};
