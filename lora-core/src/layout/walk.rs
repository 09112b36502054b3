//! Walks over the parameters of a module, with the place of each.

use burn::module::{Module, ModuleVisitor, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Int, Tensor};
use std::collections::BTreeMap;

/// The path component that Burn puts before an adapter's own parameters.
pub(crate) const ADAPTER_COMPONENT: &str = "lora";
/// The path component before the parameters of a packed weight.
pub(crate) const PACKED_COMPONENT: &str = "packed";
/// The path component before the parts of a split weight.
pub(crate) const SPLIT_COMPONENT: &str = "split";

/// Place of a parameter in a module.
#[derive(Default)]
pub(crate) struct Place {
    path: Vec<String>,
    /// Types of the modules around the parameter, such as `Struct:LoraLinear`.
    containers: Vec<String>,
}

impl Place {
    /// Returns the path of the parameter.
    pub fn path(&self) -> String {
        self.path.join(".")
    }

    /// Returns the type of the layer that the parameter is directly in, such as `LoraLinear`.
    pub fn layer(&self) -> &str {
        let container = self.containers.last().map_or("", String::as_str);
        container.rsplit(':').next().unwrap_or_default()
    }

    /// Returns true if the parameter belongs to something that is put on a parameter, such as an adapter.
    pub fn is_attached(&self) -> bool {
        self.depth().is_some()
    }

    /// Returns true if the parameter belongs to a packed weight.
    pub fn is_packed(&self) -> bool {
        // `weight.packed.…`, or within an adapter `weight.lora.packed.…`.
        self.depth().is_some_and(|depth| {
            self.path[depth..]
                .iter()
                .take(2)
                .any(|c| c == PACKED_COMPONENT)
        })
    }

    /// Returns the path of the split weight that the parameter is a part of.
    pub fn split_weight(&self) -> Option<String> {
        let depth = self.depth()?;
        (self.path[depth] == SPLIT_COMPONENT).then(|| self.path[..depth].join("."))
    }

    /// Returns true if the parameter holds values of the weight that it is put on: it belongs to a packed or split weight.
    pub fn is_storage(&self) -> bool {
        self.is_packed() || self.split_weight().is_some()
    }

    /// Returns the path of the adapted parameter, and the path within its adapter.
    pub fn in_adapter(&self) -> Option<(String, String)> {
        let depth = self.depth().filter(|_| !self.is_packed())?;
        (self.path[depth] == ADAPTER_COMPONENT).then(|| {
            let (parameter, name) = self.path.split_at(depth);
            (parameter.join("."), name[1..].join("."))
        })
    }

    /// Returns the number of components before what is put on a parameter.
    fn depth(&self) -> Option<usize> {
        self.containers
            .iter()
            .position(|c| c == "Reparameterization")
    }
}

/// A visitor of parameters.
pub(crate) trait Visit {
    /// Visits a float parameter.
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>);

    /// Visits an integer parameter.
    fn int<const D: usize>(&mut self, _place: &Place, _param: &Param<Tensor<D, Int>>) {}
}

/// Visits the parameters of a module in its order, and returns the visitor.
pub(crate) fn visit<M: Module, V: Visit>(module: &M, visitor: V) -> V {
    let mut walk = Walk {
        place: Place::default(),
        visitor,
    };
    module.visit(&mut walk);
    walk.visitor
}

struct Walk<V> {
    place: Place,
    visitor: V,
}

impl<V: Visit> ModuleVisitor for Walk<V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.path.push(name.into());
        self.place.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.place.path.pop();
        self.place.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor.float(&self.place, param);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.visitor.int(&self.place, param);
    }
}

/// Puts reparameterizations on the parameters of a module, by path.
pub(crate) fn put<M: Module, R: Reparameterization>(module: M, by_path: BTreeMap<String, R>) -> M {
    struct Put<R>(BTreeMap<String, R>);
    impl<R: Reparameterization> Reparameterizer for Put<R> {
        type Reparam = R;

        fn reparameterize<const D: usize>(
            &mut self,
            path: &str,
            param: Param<Tensor<D>>,
        ) -> (Param<Tensor<D>>, Option<R>) {
            (param, self.0.remove(path))
        }
    }
    if by_path.is_empty() {
        module
    } else {
        module.apply_reparameterization(Put(by_path))
    }
}
