//! The frozen weight of a linear layer, dense or packed: [`BaseWeight`].

use crate::ops::{linear, lora_linear};
use crate::quantize::PackedWeight;
use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};

/// The frozen weight of a linear layer, `[d_in, d_out]`.
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
                let low = linear(adapter_x, a, None).mul_scalar(scale);
                let y = packed.linear(x, None) + linear(low, b, None);
                match bias {
                    None => y,
                    Some(bias) => y + bias.unsqueeze(),
                }
            }
        }
    }
}
