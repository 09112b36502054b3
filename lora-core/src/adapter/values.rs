//! The adapters in a module, and the values of the base below them, read to the host.

use super::bias::LoraBias;
use super::entry::AdapterEntry;
use super::low_rank::{LowRankAdapter, StartingFactors};
use super::switch::AdapterSwitch;
use super::token_rows::TokenRows;
use crate::layout::{AdaptedModule, Place, TokenModule, Visit, visit};
use crate::ops::Dropout;
use crate::quantize::packed_weights;
use crate::split::split_weights;
use burn::module::{Module, Param, ParamId};
use burn::tensor::Tensor;
use std::collections::{BTreeMap, HashMap};

/// Collects the adapters of these modules, without dropout and packed weights, and the trained rows of these, by the path of their
/// parameter. Those that are missing, or of another shape, are left out.
///
/// A visitor sees the parameters of an adapter and never the adapter itself, so adapters are assembled from their
/// parameters.
pub(crate) fn attached_adapters<M: Module>(
    module: &M,
    modules: &[AdaptedModule],
    tokens: &[TokenModule],
) -> BTreeMap<String, AdapterEntry> {
    let parts = visit(module, Parts::default());
    let mut found = BTreeMap::new();
    for module in modules {
        let mut entry = AdapterEntry::new(0);
        entry.factors = parts.adapter(module);
        found.insert(module.parameter.clone(), entry);
        if let Some(path) = &module.bias {
            let mut entry = AdapterEntry::new(0);
            entry.bias = parts.bias(module, path);
            found.insert(path.clone(), entry);
        }
    }
    for tokens in tokens {
        let mut entry = AdapterEntry::new(0);
        entry.rows = parts.rows(tokens);
        found.insert(tokens.parameter.clone(), entry);
    }
    found
}

/// Parameters of adapters, row-major, by the path of the adapted parameter and the path within its adapter.
#[derive(Default)]
struct Parts(HashMap<(String, String), Tensor<1>>);

impl Visit for Parts {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if let Some(place) = place.in_adapter() {
            let elements = param.lazy_shape().num_elements();
            self.0.insert(place, param.val().reshape([elements]));
        }
    }
}

impl Parts {
    fn param<const D: usize>(
        &self,
        parameter: &str,
        name: &str,
        shape: [usize; D],
    ) -> Option<Param<Tensor<D>>> {
        let value = self.0.get(&(parameter.into(), name.into()))?;
        let fits = value.dims()[0] == shape.iter().product::<usize>();
        fits.then(|| Param::initialized(ParamId::new(), value.clone().reshape(shape)))
    }

    fn adapter(&self, module: &AdaptedModule) -> Option<LowRankAdapter> {
        let path = &module.parameter;
        let [a_shape, b_shape] = module.factor_shapes();
        let magnitude = self.param(path, "magnitude", [module.shape[1]]);
        let start = [("start.a", a_shape), ("start.b", b_shape)];
        let start = match start.map(|(name, shape)| self.param(path, name, shape)) {
            [Some(a), Some(b)] => Some(StartingFactors { a, b }),
            _ => None,
        };
        if (module.dora && magnitude.is_none()) || (module.residual_init && start.is_none()) {
            return None;
        }
        Some(LowRankAdapter {
            a: self.param(path, "a", a_shape)?,
            b: self.param(path, "b", b_shape)?,
            magnitude: magnitude.filter(|_| module.dora),
            start: start.filter(|_| module.residual_init),
            packed: None,
            dropout: Dropout::new(0.0),
            scale: module.scale,
            slices: module.slices.clone(),
            switch: AdapterSwitch::on(),
        })
    }

    fn rows(&self, tokens: &TokenModule) -> Option<TokenRows> {
        Some(TokenRows {
            rows: self.param(&tokens.parameter, "rows", tokens.rows_shape())?,
            ids: tokens.ids.clone(),
            by_column: tokens.by_column,
            switch: AdapterSwitch::on(),
        })
    }

    fn bias(&self, module: &AdaptedModule, path: &str) -> Option<LoraBias> {
        Some(LoraBias {
            value: self.param(path, "value", [module.shape[1]])?,
            scale: module.scale,
            switch: AdapterSwitch::on(),
        })
    }
}

/// Returns the values of the parameter at a path, row-major, without its adapter; a packed weight is dequantized.
pub fn base_value<M: Module>(module: &M, parameter: &str) -> Option<Vec<f32>> {
    base_head(module, parameter, usize::MAX)
}

/// Returns the first values, at most `most`, of the parameter at a path, as [`base_value`] does.
pub(crate) fn base_head<M: Module>(module: &M, parameter: &str, most: usize) -> Option<Vec<f32>> {
    if let Some(packed) = packed_weights(module).remove(parameter) {
        let head = packed.head(most).into_data().try_to_vec();
        return head.ok().map(|mut values: Vec<f32>| {
            values.truncate(most);
            values
        });
    }
    if let Some(split) = split_weights(module).remove(parameter) {
        return split.first_values(most);
    }
    let find = Find {
        parameter,
        most,
        found: None,
    };
    visit(module, find).found
}

struct Find<'a> {
    parameter: &'a str,
    most: usize,
    found: Option<Vec<f32>>,
}

impl Visit for Find<'_> {
    fn float<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if place.path() == self.parameter {
            let base = param.base();
            let data = match base.shape().num_elements() {
                all if all > self.most => base.reshape([all]).narrow(0, 0, self.most).into_data(),
                _ => base.into_data(),
            };
            self.found = data.convert::<f32>().try_to_vec().ok();
        }
    }
}
