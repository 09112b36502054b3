//! Gradients of an adapted model under the names, and in the layout, of PEFT's file.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use lora_core::{AttachReport, LayerKind};
use std::collections::BTreeMap;
use test_support::tensors::{host, transpose};

/// Values and shapes by name.
type ByName = BTreeMap<String, (Vec<f32>, Vec<usize>)>;

/// Returns the gradient of every trained parameter, and asserts that no other has one.
pub fn file_gradients<M: Module>(model: &M, report: &AttachReport, grads: &Gradients) -> ByName {
    let mut gradients = FileGradients {
        path: Vec::new(),
        grads,
        trainable: trainable(report),
        found: BTreeMap::new(),
    };
    model.visit(&mut gradients);
    gradients.found
}

/// Returns PEFT's name of every trained parameter, and true if its file has it transposed, by path.
pub fn trainable(report: &AttachReport) -> BTreeMap<String, (String, bool)> {
    let mut names = BTreeMap::new();
    for adapted in &report.modules {
        let (a, b) = match adapted.kind {
            LayerKind::Linear => ("lora_A.weight", "lora_B.weight"),
            LayerKind::Embedding => ("lora_embedding_A", "lora_embedding_B"),
        };
        for (factor, suffix) in [("a", a), ("b", b)] {
            let path = format!("{}.lora.{factor}", adapted.parameter);
            let name = format!("base_model.model.{}.{suffix}", adapted.module);
            names.insert(path, (name, true));
        }
        let module = format!("base_model.model.{}", adapted.module);
        if adapted.dora {
            let path = format!("{}.lora.magnitude", adapted.parameter);
            names.insert(path, (format!("{module}.lora_magnitude_vector"), false));
        }
        if let Some(bias) = &adapted.bias {
            let path = format!("{bias}.lora.value");
            names.insert(path, (format!("{module}.lora_B.bias"), false));
        }
    }
    for saved in &report.saved {
        let name = format!("base_model.model.{}", saved.name);
        names.insert(saved.parameter.clone(), (name, saved.transposed));
    }
    names
}

struct FileGradients<'a> {
    path: Vec<String>,
    grads: &'a Gradients,
    trainable: BTreeMap<String, (String, bool)>,
    found: ByName,
}

impl ModuleVisitor for FileGradients<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let gradient = param.base().grad(self.grads);
        let Some((name, transposed)) = self.trainable.get(&path) else {
            assert!(gradient.is_none(), "{path} is frozen");
            return;
        };
        let gradient = gradient.unwrap_or_else(|| panic!("{path} has no gradient"));
        let mut shape = gradient.dims().to_vec();
        let mut values = host(gradient);
        if *transposed {
            values = transpose(&values, &shape);
            shape.reverse();
        }
        self.found.insert(name.clone(), (values, shape));
    }
}
