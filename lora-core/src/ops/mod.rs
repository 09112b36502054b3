//! Arithmetic of LoRA as an extension of Burn's [`Backend`](burn::backend::Backend) trait.
//!
//! This is the only place of the workspace that names backends. Everything above takes a
//! [`Device`](burn::tensor::Device).
//!
//! - [`LoraOps`] says what a backend must be able to do; the default is composed of operations
//!   that every backend has.
//! - One backward pass, written for `Autodiff<B>`, serves all of them.
//! - [`lora_linear`] is the same on [`Tensor`](burn::tensor::Tensor)s.
//!
//! Likewise for what else a training step of a transformer is made of:
//!
//! | trait | on tensors | what it is |
//! | --- | --- | --- |
//! | [`AttentionOps`] | [`ScaledDotProduct`] | attention that keeps no scores |
//! | [`HeadLossOps`] | [`head_loss`] | a projection with its cross entropy, without all logits at once |
//! | [`LinearOps`] | [`linear`] | a linear layer, frozen or not |
//! | [`LayerNormOps`] | [`layer_norm`] | layer normalisation |
//! | [`DropoutOps`] | [`Dropout`] | dropout that keeps no mask |
//! | [`GeluOps`] | [`gelu`], [`gelu_tanh`] | GELU, exact and by tanh |
//! | [`PackedOps`] | [`PackedWeight`](crate::PackedWeight) | a linear layer whose frozen weight stays packed |
//! | [`SoftmaxOps`] | [`softmax`] | softmax |

#[allow(deprecated)] // Burn deprecates ndarray; it is offered as long as Burn has it.
mod attention;
mod autodiff;
#[allow(deprecated)] // As above.
mod dropout;
mod dropout_layer;
#[allow(deprecated)] // As above.
mod gelu;
#[cfg(feature = "flex")]
mod gemm;
#[allow(deprecated)] // As above.
mod head_loss;
mod host;
#[cfg(feature = "host")]
mod kernels;
#[allow(deprecated)] // As above.
mod layer_norm;
mod limits;
#[allow(deprecated)] // As above.
mod linear;
#[allow(deprecated)] // As above.
mod lora_linear;
#[allow(deprecated)] // As above.
pub(crate) mod packed;
#[allow(deprecated)] // As above.
mod softmax;
#[cfg(feature = "flex")]
mod whole;

pub use attention::{AttentionOps, AttentionOptions, ScaledDotProduct, Segments};
pub use dropout::DropoutOps;
pub use dropout_layer::Dropout;
pub use gelu::{GeluKind, GeluOps, gelu, gelu_tanh};
pub use head_loss::{
    CrossEntropy, HeadGradients, HeadLoss, HeadLossOps, head_loss, loss_of_logits,
};
pub(crate) use host::{dropout_mask, is_on_host};
pub use layer_norm::{LayerNormOps, layer_norm};
pub use limits::{device_memory_bytes, max_buffer_bytes};
pub use linear::{LinearOps, linear};
pub use lora_linear::{LoraOps, lora_linear};
pub use packed::PackedOps;
pub use softmax::{SoftmaxOps, softmax};
