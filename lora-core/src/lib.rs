//! LoRA adapters for any [Burn](burn) module.
//!
//! A dense weight `W` `[d_in, d_out]` is frozen and gets a low-rank update `s · A B` with `A`
//! `[d_in, r]` and `B` `[r, d_out]`. Only the factors are trained (Hu et al. 2021, arXiv 2106.09685).
//!
//! ```
//! # #![recursion_limit = "256"]
//! use burn::module::Module;
//! use burn::tensor::{Device, Distribution, Tensor};
//! use lora_core::{LoraConfig, LoraLinear, LoraLinearConfig, TargetModules};
//!
//! #[derive(Module, Debug)]
//! struct Attention { query: LoraLinear, value: LoraLinear }
//!
//! let device = Device::flex().autodiff();
//! let model = Attention {
//!     query: LoraLinearConfig::new(64, 64).init(&device),
//!     value: LoraLinearConfig::new(64, 64).init(&device),
//! };
//! let config = LoraConfig::new(4).with_alpha(16.0).with_targets(TargetModules::names(["query"]));
//! let adapted = lora_core::attach(model, &config)?;
//! assert_eq!(adapted.report().modules[0].module, "query");
//! let model = adapted.module();
//!
//! let x = Tensor::<3>::random([2, 5, 64], Distribution::Default, &device);
//! let loss = model.query.forward(x.clone()).sum() + model.value.forward(x).sum();
//! let grads = loss.backward();
//! let adapter = model.query.adapter().unwrap();
//! assert!(adapter.b.val().grad(&grads).is_some());
//! assert!(model.query.weight.base().grad(&grads).is_none());
//! # Ok::<(), lora_core::LoraError>(())
//! ```
//!
//! # Relation to Burn's own LoRA
//! Burn 0.22 has [`Module::apply_lora`](burn::module::Module::apply_lora) with its own
//! [`LoraAdapter`](burn::module::LoraAdapter), and this crate builds on the same hook,
//! [`Reparameterization`](burn::module::Reparameterization). Burn's adapter composes the dense weight `W + s A B` in every
//! forward pass. [`LoraLinear`] computes `x W + s (x A) B` without a dense update, as an operation with its own backward pass.
//! On two cores of a CPU, `c_attn` of GPT-2 small takes 35.2 ms forward and backward instead of 55.4 ms with the composed
//! weight. A training step takes 2.2 s instead of 6.7 s with Burn's layers and `apply_lora` (8 × 128 tokens, rank 8), mostly
//! because attention, the loss and other [`ops`] also have their own backward passes here (`benchmarks/README.md`).
//!
//! `apply_lora` adapts every matrix of a module, or those of a `ParamGroup` of exact paths. This crate selects targets by name
//! or pattern, with errors for those that match nothing, reads and writes PEFT's files, and has DoRA, rank-stabilized scaling,
//! PiSSA and OLoRA, adapters on slices of fused projections, and several adapters in one batch. Prefer `apply_lora` if you need
//! none of that: it is part of Burn and adapts a module in one call.
//!
//! # Modules
//! - [`ops`]: arithmetic on Burn's backends, with one backward pass for all
//! - [`LoraConfig`], [`TargetModules`], [`LoraScaling`], [`LoraInit`]: configuration
//! - [`attach()`], [`Adapted`], [`AttachReport`], [`detach`], [`freeze`], [`attach_report`]: adapters on and off a module
//! - [`Architecture`], [`ForArchitecture`]: output layers, fused projections and names in Python of a model
//! - [`LoraLinear`], [`LoraEmbedding`], [`LayerNorm`], [`RmsNorm`], [`Dropout`]: layers
//! - [`LowRankAdapter`], [`LoraBias`], [`AdapterSwitch`]: adapters on their parameters
//! - [`quantize()`], [`Quantization`], [`PackedWeight`]: frozen weights in 4 or 8 bits (QLoRA)
//! - [`narrow`], [`widen`], [`BaseFloats`]: frozen weights in 16 bits
//! - [`SplitWeight`], [`split_weight`], [`rows_per_part`]: frozen embeddings that a device cannot bind in one buffer
//! - [`merge()`], [`weight_errors`], [`trainable_summary`], [`base_value`]: merged weights, counts of parameters, and values of the base
//! - [`named`]: several named adapters on one base, one active or one for each example of a batch
//! - [`file`](mod@file): adapters in the files of Python's PEFT, with or without a model
//! - [`BaseFingerprint`], [`BaseDifference`]: comparison of a base with the base that an adapter was trained on
//! - [`combine`]: several adapters combined into one
//! - [`spectrum`]: singular directions of updates and weights, and what two of them share
//! - [`files`]: atomic writes
//! - [`first_not_finite`]: search for values that are infinite or NaN
//!
//! # Backends
//! Cargo features choose Burn's backends. The activation path of [`LoraLinear`] is an
//! operation of this crate, so its features must name the backend too: `flex`, `ndarray`, `wgpu`, `vulkan`,
//! `webgpu`, `metal`, `cuda` or `rocm`, with `fusion` if Burn's `fusion` is on. Without any of them, the crate compiles for a
//! portable application that chooses later. Binaries need `#![recursion_limit = "256"]`, as with Burn itself.
#![recursion_limit = "256"]

mod adapter;
mod attach;
mod bare;
pub mod combine;
mod config;
mod error;
pub mod file;
pub mod files;
mod fingerprint;
mod finite;
mod layout;
pub mod named;
mod nn;
pub mod ops;
mod quantize;
mod random;
pub mod spectrum;
mod split;

pub use adapter::{AdapterSwitch, LoraBias, LowRankAdapter, TokenRows, base_value};
pub use attach::{
    Adapted, AttachReport, Merged, TrainableSummary, WeightError, attach, attach_report, detach,
    freeze, merge, trainable_summary, weight_errors,
};
pub use config::{
    BiasTraining, ExcludeModules, LoraConfig, LoraInit, LoraScaling, TargetModules, TrainableTokens,
};
pub use error::{BaseDifference, LoraError};
pub use fingerprint::BaseFingerprint;
pub use finite::{first_half_not_finite, first_not_finite};
pub use layout::{
    AdaptedModule, AdapterPath, Architecture, CLASSIFICATION_HEADS, ForArchitecture, FusedLayout,
    FusedProjection, LayerKind, SavedParameter, Slices, TokenModule, param_id,
};
pub use nn::{
    Dropout, LayerNorm, LayerNormConfig, LoraEmbedding, LoraEmbeddingConfig, LoraLinear,
    LoraLinearConfig, RmsNorm, RmsNormConfig, RmsScale,
};
pub use ops::{HalfFloat, PackedFormat};
pub use quantize::{
    BaseDType, BaseFloats, HalfValues, PackedWeight, Quantization, QuantizeConfig, QuantizedModule,
    half_weight, narrow, quantize, quantized_embedding, quantized_weight, tied_weight, widen,
};
pub use random::normal_values;
pub use split::{SplitWeight, rows_per_part, split_weight, split_weights};

/// The README, whose Rust code runs as a documentation test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
