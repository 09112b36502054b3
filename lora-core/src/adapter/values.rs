//! The adapters in a module, and the values of the base below them, read to the host.

use super::bias::LoraBias;
use super::low_rank::LowRankAdapter;
use crate::layout::{Place, Visit, visit};
use crate::quantize::packed_weights;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use std::collections::HashMap;

/// Adapters of a module, by the path of their parameter.
#[derive(Default)]
pub(crate) struct AttachedAdapters {
    /// Factors on weights.
    pub adapters: HashMap<String, LowRankAdapter>,
    /// Biases on biases.
    pub biases: HashMap<String, LoraBias>,
}

impl AttachedAdapters {
    /// Collects the adapters of a module.
    pub fn new<M: Module>(module: &M) -> Self {
        visit(module, Self::default())
    }
}

impl Visit for AttachedAdapters {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if let Some(adapter) = param.reparameterization::<LowRankAdapter>() {
            self.adapters.insert(place.path(), adapter.clone());
        }
        if let Some(bias) = param.reparameterization::<LoraBias>() {
            self.biases.insert(place.path(), bias.clone());
        }
    }
}

/// Returns the values of the parameter at a path, row-major, without its adapter; a packed weight is dequantized.
pub(crate) fn base_value<M: Module>(module: &M, parameter: &str) -> Option<Vec<f32>> {
    base_head(module, parameter, usize::MAX)
}

/// Returns the first values, at most `most`, of the parameter at a path, as [`base_value`] does.
pub(crate) fn base_head<M: Module>(module: &M, parameter: &str, most: usize) -> Option<Vec<f32>> {
    if let Some(packed) = packed_weights(module).remove(parameter) {
        return packed.dequantize().into_data().try_to_vec().ok();
    }
    let find = Find {
        parameter,
        most,
        found: None,
    };
    visit(module, find).found
}

struct Find<'a> {
    parameter: &'a str,
    most: usize,
    found: Option<Vec<f32>>,
}

impl Visit for Find<'_> {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if place.path() == self.parameter {
            let base = param.base();
            let data = match base.shape().num_elements() {
                all if all > self.most => base.reshape([all]).narrow(0, 0, self.most).into_data(),
                _ => base.into_data(),
            };
            self.found = data.convert::<f32>().try_to_vec().ok();
        }
    }
}
