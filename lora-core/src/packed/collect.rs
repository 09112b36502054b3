//! Finding the packed weights of a module.

use super::{COMPONENT, PackedWeight};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};
use std::any::Any;
use std::collections::BTreeMap;

/// The packed weights of a module, by the path of the parameter that they are the value of. They share memory with the
/// module.
pub(crate) fn of_module<M: Module>(module: &M) -> BTreeMap<String, PackedWeight> {
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.found
}

/// Whether a path leads into a packed weight.
pub(crate) fn within(path: &[String], containers: &[String]) -> bool {
    let mut containers = containers.iter();
    // `weight.packed.…`, or within an adapter `weight.lora.packed.…`.
    let depth = containers.position(|container| container == "Reparameterization");
    depth.is_some_and(|depth| path[depth..].iter().take(2).any(|name| name == COMPONENT))
}

#[derive(Default)]
struct Collect {
    path: Vec<String>,
    containers: Vec<String>,
    /// The matrix visited last, which what is put on parameters is on.
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
        if within(&self.path, &self.containers) {
            self.codes = (param as &dyn Any).downcast_ref().cloned();
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if within(&self.path, &self.containers) {
            let scales: Option<&Param<Tensor<1>>> = (param as &dyn Any).downcast_ref();
            let parts = (self.codes.take(), scales, &self.matrix);
            let (Some(codes), Some(scales), Some((path, shape))) = parts else {
                return;
            };
            if let Some(packed) = PackedWeight::of_parts(codes, scales.clone(), *shape) {
                self.found.insert(path.clone(), packed);
            }
        } else if !self.containers.iter().any(|c| c == "Reparameterization") {
            let shape = param.lazy_shape();
            self.matrix = (D == 2).then(|| (self.path.join("."), [shape[0], shape[1]]));
        }
    }
}
