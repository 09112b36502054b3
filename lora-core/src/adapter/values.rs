//! The values of adapters and of the base below them, read from a module to the host.

use crate::layout::{Place, Visit, visit};
use crate::quantize::packed_weights;
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A parameter of an adapter in a module.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    /// Path of the parameter that the adapter is on.
    pub parameter: String,
    /// Path in the adapter, such as `a` or `start.a`.
    pub name: String,
    /// The values, row-major.
    pub value: Tensor<1>,
}

/// Lists the parameters of the adapters in a module, in its order.
pub(crate) fn factors<M: Module>(module: &M) -> Vec<Factor> {
    struct Collect(Vec<Factor>);
    impl Visit for Collect {
        fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
            if let Some((parameter, name)) = place.in_adapter() {
                let elements = param.lazy_shape().num_elements();
                self.0.push(Factor {
                    parameter,
                    name,
                    value: param.val().reshape([elements]),
                });
            }
        }
    }
    visit(module, Collect(Vec::new())).0
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
