//! The frozen weight of a layer, dense, packed or in parts: [`BaseWeight`].

use super::low_rank::LowRankAdapter;
use super::set::AdapterSet;
use super::token_rows::TokenRows;
use crate::ops::{
    CrossEntropy, HeadLoss, head_loss, head_loss_in_parts, linear, lora_linear, operand,
};
use crate::quantize::PackedWeight;
use crate::split::SplitWeight;
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
    /// Parts of rows: the parameter itself holds a placeholder.
    Split(&'a SplitWeight),
}

/// Returns the packed weight that is on a parameter, or in the adapters on it.
pub(crate) fn packed_weight(weight: &Param<Tensor<2>>) -> Option<&PackedWeight> {
    if let Some(adapter) = weight.reparameterization::<LowRankAdapter>() {
        return adapter.packed.as_ref();
    }
    match AdapterSet::on(weight) {
        Some(set) => set.packed(),
        None => weight.reparameterization::<PackedWeight>(),
    }
}

impl<'a> BaseWeight<'a> {
    /// Returns the weight below the adapters.
    pub fn below_adapters(weight: &'a Param<Tensor<2>>) -> Self {
        Self::stored(weight).unwrap_or_else(|| Self::Dense(weight.base()))
    }

    /// Returns the weight of a layer without an active low-rank adapter. It may be trained as a whole.
    pub fn whole(weight: &'a Param<Tensor<2>>) -> Self {
        Self::stored(weight).unwrap_or_else(|| Self::Dense(weight.val()))
    }

    /// Returns the weight without the low-rank update of the active adapter.
    pub fn without_update(weight: &'a Param<Tensor<2>>) -> Self {
        if weight.reparameterization::<TokenRows>().is_some() {
            return Self::Dense(weight.val());
        }
        let base = Self::below_adapters(weight);
        match AdapterSet::on(weight).and_then(AdapterSet::active) {
            Some(entry) if entry.replaces() => Self::Dense(entry.without_update(base.dense())),
            _ => base,
        }
    }

    /// Returns the weight that is elsewhere than in the parameter itself.
    fn stored(weight: &'a Param<Tensor<2>>) -> Option<Self> {
        match packed_weight(weight) {
            Some(packed) => Some(Self::Packed(packed)),
            None => SplitWeight::on(weight).map(Self::Split),
        }
    }

    /// Returns the weight as floats; a packed weight is dequantized and parts are joined anew each time.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(w) => w.clone(),
            Self::Packed(packed) => packed.dequantize(),
            Self::Split(split) => split.joined(),
        }
    }

    /// Returns the number of outputs.
    pub fn d_out(&self) -> usize {
        match self {
            Self::Dense(w) => w.dims()[1],
            Self::Packed(packed) => packed.shape()[1],
            Self::Split(split) => split.d(),
        }
    }

    /// Returns the device.
    pub fn device(&self) -> Device {
        match self {
            Self::Dense(w) => w.device(),
            Self::Packed(packed) => packed.device(),
            Self::Split(split) => split.device(),
        }
    }

    /// Returns the float type of [`dense`](Self::dense).
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(w) => w.dtype(),
            Self::Packed(_) | Self::Split(_) => DType::F32,
        }
    }

    /// Returns `x W + b`.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match self {
            Self::Packed(packed) => packed.linear(x, bias),
            Self::Dense(_) | Self::Split(_) => linear(x, self.dense(), bias),
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
            // The same operations in the same order: the results equal those of the dense weight.
            Self::Packed(packed) => {
                let y = packed.adapted(x, adapter_x, [a, b], scale);
                match bias {
                    None => y,
                    Some(bias) => {
                        let dtype = y.dtype();
                        y + bias.cast(dtype).unsqueeze()
                    }
                }
            }
            Self::Dense(_) | Self::Split(_) => {
                lora_linear(x, adapter_x, self.dense(), a, b, bias, scale)
            }
        }
    }

    /// Returns the rows `W[ids]` of an embedding.
    pub fn embedding(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        match self {
            Self::Dense(w) => embedding(w.clone(), ids),
            Self::Packed(packed) => packed.embedding(ids),
            Self::Split(split) => split.embedding(ids),
        }
    }

    /// Returns `x Wᵀ`: the logits of an output layer that is tied to an embedding.
    pub fn linear_transposed<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Dense(w) => match operand(w.clone()) {
                half if half.dtype() != w.dtype() => linear(x, half.transpose(), None),
                w => project(x, w.transpose(), None),
            },
            Self::Packed(packed) => packed.linear_transposed(x),
            Self::Split(split) => split.linear_transposed(x),
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
            // The operation unpacks part by part.
            Self::Packed(packed) if packed.unpacks_in_parts() => {
                packed.head_loss(hidden, targets, options, transpose)
            }
            Self::Split(split) if transpose => {
                let parts = split.columns().into_iter().map(operand);
                head_loss_in_parts(hidden, parts.collect(), targets, options)
            }
            _ if transpose => {
                head_loss(hidden, operand(self.dense()).transpose(), targets, options)
            }
            _ => head_loss(hidden, self.dense(), targets, options),
        }
    }
}
