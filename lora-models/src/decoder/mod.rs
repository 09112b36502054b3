//! Decoders of the Llama kind: one block, driven by data for each layer.
//!
//! - [`DecoderConfig`]: sizes and options of any [`DecoderFamily`], from and to `config.json`
//! - [`DecoderLm`]: the language model, with [random weights](DecoderLm::init) or [loaded](crate::Pretrained::load) from a
//!   Hugging Face directory
//! - [`Decoder`], [`Layer`], [`Attention`], [`Mlp`]: its parts
//! - [`Rope`]: rotary position embeddings
//!
//! | concept | file |
//! | --- | --- |
//! | families, and what sets each apart | `family.rs` |
//! | configuration, and its file | `config.rs`, `config_file.rs` |
//! | rotary position embeddings, and their keys | `rope.rs`, `rope_file.rs` |
//! | the modules | `model.rs`, `block.rs`, `attention.rs`, `mlp.rs` |
//! | state that all layers share | `shared.rs` |
//! | the language model layer by layer, through the loss, and token by token | `causal.rs` |
//! | names of modules and tensors; modules built from a checkpoint or from random values | `names.rs`, `build.rs` |
//! | loading, export, adapters | `pretrained.rs`, `adapters.rs` |
//!
//! | family | `model_type` | beside Llama |
//! | --- | --- | --- |
//! | Llama | `llama` | |
//! | Mistral | `mistral` | a sliding window on all layers |
//! | Qwen 2 | `qwen2` | bias on queries, keys and values; sliding windows by layer |
//! | Qwen 3 | `qwen3` | norm of each head; sliding windows by layer |
//! | SmolLM 3 | `smollm3` | layers without positions |
//! | Phi 3 | `phi3` | fused projections; positions on a part of each head; LongRoPE |
//! | Granite | `granite` | multipliers |
//! | Gemma | `gemma` | norms with 1 + weight; GELU; scaled embeddings |
//! | Gemma 2 | `gemma2` | norms around attention and MLP; capped scores and logits; every second layer with a window |
//! | Gemma 3 | `gemma3_text` | norm of each head; two kinds of positions; five of six layers with a window |
//! | OLMo 2 | `olmo2` | norms after attention and MLP; norm of queries and keys as a whole |
//! | OLMo 3 | `olmo3` | three of four layers with a window; two kinds of positions |
//!
//! Modules have the paths of transformers, and so have LoRA targets: `model.layers.{i}.self_attn.q_proj`, `k_proj`, `v_proj`,
//! `o_proj`, `model.layers.{i}.mlp.gate_proj`, `up_proj`, `down_proj`, `model.embed_tokens`, `lm_head`.
//!
//! The arithmetic is in f32 for every element type of the stored weights.

mod adapters;
mod attention;
mod block;
mod build;
mod causal;
mod config;
mod config_file;
mod family;
mod mlp;
mod model;
mod names;
mod pretrained;
mod rope;
mod rope_file;
mod shared;

pub use attention::{Attention, QueryKeyValue, SeparateProjections};
pub use block::Layer;
pub use config::{DecoderBiases, DecoderConfig, DecoderLayer, Multipliers};
pub use family::{DecoderFamily, HeadNorm, NormPlacement, ProjectionLayout};
pub use mlp::{GateUp, Mlp, SeparateGate};
pub use model::{Decoder, DecoderLm};
pub(crate) use names::architecture;
pub(crate) use pretrained::FREQUENCIES;
pub use rope::{Angles, Rope, RopeKind};
pub use shared::DecoderShared;
