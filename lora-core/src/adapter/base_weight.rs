//! The frozen weight of a layer, dense or packed: [`BaseWeight`].

use crate::ops::{CrossEntropy, HeadLoss, head_loss, linear, lora_linear};
use crate::quantize::PackedWeight;
use burn::module::Param;
use burn::tensor::module::{embedding, linear as project};
use burn::tensor::{DType, Device, Int, Tensor};

/// The frozen weight of a linear layer, `[d_in, d_out]`, or of an embedding, `[rows, d_model]`.
#[allow(clippy::large_enum_variant)] // It lives for a forward pass only.
pub(crate) enum BaseWeight<'a> {
    /// Floats.
    Dense(Tensor<2>),
    /// Packed values: the parameter itself holds a placeholder.
    Packed(&'a PackedWeight),
}

impl<'a> BaseWeight<'a> {
    /// Returns the packed weight if there is one, else the parameter's own.
    pub fn new(weight: &Param<Tensor<2>>, packed: Option<&'a PackedWeight>) -> Self {
        match packed {
            Some(packed) => Self::Packed(packed),
            None => Self::Dense(weight.base()),
        }
    }

    /// Returns the weight as floats; a packed weight is dequantized anew each time.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(w) => w.clone(),
            Self::Packed(packed) => packed.dequantize(),
        }
    }

    /// Returns the number of outputs.
    pub fn d_out(&self) -> usize {
        match self {
            Self::Dense(w) => w.dims()[1],
            Self::Packed(packed) => packed.shape()[1],
        }
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(w) => w.device(),
            Self::Packed(packed) => packed.device(),
        }
    }

    /// Returns the float type of [`dense`](Self::dense).
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(w) => w.dtype(),
            Self::Packed(_) => DType::F32,
        }
    }

    /// Returns `x W + b`.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match self {
            Self::Dense(w) => linear(x, w.clone(), bias),
            Self::Packed(packed) => packed.linear(x, bias),
        }
    }

    /// Returns `x W + scale · (adapter_x A) B + bias`.
    pub fn adapted<const D: usize>(
        &self,
        x: Tensor<D>,
        adapter_x: Tensor<D>,
        [a, b]: [Tensor<2>; 2],
        bias: Option<Tensor<1>>,
        scale: f64,
    ) -> Tensor<D> {
        match self {
            Self::Dense(w) => lora_linear(x, adapter_x, w.clone(), a, b, bias, scale),
            // The same operations in the same order: the results equal those of the dense weight.
            Self::Packed(packed) => {
                let y = packed.adapted(x, adapter_x, [a, b], scale);
                match bias {
                    None => y,
                    Some(bias) => y + bias.unsqueeze(),
                }
            }
        }
    }

    /// Returns the rows `W[ids]` of an embedding.
    pub fn embedding(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match self {
            Self::Dense(w) => embedding(w.clone(), ids),
            Self::Packed(packed) => packed.embedding(ids),
        }
    }

    /// Returns `x Wᵀ`: the logits of an output layer that is tied to an embedding.
    pub fn linear_transposed<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Dense(w) => project(x, w.clone().transpose(), None),
            Self::Packed(packed) => packed.linear_transposed(x),
        }
    }

    /// Computes the cross entropy of hidden states through `W`, or through `Wᵀ`.
    pub fn head_loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        options: &CrossEntropy,
        transpose: bool,
    ) -> HeadLoss {
        match self {
            Self::Dense(w) if transpose => {
                head_loss(hidden, w.clone().transpose(), targets, options)
            }
            Self::Dense(w) => head_loss(hidden, w.clone(), targets, options),
            // The operation has parts of 16-bit floats.
            Self::Packed(packed) if !packed.format().is_half() => {
                head_loss(hidden, packed.dequantize(), targets, options)
            }
            Self::Packed(packed) => packed.head_loss(hidden, targets, options, transpose),
        }
    }
}
