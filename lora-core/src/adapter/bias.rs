//! The bias that an adapter adds to its layer's.

use super::{AdapterSwitch, widened};
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

/// A bias on the factor `B`, PEFT's `lora_bias`: `y = x W + b + s (x A B + value)`.
///
/// It lives on the layer's own bias, which it is a sum with, so that whatever reads that bias reads
/// both, and a merge adds it.
#[derive(Module, Debug)]
pub struct LoraBias {
    /// `[d_out]`.
    pub value: Param<Tensor<1>>,
    /// What it is multiplied by: the adapter's own.
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) switch: AdapterSwitch,
}

impl Reparameterization for LoraBias {
    const NAME: &'static str = crate::modules::ADAPTER_COMPONENT;

    /// `base + scale · value`, or `base` itself while the adapter is off. A half-precision base is added to
    /// in f32 and rounded once.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if !self.switch.is_active() {
            return base;
        }
        let value = widened(self.value.val()).mul_scalar(self.scale);
        let dtype = base.dtype();
        let value = value.reshape(base.shape());
        (widened(base) + value).cast(dtype)
    }
}
