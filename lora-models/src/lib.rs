//! Language models for [Burn](burn), made to be adapted with [`lora_core`].
//!
//! - [`gpt2`]: GPT-2 from and to Hugging Face's files, each projection an injection target
//! - [`generate`]: greedy, sampled and beam-searched text from any [`generate::CausalModel`]
//! - [`checkpoint`]: weights in safetensors, shards and pickles, read strictly; export
//! - [`tokenizer`]: text to ids and back
//! - [`activation`]: what configurations call their activations
//!
//! Backends are chosen by features, as in [`lora_core`]; binaries need
//! `#![recursion_limit = "256"]`, as with Burn itself.
#![recursion_limit = "256"]

pub mod activation;
pub mod checkpoint;
mod error;
pub mod generate;
pub mod gpt2;
pub mod tokenizer;

pub use error::ModelError;
