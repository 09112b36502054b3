//! The values of an adapter, onto the parameters of the base and back.

use super::acting::Key;
use super::change::Change;
use crate::AttachReport;
use crate::adapted::AdaptedModule;
use crate::adapter::{AdapterSwitch, LoraBias};
use crate::attach::{AdapterSpec, AdapterValues, AdapterWeights, parameter};
use crate::file::{AdapterSource, PeftOptions};
use crate::targets::SavedParameter;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};
use std::collections::HashMap;

/// The walk through the base that puts the values of an adapter where its parameters are.
pub(super) struct Build<'a> {
    path: Vec<String>,
    key: Key,
    name: &'a str,
    adapters: HashMap<String, (&'a AdaptedModule, AdapterValues)>,
    biases: HashMap<String, (f64, TensorData)>,
    saved: HashMap<String, TensorData>,
    switch: AdapterSwitch,
    pub changes: Vec<(String, Change)>,
}

impl<'a> Build<'a> {
    pub fn new(key: Key, name: &'a str, report: &'a AttachReport, weights: AdapterWeights) -> Self {
        let AdapterWeights {
            mut adapters,
            saved,
        } = weights;
        let mut biases = HashMap::new();
        let mut by_path = HashMap::new();
        for module in &report.modules {
            let Some(mut values) = adapters.remove(&module.parameter) else {
                continue; // There is one of each.
            };
            if let (Some(path), Some(bias)) = (&module.bias, values.bias.take()) {
                biases.insert(path.clone(), (module.scale, bias));
            }
            by_path.insert(module.parameter.clone(), (module, values));
        }
        Self {
            path: Vec::new(),
            key,
            name,
            adapters: by_path,
            biases,
            saved,
            switch: report.switch.clone(),
            changes: Vec::new(),
        }
    }
}

impl ModuleVisitor for Build<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let device = param.lazy_device();
        // The adapters of a parameter have parameters of different ids.
        let own = format!("{path}.{}", self.name);
        let mut change = Change::new(self.key);
        change.whole = self.saved.remove(&path).map(|data| {
            let flat = TensorData::new(data.iter::<f32>().collect(), [data.num_elements()]);
            parameter(&own, "whole", flat, &device, false)
        });
        change.factors = self.adapters.remove(&path).map(|(module, values)| {
            let adapter = AdapterSpec {
                path: &own,
                module,
                dropout: 0.0,
                switch: self.switch.clone(),
                packed: None,
            };
            adapter.adapter(values, || param.val().reshape(module.shape), &device)
        });
        change.bias = self.biases.remove(&path).map(|(scale, data)| LoraBias {
            value: parameter(&own, "value", data, &device, false),
            scale,
            switch: self.switch.clone(),
        });
        if change.whole.is_some() || change.factors.is_some() || change.bias.is_some() {
            self.changes.push((path, change.no_grad()));
        }
    }
}

/// One of the adapters.
#[derive(Debug)]
pub(super) struct Named {
    pub name: String,
    pub key: Key,
    pub report: AttachReport,
    /// What PEFT keeps beside it.
    pub options: PeftOptions,
    /// What it does, by the path of the parameter.
    pub changes: Vec<(String, Change)>,
    /// The first parameter that cannot differ between the examples of a batch, and why.
    pub one_for_all: Option<(String, &'static str)>,
}

impl Named {
    fn change(&self, path: &str) -> Option<&Change> {
        let mut changes = self.changes.iter();
        changes
            .find(|(other, _)| other == path)
            .map(|(_, change)| change)
    }

    /// Its adapters by the path of their parameter.
    pub fn source(&self) -> AdapterSource<'_> {
        let changes = || {
            self.changes
                .iter()
                .map(|(path, change)| (path.as_str(), change))
        };
        AdapterSource {
            adapters: changes()
                .filter_map(|(path, change)| Some((path, change.factors.as_ref()?)))
                .collect(),
            biases: changes()
                .filter_map(|(path, change)| Some((path, change.bias.as_ref()?)))
                .collect(),
        }
    }

    /// Returns the values of a fully trained parameter, row-major.
    pub fn saved_values(&self, saved: &SavedParameter) -> Option<Vec<f32>> {
        let whole = self.change(&saved.parameter)?.whole.as_ref()?;
        let data = whole.val().into_data().convert::<f32>();
        data.try_to_vec().ok()
    }

    /// Returns the values of all that it changes.
    pub fn weights(&self) -> AdapterWeights {
        let mut weights = AdapterWeights::default();
        for module in &self.report.modules {
            let adapter = self.change(&module.parameter);
            let Some(adapter) = adapter.and_then(|change| change.factors.as_ref()) else {
                continue; // There is one of each.
            };
            let pair = |a: &Param<Tensor<2>>, b: &Param<Tensor<2>>| {
                [a.val().into_data(), b.val().into_data()]
            };
            let bias = module
                .bias
                .as_ref()
                .and_then(|path| self.change(path)?.bias.as_ref());
            let values = AdapterValues {
                factors: pair(&adapter.a, &adapter.b),
                start: adapter.start.as_ref().map(|start| pair(&start.a, &start.b)),
                magnitude: adapter.magnitude.as_ref().map(|m| m.val().into_data()),
                bias: bias.map(|bias| bias.value.val().into_data()),
            };
            weights.adapters.insert(module.parameter.clone(), values);
        }
        for saved in &self.report.saved {
            if let Some(values) = self.saved_values(saved) {
                let data = TensorData::new(values, saved.shape.clone());
                weights.saved.insert(saved.parameter.clone(), data);
            }
        }
        weights
    }
}
