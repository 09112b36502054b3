//! GPT-2 (Radford et al. 2019, *Language Models are Unsupervised Multitask Learners*).
//!
//! - [`Gpt2Config`]: what the model is made of, from and to `config.json`
//! - [`Gpt2LmHead`]: the model; [`init`](Gpt2LmHead::init) at random,
//!   [`load`](Gpt2LmHead::load) from a Hugging Face directory,
//!   [`export`](crate::LoraModel::export) to one
//! - [`attach`](crate::LoraModel::attach), [`load_adapter`](crate::LoraModel::load_adapter),
//!   [`save_adapter`](crate::LoraModel::save_adapter): LoRA on it
//! - [`with_prefix`](crate::LoraModel::with_prefix), [`load_prefix`](crate::LoraModel::load_prefix): a
//!   [prefix](crate::prefix), alone or beside LoRA
//! - [`Gpt2`], [`Block`], [`Attention`], [`Mlp`]: its parts, for those who look inside
//!
//! Modules and paths are named as in Python, so a LoRA target is written as it is there:
//!
//! | path | what it is | shape |
//! | --- | --- | --- |
//! | `transformer.wte` | embedding of tokens | `[vocab_size, d_model]` |
//! | `transformer.wpe` | embedding of positions | `[n_positions, d_model]` |
//! | `transformer.h.{i}.attn.c_attn` | queries, keys and values side by side; `c_attn[q,v]` names slices | `[d_model, 3 · d_model]` |
//! | `transformer.h.{i}.attn.c_proj` | output of the attention | `[d_model, d_model]` |
//! | `transformer.h.{i}.mlp.c_fc` | into the MLP | `[d_model, d_inner]` |
//! | `transformer.h.{i}.mlp.c_proj` | out of it | `[d_inner, d_model]` |
//! | `lm_head` | to the vocabulary, where it is not tied | `[d_model, vocab_size]` |
//!
//! Arithmetic is in f32, whatever the weights were stored as.

mod adapters;
mod attention;
mod block;
mod blocks;
mod build;
mod config;
mod config_file;
mod export;
mod init;
mod keys;
mod load;
mod loss;
mod mask;
mod model;

pub use attention::Attention;
pub use block::{Block, Mlp};
pub use blocks::Gpt2Input;
pub use config::{CONFIG_FILE, Gpt2Config};
pub use load::Gpt2Options;
pub use mask::Visible;
pub use model::{Gpt2, Gpt2LmHead};
