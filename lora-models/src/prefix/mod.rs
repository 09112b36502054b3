//! Virtual tokens before every text of a frozen model, of which a few values are trained; alone, or together with LoRA (Hu et al.
//! 2021, appendix E).
//!
//! | [`PrefixKind`] | trained | PEFT |
//! | --- | --- | --- |
//! | `KeysAndValues` | keys and values in each layer: prefix tuning (Li and Liang 2021, arXiv 2101.00190) | `PREFIX_TUNING` |
//! | `Embeddings` | embeddings: prompt tuning (Lester et al. 2021, arXiv 2104.08691), the paper's prefix-embedding | `PROMPT_TUNING` |
//! | `Activations` | activations that enter each layer: the paper's prefix-layer | none |
//!
//! - [`PrefixConfig`]: number of virtual tokens, kind, start and seed
//! - [`Prefix`]: the module
//! - [`beside`]: the prefix that goes with a LoRA adapter
//!
//! | concept | file |
//! | --- | --- |
//! | options; kinds; sizes; the module | `config.rs`, `kind.rs`, `shape.rs`, `module.rs` |
//! | prefixes in PEFT directories | `peft.rs` |
//!
//! The positions of a text follow those of the virtual tokens, which are never masked. A PEFT directory holds the tensor
//! `prompt_embeddings`, `[tokens, layers · 2 · d_model]`, `[tokens, d_model]` or `[tokens, layers · d_model]`, and the head of a
//! classifier after `base_model.`; beside LoRA it is a subdirectory of the adapter, such as [`PREFIX_DIR`]. For a prefix trained
//! through a projection (`prefix_projection`), PEFT's file holds the projected values, and these are read.
//!
//! **Activations.** No library has a format for them, so they are written as PEFT would, with `peft_type` `PREFIX_LAYER`, which PEFT
//! refuses. Those of layer `i` are the columns `i · d_model` to `(i + 1) · d_model`: they enter layer `i` at the virtual positions,
//! in the place of what the layer before computed there. What the last layer computes there is read by nothing, so that all
//! `layers · tokens · d_model` values count (Hu et al. 2021, section 5.1).
//!
//! **Decoders.** In a causal model no virtual token depends on a text. Their keys and values are computed once for a batch, from the
//! embeddings or activations, and every kind then acts as keys and values do.
//!
//! **Encoders.** Embeddings and activations are rows of the sequence. As in PEFT, the head on a text reads the first row, which with
//! embeddings is that of the first virtual token; with activations it is the text's first. DeBERTa's scores by distance do not apply
//! to keys and values, which have no place; PEFT 0.21 has no prefix tuning for encoders with transformers 5.
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::Device;
//! use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
//! use lora_models::AddedModel;
//! use lora_models::prefix::PrefixConfig;
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
mod kind;
mod module;
mod peft;
mod shape;

pub use config::PrefixConfig;
pub use kind::PrefixKind;

pub use module::{Prefix, PrefixLayer};
pub(crate) use peft::{HEAD_PREFIX, read, refuse_saved_modules, refused, save};
pub use peft::{PREFIX_DIR, beside};
pub use shape::PrefixShape;
