//! The walk that lists the parameters of a module, and the matrices that can be adapted.

use super::architecture::Architecture;
use super::kind::{AdapterPath, LayerKind};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The path component that Burn puts before an adapter's own parameters.
pub(crate) const ADAPTER_COMPONENT: &str = "lora";
/// The path component before the parameters of a packed weight.
pub(crate) const PACKED_COMPONENT: &str = "packed";
/// Burn's name for the container of all that is put on a parameter.
const REPARAMETERIZATION: &str = "Reparameterization";

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
    let mut walk = Walk {
        architecture,
        path: Vec::new(),
        containers: Vec::new(),
        parameters: Parameters::default(),
    };
    module.visit(&mut walk);
    walk.parameters
}

/// Returns the number of components before what is put on a parameter, `None` for a parameter of the module itself.
pub(crate) fn reparameterization_depth(containers: &[String]) -> Option<usize> {
    containers.iter().position(|c| c == REPARAMETERIZATION)
}

/// Returns true if a path leads into a packed weight.
pub(crate) fn is_in_packed(path: &[String], containers: &[String]) -> bool {
    // `weight.packed.…`, or within an adapter `weight.lora.packed.…`.
    reparameterization_depth(containers)
        .is_some_and(|depth| path[depth..].iter().take(2).any(|c| c == PACKED_COMPONENT))
}

struct Walk<'a> {
    architecture: &'a Architecture,
    path: Vec<String>,
    /// Types of the modules around the parameter, such as `Struct:LoraLinear`.
    containers: Vec<String>,
    parameters: Parameters,
}

/// `a.b.weight` → `a.b`: the path of the layer.
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
        if reparameterization_depth(&self.containers).is_some() {
            // The matrix visited last is the one that this adapter is on.
            if let Some(matrix) = self.parameters.matrices.last_mut()
                && !is_in_packed(&self.path, &self.containers)
            {
                matrix.adapted = true;
            }
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
            let layer_weight =
                weight.filter(|w| w.parameter.strip_suffix(".weight") == Some(layer));
            if let Some(weight) = layer_weight {
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
