//! Tensor operations of LoRA and of a transformer's training step, as extensions of Burn's [`Backend`](burn::backend::Backend) trait.
//!
//! No other module of the workspace is generic over a backend: all others take a [`Device`](burn::tensor::Device).
//!
//! Each operation has three parts:
//!
//! - a trait on backends, such as [`LoraOps`], whose default is composed of operations that every
//!   backend has; `backend_operations!` declares it;
//! - one backward pass, written for `Autodiff<B>`, which serves all backends: a function that an `Operation` registers;
//! - a function on [`Tensor`](burn::tensor::Tensor)s, such as [`lora_linear`].
//!
//! | trait | on tensors | operation |
//! | --- | --- | --- |
//! | [`LoraOps`] | [`lora_linear`] | a frozen linear layer with a low-rank update |
//! | [`AttentionOps`] | [`ScaledDotProduct`] | attention that keeps no scores |
//! | [`HeadLossOps`] | [`head_loss`] | a projection with its cross entropy, without all logits at once |
//! | [`LinearOps`] | [`linear`] | a linear layer, frozen or not |
//! | [`LayerNormOps`] | [`layer_norm`] | layer normalization |
//! | [`RmsNormOps`] | [`rms_norm`] | normalization by the root mean square |
//! | [`RotaryOps`] | [`rotary`] | rotary position embeddings |
//! | [`GatedOps`] | [`gated`] | gated activations, such as SwiGLU |
//! | [`DropoutOps`] | [`Dropout`] | dropout that keeps no mask |
//! | [`GeluOps`] | [`gelu`], [`gelu_tanh`] | GELU, exact and with the tanh approximation |
//! | [`PackedOps`] | [`PackedWeight`](crate::PackedWeight) | a linear layer whose frozen weight stays packed |
//! | [`SoftmaxOps`] | [`softmax`] | softmax |
//! | [`ProductOps`] | [`multiply`] | the matrix products of all others |
//!
//! | file | contents |
//! | --- | --- |
//! | `lora_linear`, `linear`, `packed`, `packed_format` | linear layers: adapted, plain, and with a packed weight |
//! | `packed_composed`, `packed_product` | dequantization on any backend; products on the CPU, part by part |
//! | `attention`, `head_loss`, `layer_norm`, `rms_norm`, `rotary`, `gelu`, `gated`, `softmax` | operations of the table above |
//! | `dropout`, `dropout_layer`, `seeded_mask` | dropout by a seed, its module, and its mask |
//! | `dropout_switch` | dropout switched off for a while |
//! | `product`, `product_kernel` | matrix products, in the wider of two types; their kernel for software adapters |
//! | `precision`, `half_float` | mixed precision: products with frozen weights in 16 bits; the 16-bit types |
//! | `tuning` | choice of kernels on GPUs: fixed or measured |
//! | `kernels`, `gemm` | loops and matrix products on the CPU |
//! | `backward`, `recipe` | operations under autodiff whose backward pass is a function; outputs that it computes again |
//! | `constants`, `statistics` | small tensors made once, two numbers of each row |
//! | `stages` | sums and maxima of many values |
//! | `contiguous`, `host` | CPU tensors as slices, devices and backends in host memory |
//! | `limits`, `launches` | memory limits of a device, number of kernels that run |
//! | `facts`, `tolerance` | facts about a device, tolerances for comparing it with the CPU |
//! | `kernel_cache` | kernels that GPU backends keep |
//! | `scoped` | a value of a thread that holds for a while |
//! | `prelude` | imports and helpers shared by the operations |

// Burn deprecates ndarray; it is offered as long as Burn has it.
#![allow(deprecated)]
// Without a backend there is nothing to pass arguments on to.
#![cfg_attr(
    not(any(feature = "flex", feature = "ndarray", feature = "gpu")),
    allow(unused_variables)
)]

mod attention;
mod backward;
mod constants;
#[cfg(feature = "flex")]
mod contiguous;
mod dropout;
mod dropout_layer;
mod dropout_switch;
mod facts;
mod gated;
mod gelu;
#[cfg(feature = "flex")]
mod gemm;
mod half_float;
mod head_loss;
mod host;
mod kernel_cache;
#[cfg(feature = "host")]
mod kernels;
mod launches;
mod layer_norm;
mod limits;
mod linear;
mod lora_linear;
pub(crate) mod packed;
mod packed_composed;
pub(crate) mod packed_format;
#[cfg(feature = "flex")]
mod packed_product;
mod precision;
mod prelude;
mod product;
#[cfg(feature = "gpu")]
mod product_kernel;
mod recipe;
mod rms_norm;
mod rotary;
mod scoped;
mod seeded_mask;
mod softmax;
mod stages;
mod statistics;
mod tolerance;
mod tuning;

pub use attention::{AttentionOps, AttentionOptions, AttentionState, ScaledDotProduct, Segments};
pub use dropout::DropoutOps;
pub use dropout_layer::{Dropout, seed};
pub use dropout_switch::without_dropout;
pub use facts::{DeviceFacts, device_facts};
pub use gated::{GateKind, GatedOps, gated};
pub use gelu::{GeluKind, GeluOps, gelu, gelu_tanh};
pub use half_float::HalfFloat;
pub(crate) use head_loss::packed_head_loss;
pub use head_loss::{
    CrossEntropy, HeadGradients, HeadLoss, HeadLossOps, head_loss, head_loss_in_parts,
    loss_of_logits,
};
pub use host::is_on_host;
pub use kernel_cache::kernel_cache;
pub use launches::LaunchCounter;
pub use layer_norm::{LayerNormOps, layer_norm};
pub use limits::{device_memory_bytes, max_buffer_bytes, with_max_buffer_bytes};
pub use linear::{LinearOps, linear};
pub use lora_linear::{LoraOps, lora_linear};
pub use packed::{PackedFormat, PackedLayout, PackedOps};
pub(crate) use precision::operand;
pub use precision::{mixed_type, with_mixed_precision};
pub use product::{ProductOps, multiply};
pub use rms_norm::{RmsNormOps, rms_norm};
pub use rotary::{RotaryOps, rotary};
pub(crate) use scoped::scoped;
pub use softmax::{SoftmaxOps, softmax};
pub use stages::sum_of_all;
pub use tolerance::{mixed_tolerance, product_rounding, tolerance};
pub use tuning::Tuning;
