//! What one adapter does to one parameter.

use super::acting::Key;
use crate::{LoraBias, LowRankAdapter};
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

/// What one adapter does to one parameter.
#[derive(Module, Debug)]
pub(crate) struct Change {
    #[module(skip)]
    pub(super) key: Key,
    /// Stands in the parameter's place, row-major: what trained whole.
    pub(super) whole: Option<Param<Tensor<1>>>,
    /// On a weight.
    pub(super) factors: Option<LowRankAdapter>,
    /// On the bias of an adapted layer.
    pub(super) bias: Option<LoraBias>,
}

impl Change {
    pub fn new(key: Key) -> Self {
        Self {
            key,
            whole: None,
            factors: None,
            bias: None,
        }
    }

    /// The parameter without low-rank update: what trained whole, else the base's.
    pub fn whole_or<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        match &self.whole {
            None => base,
            Some(whole) => whole.val().reshape(base.shape()).cast(base.dtype()),
        }
    }

    /// The parameter under this adapter.
    pub fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let mut value = self.whole_or(base);
        if let Some(factors) = &self.factors {
            value = factors.apply(value);
        }
        if let Some(bias) = &self.bias {
            value = bias.apply(value);
        }
        value
    }
}
