//! Adapters to and from Python's PEFT: a directory with `adapter_config.json` and
//! `adapter_model.safetensors`.
//!
//! PEFT keeps quiet about a tensor that is missing, left over or without the prefix, and the
//! adapter then does nothing. Here each is an error that names it.
//!
//! | in the file | here |
//! | --- | --- |
//! | `base_model.model.{module}.lora_A.weight` `[r, d_in]` | `A` `[d_in, r]` |
//! | `base_model.model.{module}.lora_B.weight` `[d_out, r]` | `B` `[r, d_out]` |
//! | `base_model.model.{module}.lora_embedding_A` `[r, vocabulary]` | `A` `[vocabulary, r]` |
//! | `base_model.model.{module}.lora_embedding_B` `[dimension, r]` | `B` `[r, dimension]` |
//!
//! An adapter on slices of a fused projection is written as the standard adapter of rank
//! `slices · r` with a block-shaped `B`; which slices it was is kept in the file's metadata, where
//! PEFT does not look.

mod config;
mod json;
mod read;
mod tensors;
mod write;

pub use config::{CONFIG_FILE, read_config};
pub use json::PeftOptions;
pub use read::{load, load_factors, load_with, switch};
pub use tensors::{PREFIX, WEIGHTS_FILE};
pub use write::save;
