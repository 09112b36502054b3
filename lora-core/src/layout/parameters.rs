//! The walk that lists the parameters of a module, and the matrices that can be adapted.

use super::architecture::Architecture;
use super::kind::{AdapterPath, LayerKind};
use super::walk::{Place, Visit, visit};
use burn::module::{Module, Param};
use burn::tensor::Tensor;

/// A weight matrix that can be adapted.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    /// Name of the module in Python: the parameter's name without its last component `weight`.
    pub module: String,
    /// Path of the parameter.
    pub parameter: String,
    pub kind: LayerKind,
    pub path: AdapterPath,
    pub shape: [usize; 2],
    /// True if it is the weight of a linear layer, not some other matrix of a module.
    pub is_linear_layer: bool,
    /// Path of the layer's bias.
    pub bias: Option<String>,
    /// True if an adapter is on it already.
    pub adapted: bool,
}

/// Any float parameter of a module, except those of adapters.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub path: String,
    /// Name in files.
    pub name: String,
    pub shape: Vec<usize>,
    /// True if files hold the transpose.
    pub transposed: bool,
}

/// The parameters of a module, in its order.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    /// The matrices that can be adapted.
    pub matrices: Vec<Matrix>,
    /// All parameters.
    pub all: Vec<Parameter>,
}

/// Lists the parameters of a module.
pub(crate) fn parameters<M: Module>(module: &M, architecture: &Architecture) -> Parameters {
    let list = List {
        architecture,
        parameters: Parameters::default(),
    };
    visit(module, list).parameters
}

struct List<'a> {
    architecture: &'a Architecture,
    parameters: Parameters,
}

/// `a.b.weight` → `a.b`: the path of the layer.
fn module_path(parameter: &str) -> String {
    parameter
        .strip_suffix(".weight")
        .unwrap_or(parameter)
        .to_string()
}

impl Visit for List<'_> {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if place.is_attached() {
            // The matrix visited last is the one that this adapter is on.
            let matrix = self.parameters.matrices.last_mut();
            if let Some(matrix) = matrix.filter(|_| !place.is_storage()) {
                matrix.adapted = true;
            }
            return;
        }
        let layer = place.layer();
        let shape = param.lazy_shape();
        let path = place.path();
        let name = self.architecture.tensor_name(&path);
        let module = module_path(&name);
        let is_linear_layer = matches!(layer, "Linear" | "LoraLinear");
        let transposed = D == 2 && is_linear_layer && !self.architecture.is_conv1d(&module);
        self.parameters.all.push(Parameter {
            path: path.clone(),
            name,
            shape: shape.to_vec(),
            transposed,
        });
        if let (Some(prefix), true) = (path.strip_suffix(".bias"), is_linear_layer) {
            // Burn's layers have their weight first.
            let weight = self.parameters.matrices.last_mut();
            let layer_weight =
                weight.filter(|w| w.parameter.strip_suffix(".weight") == Some(prefix));
            if let Some(weight) = layer_weight {
                weight.bias = Some(path);
            }
            return;
        }
        if D != 2 {
            return;
        }
        let (kind, adapter_path) = match layer {
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
