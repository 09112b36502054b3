//! The bias of an adapter: [`LoraBias`].

use super::low_rank::widened;
use super::switch::AdapterSwitch;
use crate::layout::ADAPTER_COMPONENT;
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

/// A bias on the factor `B`, PEFT's `lora_bias`: `y = x W + b + s (x A B + value)`.
///
/// It lives on the layer's own bias, so that any layer that reads that bias reads the sum, and a merge adds it.
#[derive(Module, Debug)]
pub struct LoraBias {
    /// Trainable values, `[d_out]`.
    pub value: Param<Tensor<1>>,
    /// Factor that the values are multiplied by: the adapter's scale.
    pub(crate) scale: f64,
    #[module(skip)]
    pub(crate) switch: AdapterSwitch,
}

impl Reparameterization for LoraBias {
    const NAME: &'static str = ADAPTER_COMPONENT;

    /// Returns `base + scale · value`, or `base` itself while the adapter is disabled. The sum with a half-precision base is
    /// taken in f32 and rounded once.
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
