//! The adapters of an attach, built on the devices of the parameters that they are for.

use super::report::AttachReport;
use super::weights::{AdapterValues, AdapterWeights};
use crate::adapter::{
    AdapterEntry, Key, LoraBias, LowRankAdapter, StartingFactors, TokenRows, norms,
};
use crate::layout::{AdaptedModule, Place, Visit, param_id, visit};
use crate::ops::Dropout;
use crate::quantize::PackedWeight;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::{BTreeMap, HashMap};

/// Builds the adapters of a report, with the path of the parameter of each.
///
/// Adapters take their weights from `packed` if they are in it. With a key and a name, the adapters are for a set: frozen,
/// without dropout, and with ids of their own.
pub(crate) fn build_entries<M: Module>(
    module: &M,
    report: &AttachReport,
    mut weights: AdapterWeights,
    packed: &mut BTreeMap<String, PackedWeight>,
    named: Option<(Key, &str)>,
) -> Vec<(String, AdapterEntry)> {
    let mut biases = HashMap::new();
    for module in &report.modules {
        let values = weights.adapters.get_mut(&module.parameter);
        let bias = values.and_then(|values| values.bias.take());
        if let (Some(path), Some(bias)) = (&module.bias, bias) {
            biases.insert(path.as_str(), (module.scale, bias));
        }
    }
    let build = Build {
        report,
        weights,
        biases,
        packed,
        named,
        entries: Vec::new(),
    };
    visit(module, build).entries
}

struct Build<'a> {
    report: &'a AttachReport,
    weights: AdapterWeights,
    /// Scale and values by the path of the layer's bias.
    biases: HashMap<&'a str, (f64, TensorData)>,
    packed: &'a mut BTreeMap<String, PackedWeight>,
    named: Option<(Key, &'a str)>,
    entries: Vec<(String, AdapterEntry)>,
}

impl Visit for Build<'_> {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        let path = place.path();
        let device = param.lazy_device();
        let id = match self.named {
            None => path.clone(),
            Some((_, name)) => format!("{path}.{name}"),
        };
        let mut entry = AdapterEntry::new(self.named.map_or(0, |(key, _)| key));
        entry.full = self.weights.saved.remove(&path).map(|data| {
            let flat = TensorData::new(data.iter::<f32>().collect(), [data.num_elements()]);
            parameter(&id, "whole", flat, &device, true)
        });
        let mut modules = self.report.modules.iter();
        let module = modules.find(|module| module.parameter == path);
        let values = self.weights.adapters.remove(&path);
        entry.factors = module.zip(values).map(|(module, values)| {
            let packed = self.packed.remove(&path);
            let weight = || match &packed {
                None => param.val().reshape(module.shape),
                Some(packed) => packed.dequantize(),
            };
            let mut adapter = self.adapter(&id, module, values, weight, &device);
            adapter.packed = packed;
            adapter
        });
        let mut tokens = self.report.tokens.iter();
        let tokens = tokens.find(|tokens| tokens.parameter == path);
        let rows = self.weights.rows.remove(&path);
        entry.rows = tokens.zip(rows).map(|(tokens, rows)| TokenRows {
            rows: parameter(&id, "rows", rows, &device, true),
            ids: tokens.ids.clone(),
            by_column: tokens.by_column,
            switch: self.report.switch.clone(),
        });
        let bias = self.biases.remove(path.as_str());
        entry.bias = bias.map(|(scale, data)| LoraBias {
            value: parameter(&id, "value", data, &device, true),
            scale,
            switch: self.report.switch.clone(),
        });
        if entry.replaces() || entry.factors.is_some() || entry.bias.is_some() {
            let is_named = self.named.is_some();
            self.entries
                .push((path, if is_named { entry.no_grad() } else { entry }));
        }
    }
}

impl Build<'_> {
    /// Creates an adapter. Without a magnitude among the values, that of DoRA is computed from the weight.
    fn adapter(
        &self,
        id: &str,
        module: &AdaptedModule,
        values: AdapterValues,
        weight: impl Fn() -> Tensor<2>,
        device: &Device,
    ) -> LowRankAdapter {
        let pair = |[a, b]: [TensorData; 2], prefix: &str, trains: bool| {
            let factor =
                |name: &str, data| parameter(id, &format!("{prefix}{name}"), data, device, trains);
            (factor("a", a), factor("b", b))
        };
        let (a, b) = pair(values.factors, "", true);
        let start = values.start.map(|start| {
            let (a, b) = pair(start, "start.", false);
            StartingFactors { a, b }
        });
        let dropout = match self.named {
            None => self.report.config.dropout,
            Some(_) => 0.0,
        };
        let mut adapter = LowRankAdapter {
            a,
            b,
            magnitude: None,
            start,
            packed: None,
            dropout: Dropout::new(dropout),
            scale: module.scale,
            slices: module.slices.clone(),
            switch: self.report.switch.clone(),
        };
        if module.dora {
            let data = values.magnitude.unwrap_or_else(|| {
                let (a, b) = adapter.factors();
                norms(weight(), a, b, module.scale).into_data()
            });
            adapter.magnitude = Some(parameter(id, "magnitude", data, device, true));
        }
        adapter
    }
}

/// Creates a parameter of an adapter.
///
/// Its id depends on the path alone, so that another process finds the state that an optimizer saved for it.
fn parameter<const D: usize>(
    path: &str,
    name: &str,
    data: TensorData,
    device: &Device,
    trains: bool,
) -> Param<Tensor<D>> {
    let id = param_id(&format!("{path}.lora.{name}"));
    let value = Tensor::<D>::from_data(data, device);
    // `train()` needs this on a device without autodiff.
    Param::initialized(id, value).set_require_grad(trains)
}
