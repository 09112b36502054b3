//! The values of adapters and of the base below them, read from a module to the host.

use crate::layout::{ADAPTER_COMPONENT, is_in_packed, reparameterization_depth};
use crate::quantize::packed_weights;
use burn::module::{Module, ModuleVisitor, Param};
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
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.factors
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
    let mut find = Find {
        path: Vec::new(),
        parameter,
        most,
        found: None,
    };
    module.visit(&mut find);
    find.found
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    containers: Vec<String>,
    factors: Vec<Factor>,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(depth) = reparameterization_depth(&self.containers) else {
            return;
        };
        if self.path[depth] == ADAPTER_COMPONENT && !is_in_packed(&self.path, &self.containers) {
            let elements = param.lazy_shape().num_elements();
            self.factors.push(Factor {
                parameter: self.path[..depth].join("."),
                name: self.path[depth + 1..].join("."),
                value: param.val().reshape([elements]),
            });
        }
    }
}

struct Find<'a> {
    path: Vec<String>,
    parameter: &'a str,
    most: usize,
    found: Option<Vec<f32>>,
}

impl ModuleVisitor for Find<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.join(".") == self.parameter {
            let base = param.base();
            let data = match base.shape().num_elements() {
                all if all > self.most => base.reshape([all]).narrow(0, 0, self.most).into_data(),
                _ => base.into_data(),
            };
            self.found = data.convert::<f32>().try_to_vec().ok();
        }
    }
}
