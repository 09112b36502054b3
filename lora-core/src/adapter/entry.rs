//! One adapter of a set on one parameter: [`AdapterEntry`].

use super::bias::LoraBias;
use super::low_rank::LowRankAdapter;
use super::scope::Key;
use super::token_rows::TokenRows;
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;

/// One adapter of a set on one parameter.
#[derive(Module, Debug)]
pub(crate) struct AdapterEntry {
    #[module(skip)]
    pub key: Key,
    /// Fully trained value in the place of the parameter, row-major.
    pub full: Option<Param<Tensor<1>>>,
    /// Rows of single tokens in the place of the weight's own.
    pub rows: Option<TokenRows>,
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
            rows: None,
            factors: None,
            bias: None,
        }
    }

    /// Returns the parameter without low-rank update: the fully trained value, or else the base, with the trained rows.
    pub fn without_update<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let value = match &self.full {
            None => base,
            Some(full) => full.val().reshape(base.shape()).cast(base.dtype()),
        };
        match &self.rows {
            None => value,
            Some(rows) => rows.apply(value),
        }
    }

    /// Returns true if the parameter without low-rank update is not the base.
    pub fn replaces(&self) -> bool {
        self.full.is_some() || self.rows.is_some()
    }

    /// Returns the parameter with this adapter.
    pub fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let mut value = self.without_update(base);
        if let Some(factors) = &self.factors {
            value = factors.apply(value);
        }
        if let Some(bias) = &self.bias {
            value = bias.apply(value);
        }
        value
    }
}
