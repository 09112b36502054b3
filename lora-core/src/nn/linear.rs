//! A linear layer that reads its adapter on the activation path.

use crate::adapter::{Active, BaseWeight, LowRankAdapter, active, is_adapted, packed_weight};
use crate::ops::{CrossEntropy, HeadLoss};
use crate::quantize::PackedWeight;
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};

/// Configuration of a [`LoraLinear`].
#[derive(Config, Debug)]
pub struct LoraLinearConfig {
    /// Size of the input features.
    pub d_input: usize,
    /// Size of the output features.
    pub d_output: usize,
    /// Adds a bias. Default true.
    #[config(default = true)]
    pub bias: bool,
}

/// `y = x W + b`, and with an adapter `y = x W + b + s (drop(x) A) B`, Hu et al. 2021, equation (3).
///
/// Without an adapter it computes Burn's [`Linear`], with the same parameters under the same names.
/// [`attach`](crate::attach()) puts the adapter on `weight`, and a [`LoraBias`](crate::LoraBias) on `bias`.
#[derive(Module, Debug)]
pub struct LoraLinear {
    /// Weight, `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// Bias, `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl LoraLinearConfig {
    /// Creates a layer, initialized as by Burn's [`LinearConfig`].
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
    /// Returns the adapter on the weight.
    pub fn adapter(&self) -> Option<&LowRankAdapter> {
        self.weight.reparameterization::<LowRankAdapter>()
    }

    /// Returns true if an adapter, or a set of adapters, is on the weight.
    pub fn is_adapted(&self) -> bool {
        is_adapted(&self.weight)
    }

    /// Returns the packed weight, if it is quantized or in 16 bits.
    pub fn packed(&self) -> Option<&PackedWeight> {
        packed_weight(&self.weight)
    }

    /// Computes the cross entropy of hidden states through this layer as an output layer, as
    /// [`head_loss`](crate::ops::head_loss) does; without its adapter and bias.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d_input]`, `targets`: `[rows]`
    pub fn head_loss(
        &self,
        hidden: Tensor<2>,
        targets: Tensor<1, Int>,
        options: &CrossEntropy,
    ) -> HeadLoss {
        BaseWeight::whole(&self.weight).head_loss(hidden, targets, options, false)
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - `x`: `[..., d_input]`
    /// - returns `[..., d_output]`
    ///
    /// In a batch with an adapter for each example
    /// ([`NamedAdapters::per_example`](crate::named::NamedAdapters::per_example)), the first axis of `x` is the batch, or
    /// 1 for an input that all examples share; the output has the whole batch. With two axes, the first may also be a multiple
    /// of the batch: the rows of one example after those of another.
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_input`, or the first does not fit such a batch.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = || self.bias.as_ref().map(Param::val);
        let base = || BaseWeight::below_adapters(&self.weight);
        match active(&self.weight, self.bias.as_ref()) {
            Active::PerExample(batch) => batch.linear(x, &base()),
            Active::One(adapter) => adapter.linear(x, &base(), bias()),
            Active::None => BaseWeight::whole(&self.weight).linear(x, bias()),
        }
    }
}
