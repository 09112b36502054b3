//! Integration tests: one module for each subject, all in one binary, since each binary links Burn again.
#![recursion_limit = "256"]

mod adapter_layers;
mod base;
mod chat;
mod checkpoint;
mod classifier_vocabulary;
mod common;
mod decoders;
mod encoder_adapters;
mod encoder_export;
mod encoder_parity;
mod encoders;
mod export;
mod formats;
mod generation;
mod gguf;
mod gpt2_parity;
mod halves;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod hub_push;
#[cfg(feature = "hub")]
mod hub_server;
mod kinds;
mod memory;
mod named;
mod peft_parity;
mod prefix;
mod prompt;
mod quantized;
mod split;
mod tokenizer;
mod tokenizer_families;
mod vocabulary;
mod wrapped;
