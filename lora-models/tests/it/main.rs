//! Integration tests, one module a subject, in one binary: linking Burn once a test file takes minutes.
#![recursion_limit = "256"]

mod base;
mod checkpoint;
mod common;
mod encoder_adapters;
mod encoder_export;
mod encoder_parity;
mod encoders;
mod export;
mod formats;
mod generation;
mod gpt2_parity;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_server;
mod kinds;
mod named;
mod peft_parity;
mod prefix;
mod quantized;
mod tokenizer;
mod tokenizer_families;
