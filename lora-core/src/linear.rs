//! A linear layer that reads its adapter on the activation path.

use crate::base_weight::BaseWeight;
use crate::ops::linear;
use crate::{LowRankAdapter, PackedWeight, named};
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`LoraLinear`].
#[derive(Config, Debug)]
pub struct LoraLinearConfig {
    /// Size of the input features.
    pub d_input: usize,
    /// Size of the output features.
    pub d_output: usize,
    /// Whether there is a bias. Default true.
    #[config(default = true)]
    pub bias: bool,
}

/// `y = x W + b`, and with an adapter `y = x W + b + s (drop(x) A) B`, Hu et al. 2021, equation (3).
///
/// Without an adapter it is Burn's [`Linear`], with the same parameters under the same names.
/// [`attach`](crate::attach()) puts the adapter on `weight`, and a [`LoraBias`](crate::LoraBias) on `bias`.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LoraLinearConfig {
    /// A layer that starts as Burn's [`LinearConfig`] does.
    pub fn init(&self, device: &Device) -> LoraLinear {
        LinearConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .init(device)
            .into()
    }
}

impl From<Linear> for LoraLinear {
    fn from(linear: Linear) -> Self {
        Self {
            weight: linear.weight,
            bias: linear.bias,
        }
    }
}

impl LoraLinear {
    /// The adapter on the weight, if there is one.
    pub fn adapter(&self) -> Option<&LowRankAdapter> {
        self.weight.reparameterization::<LowRankAdapter>()
    }

    /// Whether an adapter, or a set of them, is on the weight.
    pub fn is_adapted(&self) -> bool {
        self.adapter().is_some() || named::is_on(&self.weight)
    }

    /// The frozen weight, where [`quantize`](crate::quantize()) has packed it.
    pub fn packed(&self) -> Option<&PackedWeight> {
        match self.adapter() {
            Some(adapter) => adapter.packed.as_ref(),
            None => named::packed_weight(&self.weight),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`: `[..., d_input]`
    /// - returns `[..., d_output]`
    ///
    /// Where each example of a batch has an adapter of its own
    /// ([`NamedAdapters::per_example`](crate::named::NamedAdapters::per_example)), the first axis of `x` is the batch, or
    /// 1 for what all examples share: the output has the batch then. Of two axes, the first is the batch or a whole
    /// number of rows for each example, one example after the other.
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_input`, or the first not the batch's where it has to be.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if let Some(y) = named::linear(&x, &self.weight, self.bias.as_ref()) {
            return y; // Each example has an adapter of its own.
        }
        let bias = self.bias.as_ref().map(Param::val);
        let base = BaseWeight::of(&self.weight, self.packed());
        match named::acting_adapter(&self.weight) {
            None => match base {
                BaseWeight::Dense(_) => linear(x, self.weight.val(), bias),
                packed => packed.linear(x, bias),
            },
            Some(adapter) => adapter.linear(x, &base, bias),
        }
    }
}
