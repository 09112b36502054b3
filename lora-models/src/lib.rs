//! Language models for [Burn](burn), made to be adapted with [`lora_core`].
//!
//! - [`gpt2`]: GPT-2 from and to Hugging Face's files, each projection an injection target
//! - [`bert`], [`deberta`]: BERT, RoBERTa and XLM-RoBERTa; DeBERTa, its second and third version; [`encoder`]:
//!   what they share
//! - [`classifier`]: encoders with a head, for classes, a score or a class for each token
//! - [`LoraModel`]: what is the same about all of them: adapters, export
//! - [`ModelConfig`], [`Preset`]: the shape of any of them
//! - [`Blocks`]: any of them block by block, to compute activations again instead of keeping them
//! - [`ModelAdapters`]: several adapters on one model by name; [`generate_each`]: one for each prompt
//! - [`generate`]: greedy, sampled and beam-searched text from any [`generate::CausalModel`]
//! - [`checkpoint`]: weights in safetensors, shards and pickles, read strictly; export
//! - [`prefix`]: trained keys and values of virtual tokens, alone or beside LoRA
//! - [`formats`]: adapters of loralib and mlx-lm
//! - [`hub`]: models by name, downloaded with the feature `hub`
//! - [`tokenizer`]: text to ids and back
//! - [`activation`]: what configurations call their activations
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::Device;
//! use lora_core::{LoraConfig, TargetModules, merge};
//! use lora_models::LoraModel;
//! use lora_models::generate::{GenerationConfig, generate};
//! use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
//!
//! let device = Device::flex();
//! // `Gpt2LmHead::load(dir, &device)` reads a directory of Hugging Face's hub; this is a small one
//! // at random.
//! let config = Gpt2Config { n_layer: 2, n_embd: 48, n_head: 4, vocab_size: 100, ..Gpt2Config::default() };
//! let model = Gpt2LmHead::init(&config, 0, &device)?;
//!
//! // The paper's choice: the query and value parts of the fused projection.
//! let lora = LoraConfig::new(4).with_alpha(32.0).with_targets(TargetModules::names(["c_attn[q,v]"]));
//! let (model, report) = model.attach(&lora)?;
//! assert_eq!(report.parameters(), 2 * 2 * 4 * (48 + 48));
//!
//! // Train the adapters, then add them to the weights and generate.
//! let model = merge(model).into_module();
//! let texts = generate(&model, &[vec![7, 8, 9]], &GenerationConfig::new(5), &device)?;
//! assert_eq!(texts[0].tokens.len(), 5);
//! # Ok::<(), lora_models::ModelError>(())
//! ```
//!
//! Backends are chosen by features, as in [`lora_core`]; binaries need
//! `#![recursion_limit = "256"]`, as with Burn itself.
#![recursion_limit = "256"]

pub mod activation;
pub mod bert;
mod blocks;
pub mod checkpoint;
pub mod classifier;
mod config;
mod config_keys;
pub mod deberta;
pub mod encoder;
mod error;
mod export;
pub mod formats;
pub mod generate;
pub mod gpt2;
pub mod hub;
mod model;
mod named;
pub mod prefix;
pub mod tokenizer;
mod weights;

pub use blocks::Blocks;
pub use config::{ModelConfig, Preset};
pub use error::ModelError;
pub use export::ExportOptions;
pub use model::{LoraModel, model_type};
pub use named::{ModelAdapters, generate_each};
