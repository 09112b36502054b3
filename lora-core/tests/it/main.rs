//! Integration tests: one module for each subject, all in one binary, since each binary links Burn again.
#![recursion_limit = "256"]

mod adapters;
mod attention;
mod combine;
mod common;
mod decoder_ops;
mod halves;
mod head_loss;
mod mixed;
mod named;
mod operation;
mod peft;
mod pointwise;
mod quantized;
mod quantized_memory;
mod segments;
mod spellings;
mod split;
mod tokens;
