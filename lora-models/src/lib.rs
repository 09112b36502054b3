//! Language models and encoders for [Burn](burn), with adapters of [`lora_core`].
//!
//! - [`gpt2`]: GPT-2, from and to Hugging Face's files
//! - [`decoder`]: Llama, Mistral, Qwen, SmolLM 3, Phi 3, Granite, Gemma and OLMo
//! - [`bert`], [`deberta`]: BERT, RoBERTa and XLM-RoBERTa; DeBERTa v1, v2 and v3; [`encoder`]: their common parts
//! - [`classifier`]: encoders with a head, for classes, a score or a class for each token
//! - [`CausalLm`]: trait of language models: hidden states, loss, next logits
//! - [`Pretrained`]: trait of all models: loading, random weights, export
//! - [`ModelConfig`], [`Preset`]: configurations; [`ModelDir`]: an open model directory; [`dispatch!`]: code for the model
//!   type of a configuration
//! - [`LoraModel`], [`SaveAdapter`]: adapters on any model; [`ModelAdapters`]: several named adapters
//! - [`Blocks`]: models block by block, for activation checkpointing
//! - [`generate`]: greedy, sampled and beam-searched text from any [`generate::CausalModel`]
//! - [`checkpoint`]: weights in safetensors, shards and pickles, read strictly; export
//! - [`prefix`]: trained keys and values, embeddings or activations of virtual tokens, alone or beside LoRA
//! - [`adapter_layers`]: adapter layers of Houlsby, Lin and Pfeiffer, in the files of the library `adapters`
//! - [`added`]: models that take these
//! - [`formats`]: adapters of loralib and mlx-lm
//! - [`hub`]: models by name; downloads with the feature `hub`
//! - [`tokenizer`]: text to ids and back
//! - [`chat`]: chat templates: conversations to texts, with the parts that the assistant wrote
//! - the feature `tracing`: an event for each loaded checkpoint
//! - [`activation`]: activation functions by their names in configurations
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::Device;
//! use lora_core::{LoraConfig, TargetModules};
//! use lora_models::LoraModel;
//! use lora_models::generate::{GenerationConfig, Generator};
//! use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
//!
//! let device = Device::flex();
//! // `Gpt2LmHead::load(dir, &LoadOptions::default(), &device)` reads a directory of Hugging Face's hub; this is a small
//! // model with random weights.
//! let config = Gpt2Config { n_layer: 2, n_embd: 48, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
//! let model = Gpt2LmHead::init(&config, 0, &device)?;
//!
//! // The paper's choice: the query and value parts of the fused projection.
//! let lora = LoraConfig::new(4).with_alpha(32.0).with_targets(TargetModules::names(["c_attn[q,v]"]));
//! let model = model.attach(&lora)?;
//! assert_eq!(model.report().parameters(), 2 * 2 * 4 * (48 + 48));
//!
//! // Train the adapters, then merge them into the weights and generate.
//! let model = model.merge().into_module();
//! let texts = Generator::new(&model, GenerationConfig::new(5), &device).generate(&[vec![7, 8, 9]])?;
//! assert_eq!(texts[0].tokens.len(), 5);
//! # Ok::<(), lora_models::ModelError>(())
//! ```
//!
//! # Models in memory
//! Readers of models, tokenizers and adapters take the path of a directory or a [`Directory`] in memory, such as one of files that
//! `include_bytes!` puts into the program:
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::Device;
//! use lora_core::file::AdapterDir;
//! use lora_models::generate::{GenerationConfig, Generator};
//! use lora_models::gpt2::Gpt2LmHead;
//! use lora_models::{AdapterLoadOptions, Directory, LoadOptions, LoraModel, ModelDir, Pretrained};
//!
//! # macro_rules! embed {
//! #     ($name:literal) => {
//! #         include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/", $name))
//! #     };
//! # }
//! // `embed!` stands for `include_bytes!` with the path of a file.
//! let dir = Directory::in_memory("gpt2")
//!     .with_file("config.json", embed!("gpt2_tied/config.json"))
//!     .with_file("model.safetensors", embed!("gpt2_tied/model.safetensors"))
//!     .with_file("tokenizer.json", embed!("gpt2_tied/tokenizer.json"));
//! let device = Device::flex();
//! let (model, _) = Gpt2LmHead::load(&dir, &LoadOptions::default(), &device)?;
//! let tokenizer = ModelDir::open(&dir)?.tokenizer()?;
//! let adapter = AdapterDir::from_bytes(
//!     "my adapter",
//!     embed!("adapters/c_attn/adapter_config.json"),
//!     embed!("adapters/c_attn/adapter_model.safetensors"),
//! )?;
//! let model = model.load_opened_adapter(&adapter, &AdapterLoadOptions::default())?.into_module();
//! let prompt = tokenizer.encode_prompt("the name")?;
//! let texts = Generator::new(&model, GenerationConfig::new(5), &device).generate(&[prompt])?;
//! assert!(texts[0].tokens.len() <= 5);
//! # Ok::<(), lora_models::ModelError>(())
//! ```
//!
//! Backends are chosen by features, as in [`lora_core`]; binaries need
//! `#![recursion_limit = "256"]`, as with Burn itself.
#![recursion_limit = "256"]

pub mod activation;
pub mod adapter_layers;
pub mod added;
pub mod bert;
mod blocks;
mod causal;
pub mod chat;
pub mod checkpoint;
pub mod classifier;
mod config;
mod config_keys;
pub mod deberta;
pub mod decoder;
pub mod encoder;
mod error;
mod export;
pub mod formats;
pub mod generate;
pub mod gpt2;
pub mod hub;
mod lm;
mod misplaced;
mod model;
mod model_dir;
mod named;
pub mod prefix;
mod pretrained;
mod targets;
pub mod tokenizer;
mod vocabulary;
mod weights;

pub use added::AddedModel;
pub use blocks::Blocks;
pub use causal::{CausalInput, CausalLm};
pub use config::{ModelConfig, Preset, model_type};
pub use error::ModelError;
pub use export::ExportOptions;
pub use lora_core::files::Directory;
pub use model::{AdapterLoadOptions, LoraModel, SaveAdapter};
pub use model_dir::ModelDir;
pub use named::{ModelAdapters, PromptAdapters};
pub use pretrained::{FamilyConfig, LoadOptions, ModelInfo, ModelSizes, Pretrained};
pub use targets::{LoraTargets, NewVocabulary, Vocabulary};

/// The README, whose Rust code runs as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
