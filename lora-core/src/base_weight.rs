//! The frozen weight below the adapters of a linear layer, as it lies in memory.

use crate::ops::{linear, lora_linear};
use crate::packed::PackedWeight;
use burn::module::Param;
use burn::tensor::{DType, Device, Tensor};

/// The frozen weight of a linear layer, `[d_in, d_out]`.
#[allow(clippy::large_enum_variant)] // One at a time, for a forward pass.
pub(crate) enum BaseWeight<'a> {
    /// Numbers.
    Dense(Tensor<2>),
    /// In few bits: what the parameter itself holds is a placeholder then.
    Packed(&'a PackedWeight),
}

impl<'a> BaseWeight<'a> {
    /// That of a parameter, which is a placeholder where there is a packed one.
    pub fn of(weight: &Param<Tensor<2>>, packed: Option<&'a PackedWeight>) -> Self {
        match packed {
            Some(packed) => Self::Packed(packed),
            None => Self::Dense(weight.base()),
        }
    }

    /// Its values: of a packed one, a new tensor each time.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(w) => w.clone(),
            Self::Packed(packed) => packed.dequantize(),
        }
    }

    pub fn d_out(&self) -> usize {
        match self {
            Self::Dense(w) => w.dims()[1],
            Self::Packed(packed) => packed.shape()[1],
        }
    }

    pub fn device(&self) -> Device {
        match self {
            Self::Dense(w) => w.device(),
            Self::Packed(packed) => packed.device(),
        }
    }

    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(w) => w.dtype(),
            Self::Packed(_) => DType::F32,
        }
    }

    /// `x W + b`.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match self {
            Self::Dense(w) => linear(x, w.clone(), bias),
            Self::Packed(packed) => packed.linear(x, bias),
        }
    }

    /// `x W + scale · (adapter_x A) B + bias`.
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
            // The same operations in the same order, so that the numbers are those of the dense weight.
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
