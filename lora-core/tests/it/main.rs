//! Integration tests, one module a subject, in one binary: linking Burn once a test file takes minutes.
#![recursion_limit = "256"]

mod adapters;
mod attention;
mod combine;
mod common;
mod head_loss;
mod named;
mod operation;
mod peft;
mod pointwise;
mod quantized;
mod quantized_memory;
mod segments;
