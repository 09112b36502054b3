//! Encoders with a head: classes or a score for a text or a pair of texts, or classes for each token.
//!
//! Decoders are among them, with a head in place of their output layer: GPT-2 and those of the Llama kind,
//! [`HeadedDecoder`](crate::encoder::HeadedDecoder). Their head on texts reads the last token that is not padding.
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::tensor::{Device, Int, Tensor};
//! use lora_core::LoraConfig;
//! use lora_models::{LoraModel, LoraTargets};
//! use lora_models::classifier::{Classifier, HeadKind};
//! use lora_models::encoder::EncoderConfig;
//!
//! let json = serde_json::json!({
//!     "model_type": "roberta", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
//!     "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 34, "num_labels": 3,
//! });
//! let config = EncoderConfig::from_json("config.json".as_ref(), json.as_object().unwrap().clone())?;
//! let device = Device::flex();
//! // `Classifier::load(dir, …)` reads a directory of Hugging Face's hub; this is a small model with random weights.
//! let model = Classifier::init(&config, HeadKind::Sequence, 0, &device)?;
//! let lora = LoraConfig::new(4).with_alpha(8.0).with_targets(model.default_targets());
//! let model = model.attach(&lora)?;
//! let report = model.report();
//! assert_eq!(report.parameters(), 2 * 2 * 2 * 32 * 4); // query and value of two layers
//! assert_eq!(report.saved_parameters(), 32 * 32 + 32 + 32 * 3 + 3); // the head
//!
//! let ids = Tensor::<2, Int>::from_ints([[0, 17, 4, 2], [0, 9, 2, 1]], &device);
//! let mask = ids.clone().not_equal_elem(1);
//! assert_eq!(model.module().forward(ids, &mask, None).dims(), [2, 3]);
//! # Ok::<(), lora_models::ModelError>(())
//! ```
//!
//! | concept | file |
//! | --- | --- |
//! | [`Classifier`], [`Trunk`], [`EncoderInput`]: encoder, or decoder, and head | `model.rs` |
//! | [`Pooler`], [`Head`] | `head.rs` |
//! | [`EncoderShared`]: block by block | `blocks.rs` |
//! | loading, random modules, export | `pretrained.rs` |
//! | names of the modules; the head's | `names.rs` |
//! | adapters: targets, labels beside them | `adapters.rs` |

mod adapters;
mod blocks;
mod head;
mod model;
mod names;
mod pretrained;

pub use crate::encoder::HeadKind;
pub use adapters::{AdapterLabels, adapter_labels};
pub use blocks::EncoderShared;
pub use head::{Head, Pooler};
pub use model::{Classifier, EncoderInput, Trunk};
pub use pretrained::ClassifierOptions;
