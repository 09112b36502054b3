//! GPT-2 (Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*).
//!
//! - [`Gpt2Config`]: sizes and options, from and to `config.json`
//! - [`Gpt2LmHead`]: the language model, with [random weights](Gpt2LmHead::init) or
//!   [loaded](crate::Pretrained::load) from a Hugging Face directory
//! - [`Gpt2`], [`Block`], [`Attention`], [`Mlp`]: its parts
//!
//! | concept | file |
//! | --- | --- |
//! | configuration, and its file | `config.rs`, `config_file.rs` |
//! | the modules | `model.rs`, `block.rs`, `attention.rs` |
//! | the language model layer by layer, through the loss, and token by token | `causal.rs` |
//! | names of tensors; modules built from a checkpoint or from random values | `keys.rs`, `build.rs`, `init.rs` |
//! | loading, export, adapters | `pretrained.rs`, `adapters.rs` |
//!
//! The traits of its other functions: [`CausalLm`](crate::CausalLm) for hidden states and loss, [`LoraModel`](crate::LoraModel)
//! for adapters, [`AddedModel`](crate::AddedModel) for virtual tokens and adapter layers.
//!
//! Modules have the paths of transformers, and so have LoRA targets:
//!
//! | path | module | shape |
//! | --- | --- | --- |
//! | `transformer.wte` | token embedding | `[vocab_size, d_model]` |
//! | `transformer.wpe` | position embedding | `[n_positions, d_model]` |
//! | `transformer.h.{i}.attn.c_attn` | fused query, key and value projection; `c_attn[q,v]` names slices | `[d_model, 3 · d_model]` |
//! | `transformer.h.{i}.attn.c_proj` | output projection of the attention | `[d_model, d_model]` |
//! | `transformer.h.{i}.mlp.c_fc` | first layer of the MLP | `[d_model, d_inner]` |
//! | `transformer.h.{i}.mlp.c_proj` | second layer of the MLP | `[d_inner, d_model]` |
//! | `lm_head` | output layer, unless it is tied to `wte` | `[d_model, vocab_size]` |
//!
//! The arithmetic is in f32 for every element type of the stored weights.

mod adapters;
mod attention;
mod block;
mod build;
mod causal;
mod config;
mod config_file;
mod init;
mod keys;
mod model;
mod pretrained;

pub use crate::lm::TextMask;
pub use attention::Attention;
pub use block::{Block, Mlp};
pub use config::Gpt2Config;
pub use model::{Gpt2, Gpt2LmHead};
pub(crate) use pretrained::MASK;
