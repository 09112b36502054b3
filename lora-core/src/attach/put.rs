//! The walks through a module that put adapters on its parameters.

use super::weights::AdapterValues;
use crate::adapter::{AdapterSwitch, LoraBias, LowRankAdapter, StartingFactors, norms};
use crate::layout::{AdaptedModule, param_id};
use crate::ops::Dropout;
use crate::quantize::PackedWeight;
use burn::module::{Param, Reparameterizer};
use burn::tensor::{Device, Tensor, TensorData};
use std::collections::{BTreeMap, HashMap};

/// Creates a parameter of an adapter on the parameter at `path`.
///
/// Its id depends on the path alone, so that another process finds the state that an optimizer saved for it.
pub(crate) fn parameter<const D: usize>(
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

/// The adapter of one weight, without its values.
pub(crate) struct AdapterSpec<'a> {
    /// Path of the weight, or another prefix for the ids of the adapter's parameters.
    pub path: &'a str,
    pub module: &'a AdaptedModule,
    pub dropout: f64,
    pub switch: AdapterSwitch,
    /// Packed weight that the adapter holds.
    pub packed: Option<PackedWeight>,
}

impl AdapterSpec<'_> {
    /// Creates the adapter on a device. Without a magnitude among the values, that of DoRA is computed from `weight`.
    pub fn adapter(
        self,
        values: AdapterValues,
        weight: impl FnOnce() -> Tensor<2>,
        device: &Device,
    ) -> LowRankAdapter {
        let Self { path, module, .. } = self;
        let pair = |[a, b]: [TensorData; 2], prefix: &str, trains: bool| {
            let factor = |name: &str, data| {
                parameter(path, &format!("{prefix}{name}"), data, device, trains)
            };
            (factor("a", a), factor("b", b))
        };
        let (a, b) = pair(values.factors, "", true);
        let start = values.start.map(|start| {
            let (a, b) = pair(start, "start.", false);
            StartingFactors { a, b }
        });
        let mut adapter = LowRankAdapter {
            a,
            b,
            magnitude: None,
            start,
            packed: self.packed,
            dropout: Dropout::new(self.dropout),
            scale: module.scale,
            slices: module.slices.clone(),
            switch: self.switch,
        };
        if module.dora {
            let data = values.magnitude.unwrap_or_else(|| {
                let (a, b) = adapter.factors();
                let w = match &adapter.packed {
                    None => weight(),
                    Some(packed) => packed.dequantize(),
                };
                norms(w, a, b, module.scale).into_data()
            });
            adapter.magnitude = Some(parameter(path, "magnitude", data, device, true));
        }
        adapter
    }
}

/// The walk that freezes the base and puts factors on the weights.
pub(super) struct PutFactors {
    pub dropout: f64,
    pub adapters: HashMap<String, (AdaptedModule, AdapterValues)>,
    /// Fully trained parameters, with the value to load into them.
    pub saved: HashMap<String, Option<TensorData>>,
    pub switch: AdapterSwitch,
    /// Packed weights of the parameters that get an adapter.
    pub packed: BTreeMap<String, PackedWeight>,
}

impl Reparameterizer for PutFactors {
    type Reparam = LowRankAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRankAdapter>) {
        if let Some(value) = self.saved.remove(path) {
            let param = match value {
                None => param,
                Some(data) => {
                    let value = Tensor::<D>::from_data(data, &param.lazy_device());
                    Param::initialized(param.id, value)
                }
            };
            return (param.set_require_grad(true), None);
        }
        let adapter = self.adapters.remove(path).map(|(module, values)| {
            let weight = || param.val().reshape(module.shape);
            AdapterSpec {
                path,
                module: &module,
                dropout: self.dropout,
                switch: self.switch.clone(),
                packed: self.packed.remove(path),
            }
            .adapter(values, weight, &param.lazy_device())
        });
        (param.set_require_grad(false), adapter)
    }
}

/// The walk that puts a bias on the biases of adapted layers.
pub(super) struct PutBiases {
    /// Scale and value, by the path of the layer's bias.
    pub biases: HashMap<String, (f64, TensorData)>,
    pub switch: AdapterSwitch,
}

impl Reparameterizer for PutBiases {
    type Reparam = LoraBias;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraBias>) {
        let bias = self.biases.remove(path).map(|(scale, data)| LoraBias {
            value: parameter(path, "value", data, &param.lazy_device(), true),
            scale,
            switch: self.switch.clone(),
        });
        (param, bias)
    }
}
