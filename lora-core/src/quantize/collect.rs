//! The walk that finds the packed weights of a module.

use super::weight::PackedWeight;
use crate::layout::{is_in_packed, reparameterization_depth};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};
use std::any::Any;
use std::collections::BTreeMap;

/// Returns the packed weights of a module, by the path of their parameter. They share memory with the module.
pub(crate) fn packed_weights<M: Module>(module: &M) -> BTreeMap<String, PackedWeight> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.found
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    containers: Vec<String>,
    /// Path and shape of the matrix visited last: packed values belong to it.
    matrix: Option<(String, [usize; 2])>,
    codes: Option<Param<Tensor<1, Int>>>,
    found: BTreeMap<String, PackedWeight>,
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

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        if is_in_packed(&self.path, &self.containers) {
            self.codes = (param as &dyn Any).downcast_ref().cloned();
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if is_in_packed(&self.path, &self.containers) {
            let scales: Option<&Param<Tensor<1>>> = (param as &dyn Any).downcast_ref();
            let parts = (self.codes.take(), scales, &self.matrix);
            let (Some(codes), Some(scales), Some((path, shape))) = parts else {
                return;
            };
            if let Some(packed) = PackedWeight::from_parts(codes, scales.clone(), *shape) {
                self.found.insert(path.clone(), packed);
            }
        } else if reparameterization_depth(&self.containers).is_none() {
            let shape = param.lazy_shape();
            self.matrix = (D == 2).then(|| (self.path.join("."), [shape[0], shape[1]]));
        }
    }
}
