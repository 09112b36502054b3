//! LoRA adapters for any [Burn](burn) module.
//!
//! A dense weight `W` `[d_in, d_out]` is frozen and gets a low-rank update `s · A B` with `A`
//! `[d_in, r]` and `B` `[r, d_out]`; only the factors train (Hu et al. 2021, arXiv 2106.09685).
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
//! # Rooms
//! - [`ops`]: the arithmetic on Burn's backends, with one backward pass for all
//! - [`LoraConfig`], [`TargetModules`], [`LoraScaling`], [`LoraInit`]: what to adapt and how
//! - [`attach()`], [`attach_report`], [`detach`], [`freeze`], [`Adapted`], [`AttachReport`]: adapters on and off a module
//! - [`LowRankAdapter`], [`LoraBias`], [`LoraLinear`], [`LoraEmbedding`]: where an adapter lives and who reads it
//! - [`quantize()`], [`Quantization`], [`PackedWeight`]: frozen weights in 4 or 8 bits (QLoRA)
//! - [`merge()`], [`weight_errors`], [`trainable_summary`], [`Dropout`], [`LayerNorm`]
//! - [`named`]: several adapters on one base, by name, or one for each example of a batch
//! - [`peft`]: adapters to and from Python's PEFT
//! - [`stored`]: adapters as files hold them, without a model
//! - [`BaseFingerprint`], [`BaseDifference`]: whether an adapter is on the base that it was trained on
//! - [`combine`]: several of them made into one
//! - [`files`]: atomic writes
//!
//! # Backends
//! Burn's backends are chosen by features of Burn. The activation path of [`LoraLinear`] is an
//! operation of its own, so a backend must also be named here: `flex`, `ndarray`, `wgpu`, `vulkan`,
//! `webgpu`, `metal`, `cuda` or `rocm`, with `fusion` wherever Burn's `fusion` is on. Without any, the crate compiles for a portable application
//! that chooses later. Binaries need `#![recursion_limit = "256"]`, as Burn itself does.
#![recursion_limit = "256"]

mod adapter;
mod attach;
mod bare;
pub mod combine;
mod config;
mod error;
pub mod files;
mod fingerprint;
mod layout;
pub mod named;
mod nn;
pub mod ops;
pub mod peft;
mod quantize;
pub mod stored;

pub use adapter::{AdapterSwitch, LoraBias, LowRankAdapter};
pub use attach::{
    Adapted, AttachReport, Merged, TrainableSummary, WeightError, attach, attach_report, detach,
    freeze, merge, normal_values, trainable_summary, weight_errors,
};
pub use config::{BiasTraining, ExcludeModules, LoraConfig, LoraInit, LoraScaling, TargetModules};
pub use error::{BaseDifference, LoraError};
pub use fingerprint::BaseFingerprint;
pub use layout::{
    AdaptedModule, AdapterPath, Architecture, ForArchitecture, FusedLayout, FusedProjection,
    LayerKind, SavedParameter, Slices, param_id,
};
pub use nn::{
    Dropout, LayerNorm, LayerNormConfig, LoraEmbedding, LoraEmbeddingConfig, LoraLinear,
    LoraLinearConfig,
};
pub use quantize::{
    PackedWeight, Quantization, QuantizeConfig, QuantizedModule, quantize, quantized_weight,
};
