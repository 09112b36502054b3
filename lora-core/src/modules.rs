//! What a module is made of: the matrices an adapter can be put on, and their paths.

use crate::init::stable_hash;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use std::fmt;

/// The kind of layer that a weight matrix belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerKind {
    /// `[d_in, d_out]`, multiplied with activations.
    Linear,
    /// `[vocabulary, dimension]`, looked up by index.
    Embedding,
}

/// How an adapter takes part in the forward pass of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterPath {
    /// The layer is a [`LoraLinear`](crate::LoraLinear) or [`LoraEmbedding`](crate::LoraEmbedding):
    /// `x W + s (x A) B`, with no dense delta.
    Activation,
    /// Any other layer reads the weight, which Burn composes as `W + s A B` at every forward.
    Composed,
}

impl fmt::Display for AdapterPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AdapterPath::Activation => "activation",
            AdapterPath::Composed => "composed",
        })
    }
}

/// The id of the parameter at `path`, the same in every process.
///
/// An optimizer keeps its state by id, so a model whose ids depend on paths alone finds the state
/// that another process saved.
pub fn param_id(path: &str) -> ParamId {
    ParamId::from(stable_hash(path))
}

/// A weight matrix that can be adapted.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    /// Path of the module: that of the parameter without its last component `weight`.
    pub module: String,
    /// Path of the parameter.
    pub parameter: String,
    pub kind: LayerKind,
    pub path: AdapterPath,
    pub shape: [usize; 2],
    /// Whether it is the weight of a linear layer, not some other matrix of a module.
    pub is_linear_layer: bool,
    /// Whether an adapter is on it already.
    pub adapted: bool,
}

/// A factor of an adapter in a module.
#[derive(Clone, Debug)]
pub(crate) struct Factor {
    pub module: String,
    pub name: String,
    pub value: Tensor<2>,
}

/// The adaptable matrices of a module, in its order.
pub(crate) fn matrices<M: Module>(module: &M) -> Vec<Matrix> {
    let mut walk = Walk::default();
    module.visit(&mut walk);
    walk.matrices
}

/// The adapter factors in a module, in its order.
pub(crate) fn factors<M: Module>(module: &M) -> Vec<Factor> {
    let mut walk = Walk::default();
    module.visit(&mut walk);
    walk.factors
}

/// The weight at a parameter's path, row-major, without its adapter.
pub(crate) fn base_weight<M: Module>(module: &M, parameter: &str) -> Option<Vec<f32>> {
    struct Find<'a> {
        path: Vec<String>,
        wanted: &'a str,
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
            if self.path.join(".") == self.wanted {
                let data = param.base().into_data().convert::<f32>();
                self.found = data.try_to_vec().ok();
            }
        }
    }
    let mut find = Find {
        path: Vec::new(),
        wanted: parameter,
        found: None,
    };
    module.visit(&mut find);
    find.found
}

/// The path component that Burn puts before an adapter's own parameters.
pub(crate) const ADAPTER_COMPONENT: &str = "lora";

#[derive(Default)]
struct Walk {
    path: Vec<String>,
    /// Types of the modules around the parameter, such as `Struct:LoraLinear`.
    containers: Vec<String>,
    matrices: Vec<Matrix>,
    factors: Vec<Factor>,
}

/// `a.b.weight` → `a.b`: where the layer ends and the parameter begins.
fn module_path(parameter: &str) -> String {
    parameter
        .strip_suffix(".weight")
        .unwrap_or(parameter)
        .to_string()
}

impl ModuleVisitor for Walk {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D != 2 {
            return;
        }
        let shape = param.lazy_shape();
        let shape = [shape[0], shape[1]];
        let reparameterization = self
            .containers
            .iter()
            .position(|c| c == "Reparameterization");
        if let Some(depth) = reparameterization {
            // The matrix visited last is the one that this adapter is on.
            if let Some(matrix) = self.matrices.last_mut() {
                matrix.adapted = true;
            }
            if self.path[depth] == ADAPTER_COMPONENT && self.path.len() == depth + 2 {
                self.factors.push(Factor {
                    module: module_path(&self.path[..depth].join(".")),
                    name: self.path[depth + 1].clone(),
                    value: param.val().reshape(shape),
                });
            }
            return;
        }
        let container = self.containers.last().map_or("", String::as_str);
        let container = container.rsplit(':').next().unwrap_or_default();
        let (kind, path) = match container {
            "LoraLinear" => (LayerKind::Linear, AdapterPath::Activation),
            "LoraEmbedding" => (LayerKind::Embedding, AdapterPath::Activation),
            "Embedding" => (LayerKind::Embedding, AdapterPath::Composed),
            _ => (LayerKind::Linear, AdapterPath::Composed),
        };
        let parameter = self.path.join(".");
        self.matrices.push(Matrix {
            module: module_path(&parameter),
            parameter,
            kind,
            path,
            shape,
            is_linear_layer: matches!(container, "Linear" | "LoraLinear"),
            adapted: false,
        });
    }
}
