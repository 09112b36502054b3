//! The walk that finds the packed weights of a module.

use super::weight::PackedWeight;
use crate::layout::{Place, Visit, visit};
use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor};
use std::any::Any;
use std::collections::BTreeMap;

/// Returns the packed weights of a module, by the path of their parameter. They share memory with the module.
pub(crate) fn packed_weights<M: Module>(module: &M) -> BTreeMap<String, PackedWeight> {
    visit(module, Collect::default()).found
}

#[derive(Default)]
struct Collect {
    /// Path and shape of the matrix visited last, and true for that of an embedding: packed values belong to it.
    matrix: Option<(String, [usize; 2], bool)>,
    codes: Option<Param<Tensor<1, Int>>>,
    found: BTreeMap<String, PackedWeight>,
}

impl Visit for Collect {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if place.is_packed() {
            let floats: Option<&Param<Tensor<1>>> = (param as &dyn Any).downcast_ref();
            let parts = (self.codes.take(), floats, &self.matrix);
            let (Some(codes), Some(floats), Some((path, shape, of_embedding))) = parts else {
                return;
            };
            let is_half = place.path().ends_with(".half");
            let packed =
                PackedWeight::from_parts(codes, floats.clone(), is_half, *of_embedding, *shape);
            if let Some(packed) = packed {
                self.found.insert(path.clone(), packed);
            }
        } else if !place.is_attached() {
            let shape = param.lazy_shape();
            let of_embedding = place.layer() == "LoraEmbedding";
            self.matrix = (D == 2).then(|| (place.path(), [shape[0], shape[1]], of_embedding));
        }
    }

    fn int<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D, Int>>) {
        if place.is_packed() {
            self.codes = (param as &dyn Any).downcast_ref().cloned();
        }
    }
}
