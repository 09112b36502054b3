//! Arithmetic of LoRA as an extension of Burn's [`Backend`](burn::backend::Backend) trait.
//!
//! This is the only place of the workspace that names backends. Everything above takes a
//! [`Device`](burn::tensor::Device).
//!
//! - [`LoraOps`] says what a backend must be able to do; the default is composed of operations
//!   that every backend has.
//! - One backward pass, written for `Autodiff<B>`, serves all of them.
//! - [`lora_linear`] is the same on [`Tensor`](burn::tensor::Tensor)s.
//! - [`GeluOps`] and [`gelu`] likewise for the exact GELU, [`SoftmaxOps`] and [`softmax`] for softmax.
//! - [`PackedOps`]: linear layers whose frozen weight stays packed; [`PackedWeight`](crate::PackedWeight) uses it.

mod autodiff;
#[allow(deprecated)] // Burn deprecates ndarray; it is offered as long as Burn has it.
mod gelu;
mod host;
#[cfg(feature = "host")]
mod kernels;
mod limits;
#[allow(deprecated)] // Burn deprecates ndarray; it is offered as long as Burn has it.
mod lora_linear;
#[allow(deprecated)] // As above.
pub(crate) mod packed;
#[allow(deprecated)] // As above.
mod softmax;

pub use gelu::{GeluOps, gelu};
pub(crate) use host::{dropout_mask, is_on_host};
pub use limits::max_buffer_bytes;
pub use lora_linear::{LoraOps, lora_linear};
pub use packed::PackedOps;
pub use softmax::{SoftmaxOps, softmax};
