//! What a module is made of: the matrices an adapter can be put on, and their paths.

use crate::Architecture;
use crate::hash::stable_hash;
use crate::packed;
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
    /// Name of the module, as Python calls it: that of the parameter without its last component
    /// `weight`.
    pub module: String,
    /// Path of the parameter.
    pub parameter: String,
    pub kind: LayerKind,
    pub path: AdapterPath,
    pub shape: [usize; 2],
    /// Whether it is the weight of a linear layer, not some other matrix of a module.
    pub is_linear_layer: bool,
    /// Path of the layer's bias.
    pub bias: Option<String>,
    /// Whether an adapter is on it already.
    pub adapted: bool,
}

/// Any float parameter of a module, those of adapters left out.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub path: String,
    /// Its name in files.
    pub name: String,
    pub shape: Vec<usize>,
    /// Whether it lies the other way round in files.
    pub transposed: bool,
}

/// The parameters of a module, in its order.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    /// The matrices that can be adapted.
    pub matrices: Vec<Matrix>,
    /// All of them.
    pub all: Vec<Parameter>,
}

/// The parameters of a module.
pub(crate) fn parameters<M: Module>(module: &M, architecture: &Architecture) -> Parameters {
    let mut walk = Walk::new(architecture);
    module.visit(&mut walk);
    walk.parameters
}

/// The value of the parameter at a path, row-major, without its adapter; of a packed one, what it stands for.
pub(crate) fn base_value<M: Module>(module: &M, parameter: &str) -> Option<Vec<f32>> {
    base_head(module, parameter, usize::MAX)
}

/// The first values, at most `most`, of the parameter at a path, row-major, without its adapter.
pub(crate) fn base_head<M: Module>(module: &M, parameter: &str, most: usize) -> Option<Vec<f32>> {
    struct Find<'a> {
        path: Vec<String>,
        wanted: &'a str,
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
            if self.path.join(".") == self.wanted {
                let base = param.base();
                let data = match base.shape().num_elements() {
                    all if all > self.most => {
                        base.reshape([all]).narrow(0, 0, self.most).into_data()
                    }
                    _ => base.into_data(),
                };
                self.found = data.convert::<f32>().try_to_vec().ok();
            }
        }
    }
    if let Some(packed) = packed::of_module(module).remove(parameter) {
        return packed.dequantize().into_data().try_to_vec().ok();
    }
    let mut find = Find {
        path: Vec::new(),
        wanted: parameter,
        most,
        found: None,
    };
    module.visit(&mut find);
    find.found
}

/// The path component that Burn puts before an adapter's own parameters.
pub(crate) const ADAPTER_COMPONENT: &str = "lora";

struct Walk<'a> {
    architecture: &'a Architecture,
    path: Vec<String>,
    /// Types of the modules around the parameter, such as `Struct:LoraLinear`.
    containers: Vec<String>,
    parameters: Parameters,
}

impl<'a> Walk<'a> {
    fn new(architecture: &'a Architecture) -> Self {
        Self {
            architecture,
            path: Vec::new(),
            containers: Vec::new(),
            parameters: Parameters::default(),
        }
    }

    /// Notes a parameter of an adapter, `true` where it is one.
    fn adapter(&mut self) -> bool {
        if packed::within(&self.path, &self.containers) {
            return true; // The matrix itself, in fewer bits.
        }
        let mut containers = self.containers.iter();
        if !containers.any(|c| c == "Reparameterization") {
            return false;
        }
        // The matrix visited last is the one that this adapter is on.
        if let Some(matrix) = self.parameters.matrices.last_mut() {
            matrix.adapted = true;
        }
        true
    }
}

/// `a.b.weight` → `a.b`: where the layer ends and the parameter begins.
fn module_path(parameter: &str) -> String {
    parameter
        .strip_suffix(".weight")
        .unwrap_or(parameter)
        .to_string()
}

impl ModuleVisitor for Walk<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.adapter() {
            return;
        }
        let container = self.containers.last().map_or("", String::as_str);
        let container = container.rsplit(':').next().unwrap_or_default();
        let shape = param.lazy_shape();
        let path = self.path.join(".");
        let name = self.architecture.tensor_name(&path);
        let module = module_path(&name);
        let is_linear_layer = matches!(container, "Linear" | "LoraLinear");
        let transposed = D == 2 && is_linear_layer && !self.architecture.is_conv1d(&module);
        self.parameters.all.push(Parameter {
            path: path.clone(),
            name,
            shape: shape.to_vec(),
            transposed,
        });
        if let (Some(layer), true) = (path.strip_suffix(".bias"), is_linear_layer) {
            // Burn's layers have their weight first.
            let weight = self.parameters.matrices.last_mut();
            let of_layer = weight.filter(|w| w.parameter.strip_suffix(".weight") == Some(layer));
            if let Some(weight) = of_layer {
                weight.bias = Some(path);
            }
            return;
        }
        if D != 2 {
            return;
        }
        let (kind, adapter_path) = match container {
            "LoraLinear" => (LayerKind::Linear, AdapterPath::Activation),
            "LoraEmbedding" => (LayerKind::Embedding, AdapterPath::Activation),
            "Embedding" => (LayerKind::Embedding, AdapterPath::Composed),
            _ => (LayerKind::Linear, AdapterPath::Composed),
        };
        self.parameters.matrices.push(Matrix {
            module,
            parameter: path,
            kind,
            path: adapter_path,
            shape: [shape[0], shape[1]],
            is_linear_layer,
            bias: None,
            adapted: false,
        });
    }
}
