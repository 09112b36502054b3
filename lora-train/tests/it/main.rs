//! Integration tests: one module for each subject, all in one binary, since each binary links Burn again.
#![recursion_limit = "256"]
#![allow(
    clippy::print_stderr,
    reason = "tests of backends say what they leave out"
)]

use hostile::fuzz::memory::Bounded;
use lora_train::memory::Counting;

/// Counts for the tests of memory, and limits what the tests of hostile files may allocate. These run in a process of their
/// own, see [`passed_alone`](test_support::process::passed_alone).
#[global_allocator]
static ALLOCATOR: Bounded<Counting> = Bounded(Counting);

mod analyze;
mod backends;
mod base;
mod bench;
mod changed_data;
mod chat;
mod checkpointed;
mod classification_metrics;
mod classify;
mod classify_decoder;
mod classify_heads;
mod classify_loss;
mod classify_names;
mod classify_parity;
mod classify_refused;
mod classify_tasks;
mod classify_words;
mod cli;
mod common;
mod compatibility;
mod data;
mod data_cache;
mod data_files;
mod data_sets;
mod decoders;
mod diff;
mod doctor;
mod estimate;
mod glue;
mod halves;
mod hostile;
mod inspect;
mod kinds;
mod limits;
mod loss;
mod merge;
mod methods;
mod metrics;
#[cfg(feature = "mpi")]
mod mpirun;
mod named;
mod new_tokens;
mod odd_files;
mod opened_once;
mod outputs;
mod packing;
mod padding;
mod parity;
#[cfg(feature = "parquet")]
mod parquet;
mod places;
mod plan;
mod prefix;
mod preview;
mod program;
mod published;
mod quantize;
mod ranks;
mod report;
mod result_keys;
mod result_lines;
mod result_outputs;
mod resume;
mod step_values;
mod strangers;
mod streams;
mod sweep;
mod tables;
mod texts;
