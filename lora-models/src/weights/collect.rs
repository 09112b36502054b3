//! Parameters of a module under their names in a file.

use super::builder::on_host;
use crate::ModelError;
use burn::module::{Module, ModuleVisitor, Param, Reparameterization};
use burn::tensor::Tensor;
use lora_core::file::transpose;
use lora_core::{Architecture, PackedWeight, SplitWeight, split_weights};
use std::collections::BTreeMap;
use std::path::Path;

/// Parameters of a module under their names in a file. Values stay on the device until they are read.
pub struct Parameters<'a> {
    architecture: &'a Architecture,
    tensors: BTreeMap<String, FileTensor>,
    /// Weights in parts, by path.
    split: BTreeMap<String, SplitWeight>,
    path: Vec<String>,
    containers: Vec<String>,
    /// Path of the first parameter that has an adapter or is quantized, with advice for the message.
    adapted: Option<(String, &'static str)>,
}

struct FileTensor {
    /// Shape in the file.
    shape: Vec<usize>,
    transposed: bool,
    /// All values in one row, in the module's layout, in the parts that the device holds.
    values: Vec<Tensor<1>>,
}

impl<'a> Parameters<'a> {
    /// Collects the parameters of a module, which is to be exported to `dir`.
    ///
    /// # Errors
    /// [`ModelError::Export`] if it has adapters or is quantized.
    pub fn collect<M: Module>(
        model: &M,
        architecture: &'a Architecture,
        dir: &Path,
    ) -> Result<Self, ModelError> {
        let mut parameters = Self {
            architecture,
            tensors: BTreeMap::new(),
            split: split_weights(model),
            path: Vec::new(),
            containers: Vec::new(),
            adapted: None,
        };
        model.visit(&mut parameters);
        match parameters.adapted {
            None => Ok(parameters),
            Some((path, what)) => Err(ModelError::export(dir, format!("`{path}` {what}"))),
        }
    }

    /// Returns names and shapes, as in the file.
    pub fn plan(&self) -> Vec<(String, Vec<usize>)> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect()
    }

    /// True if there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Removes a tensor from the export.
    pub fn remove(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Returns the values of a tensor in the layout of the file.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| ModelError::missing(name))?;
        let mut values = Vec::new();
        for part in &tensor.values {
            let part = on_host(name, part.clone())?;
            if values.is_empty() {
                values = part;
            } else {
                values.extend(part);
            }
        }
        Ok(match (tensor.transposed, tensor.shape.as_slice()) {
            (true, &[d_out, d_in]) => transpose(&values, [d_in, d_out]),
            _ => values,
        })
    }
}

fn in_a_row<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}

impl ModuleVisitor for Parameters<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        let is_adapter = container == "Reparameterization" && name != SplitWeight::NAME;
        if is_adapter && self.adapted.is_none() {
            let what = if name == PackedWeight::NAME {
                "is quantized; export the model without quantization"
            } else {
                "has an adapter; merge the adapters into the weights, or detach them first"
            };
            self.adapted = Some((self.path.join("."), what));
        }
        self.path.push(name.into());
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.containers.iter().any(|c| c == "Reparameterization") {
            return; // A part of a weight that was collected before, or of an adapter, which is refused.
        }
        let path = self.path.join(".");
        let name = self.architecture.tensor_name(&path);
        let container = self.containers.last().map_or("", String::as_str);
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let transposed =
            D == 2 && container.ends_with(":LoraLinear") && !self.architecture.is_conv1d(module);
        let mut shape = param.lazy_shape().to_vec();
        if transposed {
            shape.reverse();
        }
        let values = match self.split.remove(&path) {
            Some(split) => split.parts().into_iter().map(in_a_row).collect(),
            None => vec![in_a_row(param.base())],
        };
        let tensor = FileTensor {
            shape,
            transposed,
            values,
        };
        self.tensors.insert(name, tensor);
    }
}
