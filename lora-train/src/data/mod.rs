//! Data: from files to batches.
//!
//! ```text
//! file ──read_records──▶ Record ──encode_records──▶ Example ──collate──▶ Batch with its Targets
//!      ──read_labelled─▶  │    │└─concatenate_records▶ ▲ ▲ └──pack────▶
//!                         │    └──encode_labelled────────┘
//!                         └──group_references──▶ ReferenceGroup (to evaluate generation)
//!                                                BatchPlan: the examples of each batch, in their order
//! ```
//!
//! Nothing here uses tensors or devices: a [`Batch`] is plain vectors, and the task puts them
//! on a device.
//!
//! | file | contents |
//! | --- | --- |
//! | `lines`, `rows`, `quoting`, `jsonl` | bounded lines, rows of CSV and TSV, detection of quotes in TSV, objects of JSON Lines |
//! | `parquet` | rows of Parquet files as objects, with the feature `parquet` |
//! | `table` | rows with named cells, from any of them |
//! | `format`, `columns`, `row_layout` | detection of the format; names of the columns |
//! | `record` | [`Record`]: content, label, adapter, and the place where it was read |
//! | `source`, `text_table`, `plain_text`, `template` | [`read_records`], with a reader for tables and plain text; [`PairTemplate`] |
//! | `document`, `e2e`, `dart`, `webnlg`, `samsum`, `mnli`, `wikisql` | JSON documents; readers of published data sets |
//! | `chat` | conversations: `messages`, ShareGPT, Alpaca; [`encode_chats`] |
//! | `objects` | JSON objects, one a line or in one array |
//! | `labels` | [`LabelSet`], classes of a file, [`ClassWeights`] |
//! | `labelled` | [`read_labelled`] and [`encode_labelled`]: data to classify, to score or to tag |
//! | `glue` | tasks of GLUE, their files and submissions |
//! | `example`, `encoder`, `tokenization`, `encode`, `concatenate` | tokenized examples, tokenizers, and the two ways to make examples for a language model, record by record |
//! | `batch`, `targets`, `padding` | padding side by side, or packing, with the [`Targets`]; the length of a batch |
//! | `files`, `mix` | several files, and their shares of an epoch |
//! | `draw`, `split` | records drawn by a seed, to train on or to hold out |
//! | `batch_size`, `plan`, `sample` | order, shuffling, grouping by length, sizes in examples or tokens; the trainer's interface |
//! | `example_set`, `token_file`, `size` | examples in memory, or in a mapped file: [`ExampleSet`], [`TokenFile`] |
//! | `reference` | several references to one prompt |
//! | `digest` | [`DataDigest`]: what a resumed run compares of its data |
//!
//! # Examples
//! ```
//! use lora_train::data::*;
//! use lora_train::error::TrainError;
//! use std::path::Path;
//!
//! # use lora_models::tokenizer::Sequence;
//! /// Tokenizer whose tokens are bytes.
//! struct Bytes;
//! impl Encode for Bytes {
//!     fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
//!         Ok(text.bytes().map(u32::from).collect())
//!     }
//! #   fn encode_inputs(&self, _: &[(&str, Option<&str>)], _: usize) -> Result<Vec<Sequence>, TrainError> {
//! #       Ok(Vec::new())
//! #   }
//! #   fn encode_words(&self, _: &[&str], _: usize) -> Result<Sequence, TrainError> {
//! #       Ok(Sequence::default())
//! #   }
//!     // …
//! }
//!
//! # fn main() -> Result<(), TrainError> {
//! // As `read_records(path, &SourceOptions::default())?` returns them:
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
//!     assert_eq!(batch.targets.classes().classes, [32, 52, 256]);
//! }
//! # Ok(())
//! # }
//! ```

mod batch;
mod batch_size;
mod chat;
mod columns;
mod concatenate;
mod dart;
mod digest;
mod document;
mod draw;
mod e2e;
mod encode;
mod encoder;
mod example;
mod example_set;
mod files;
mod format;
mod glue;
mod jsonl;
mod labelled;
mod labels;
mod lines;
mod mix;
mod mnli;
mod objects;
mod padding;
mod parquet;
mod plain_text;
mod plan;
mod quoting;
mod record;
mod reference;
mod row_layout;
mod rows;
mod sample;
mod samsum;
mod size;
mod source;
mod split;
mod table;
mod targets;
mod template;
mod text_table;
mod token_file;
mod tokenization;
mod webnlg;
mod wikisql;

pub use batch::{Batch, collate, pack};
pub use batch_size::BatchSize;
pub(crate) use chat::{ChatEncoder, read_conversation};
pub use chat::{ChatEncodingOptions, ChatReport, encode_chats};
pub use columns::Columns;
pub(crate) use concatenate::Concatenator;
pub use concatenate::{ConcatenationReport, concatenate_records};
pub use digest::{DataDigest, FileDigest};
pub use draw::draw;
pub use encode::{EncodingOptions, TruncationReport, encode_records};
pub(crate) use encode::{TextEncoder, UNCUT};
pub use encoder::Encode;
pub use example::{Example, Target};
pub use example_set::ExampleSet;
pub use files::DataFiles;
pub use format::DataFormat;
pub(crate) use format::first_text;
pub use glue::{GlueTask, Predictions, glue_submission, write_glue_submission};
pub(crate) use labelled::read_labelled_files;
pub use labelled::{
    LabelledData, LabelledLayout, LabelledSource, ReadReport, encode_labelled, read_labelled,
};
pub use labels::{ClassWeights, LabelKind, LabelSet, Unlabelled};
pub(crate) use lines::Lines;
pub use lines::MAX_LINE_BYTES;
pub use mix::Mix;
pub(crate) use mnli::ANSWERS;
pub use padding::Padding;
pub use plain_text::TextDocuments;
pub use plan::{BatchOrder, BatchPlan};
pub use record::{Content, Label, Origin, Record};
pub use reference::{ReferenceGroup, group_references};
pub use sample::{Sample, SampleBatch, Samples};
pub(crate) use size::{count_lines, file_bytes};
pub(crate) use source::each_record;
pub use source::{SourceOptions, read_records};
pub use split::EvalSplit;
pub(crate) use split::{RecordUse, Selection, SelectionOptions};
pub use targets::{ClassTargets, Targets};
pub use template::{PairTemplate, TemplateName};
pub use token_file::{Rejected, TokenFile};
pub(crate) use token_file::{TokenFileWriter, TokenLimits};
pub(crate) use tokenization::{EachExample, RecordEncoder, encode_all};
pub use webnlg::Categories;
pub use wikisql::{
    Aggregate, ColumnType, Condition, Operator, SqlQuery, SqlTable, SqlTables, SqlValue,
};
