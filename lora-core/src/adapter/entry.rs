//! One adapter of a set on one parameter: [`AdapterEntry`].

use super::bias::LoraBias;
use super::low_rank::LowRankAdapter;
use super::scope::Key;
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

/// One adapter of a set on one parameter.
#[derive(Module, Debug)]
pub(crate) struct AdapterEntry {
    #[module(skip)]
    pub key: Key,
    /// Fully trained value in the place of the parameter, row-major.
    pub full: Option<Param<Tensor<1>>>,
    /// Factors on a weight.
    pub factors: Option<LowRankAdapter>,
    /// Bias on the bias of an adapted layer.
    pub bias: Option<LoraBias>,
}

impl AdapterEntry {
    /// Creates an entry without effect.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            full: None,
            factors: None,
            bias: None,
        }
    }

    /// Returns the fully trained value, or else the base: the parameter without low-rank update.
    pub fn full_or<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        match &self.full {
            None => base,
            Some(full) => full.val().reshape(base.shape()).cast(base.dtype()),
        }
    }

    /// Returns the parameter with this adapter.
    pub fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let mut value = self.full_or(base);
        if let Some(factors) = &self.factors {
            value = factors.apply(value);
        }
        if let Some(bias) = &self.bias {
            value = bias.apply(value);
        }
        value
    }
}
