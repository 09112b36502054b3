//! Prefix tuning (Li and Liang 2021, arXiv 2101.00190): every layer sees the keys and values of a few virtual tokens before
//! those of the text, and these alone are trained; or together with LoRA (Hu et al. 2021, appendix E).
//!
//! - [`PrefixConfig`]: how many virtual tokens, and how they start
//! - [`Prefix`]: the module, which a model holds; [`LoraModel::with_prefix`](crate::LoraModel::with_prefix) puts it there
//! - [`is_prefix`], [`beside`]: where a PEFT directory has one
//!
//! The arithmetic is that of PEFT's `PREFIX_TUNING`: the tokens of the text are at the positions after the virtual ones, and
//! the virtual ones are never hidden. A PEFT directory of its own holds it, with the one tensor `prompt_embeddings`
//! `[tokens, layers · 2 · d_model]`; beside LoRA it is the directory [`PREFIX_DIR`] inside the adapter's. What PEFT trained through
//! a projection (`prefix_projection`) is in its file as what the projection gave, and is read as that.
//!
//! [`Gpt2LmHead`](crate::gpt2::Gpt2LmHead) takes a prefix. The encoders do not: PEFT 0.21.2 has none for BERT and RoBERTa with
//! transformers 5 either, and never had one for DeBERTa.
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::Device;
//! use lora_models::LoraModel;
//! use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
//! use lora_models::prefix::PrefixConfig;
//!
//! let config = Gpt2Config { n_layer: 2, n_embd: 64, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
//! let model = Gpt2LmHead::init(&config, 0, &Device::flex())?;
//! // Freezes the model; `attach` does too, and puts LoRA on it.
//! let model = lora_core::freeze(model).into_module();
//! let model = model.with_prefix(&PrefixConfig::new(5))?;
//! // Keys and values of five tokens in two layers.
//! assert_eq!(model.prefix().unwrap().parameters(), 5 * 2 * 2 * 64);
//! # Ok::<(), lora_models::ModelError>(())
//! ```

mod config;
mod module;
mod peft;

pub use config::{PrefixConfig, PrefixShape};
pub use module::Prefix;
pub(crate) use module::PrefixLayer;
pub use peft::{PREFIX_DIR, beside, is_prefix};
pub(crate) use peft::{read, refused, refused_by_name, save};
