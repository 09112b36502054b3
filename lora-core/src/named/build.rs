//! The values of an adapter, onto the parameters of the base and back.

use super::acting::Key;
use super::change::Change;
use crate::AttachReport;
use crate::adapted::AdaptedModule;
use crate::adapter::{AdapterSwitch, LoraBias};
use crate::attach::{AdapterSpec, AdapterValues, Given, parameter};
use crate::peft::PeftOptions;
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
    pub fn new(key: Key, name: &'a str, report: &'a AttachReport, given: Given) -> Self {
        let Given {
            mut adapters,
            saved,
        } = given;
        let mut biases = HashMap::new();
        let mut of = HashMap::new();
        for module in &report.modules {
            let Some(mut values) = adapters.remove(&module.parameter) else {
                continue; // There is one of each.
            };
            if let (Some(path), Some(bias)) = (&module.bias, values.bias.take()) {
                biases.insert(path.clone(), (module.scale, bias));
            }
            of.insert(module.parameter.clone(), (module, values));
        }
        Self {
            path: Vec::new(),
            key,
            name,
            adapters: of,
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
            let flat = reshaped(&data, vec![data.num_elements()]);
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

fn reshaped(data: &TensorData, shape: Vec<usize>) -> TensorData {
    TensorData::new(data.iter::<f32>().collect::<Vec<_>>(), shape)
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

    /// The values of all that it does.
    pub fn given(&self) -> Given {
        let mut given = Given::default();
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
            given.adapters.insert(module.parameter.clone(), values);
        }
        for saved in &self.report.saved {
            let whole = self
                .change(&saved.parameter)
                .and_then(|change| change.whole.as_ref());
            if let Some(whole) = whole {
                let data = reshaped(&whole.val().into_data(), saved.shape.clone());
                given.saved.insert(saved.parameter.clone(), data);
            }
        }
        given
    }
}
