//! The adapters in a module, and the values of the base below them, read to the host.

use super::bias::LoraBias;
use super::low_rank::LowRankAdapter;
use crate::quantize::packed_weights;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::collections::HashMap;

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
        let mut collect = Collect::default();
        module.visit(&mut collect);
        collect.found
    }
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    found: AttachedAdapters,
}

impl ModuleVisitor for Collect {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(adapter) = param.reparameterization::<LowRankAdapter>() {
            self.found
                .adapters
                .insert(self.path.join("."), adapter.clone());
        }
        if let Some(bias) = param.reparameterization::<LoraBias>() {
            self.found.biases.insert(self.path.join("."), bias.clone());
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
