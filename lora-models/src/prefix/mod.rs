//! Prefix tuning (Li and Liang 2021, arXiv 2101.00190): trained keys and values of a few virtual tokens precede every text
//! in each layer of a frozen model; alone, or together with LoRA (Hu et al. 2021, appendix E).
//!
//! - [`PrefixConfig`]: number of virtual tokens and seed
//! - [`Prefix`]: the module
//! - [`PrefixModel`]: models with a prefix; adding, loading and saving it
//! - [`beside`]: the prefix that goes with a LoRA adapter
//!
//! | concept | file |
//! | --- | --- |
//! | options; the module | `config.rs`, `module.rs` |
//! | models with a prefix | `model.rs` |
//! | prefixes in PEFT directories | `peft.rs` |
//!
//! The arithmetic is that of PEFT's `PREFIX_TUNING`: the positions of a text follow those of the virtual tokens, which are
//! never masked. A PEFT directory holds the one tensor `prompt_embeddings` `[tokens, layers · 2 · d_model]`; beside LoRA it
//! is the subdirectory [`PREFIX_DIR`] of the adapter. For a prefix trained through a projection (`prefix_projection`),
//! PEFT's file holds the projected values, and these are read.
//!
//! [`Gpt2LmHead`](crate::gpt2::Gpt2LmHead) supports a prefix. The encoders do not: neither does PEFT 0.21.2 with
//! transformers 5 for BERT and RoBERTa, nor any version for DeBERTa.
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::Device;
//! use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
//! use lora_models::prefix::{PrefixConfig, PrefixModel};
//!
//! let config = Gpt2Config { n_layer: 2, n_embd: 64, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
//! let model = Gpt2LmHead::init(&config, 0, &Device::flex())?;
//! // `attach` would freeze the model too, and add LoRA.
//! let model = lora_core::freeze(model).into_module();
//! let model = model.with_prefix(&PrefixConfig::new(5))?;
//! // Keys and values of five tokens in two layers.
//! assert_eq!(model.prefix().unwrap().parameters(), 5 * 2 * 2 * 64);
//! # Ok::<(), lora_models::ModelError>(())
//! ```

mod config;
mod model;
mod module;
mod peft;

pub use config::PrefixConfig;
pub use model::PrefixModel;
pub(crate) use module::PrefixLayer;
pub use module::{Prefix, PrefixShape};
pub use peft::{PREFIX_DIR, beside};
pub(crate) use peft::{read, refused, save};
