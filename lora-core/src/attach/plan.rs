//! [`AttachPlan`]: a configuration resolved on a module, before anything changes. A reader checks its tensors against it.

use super::adapted::Adapted;
use super::build::build_entries;
use super::init::starting_values;
use super::report::AttachReport;
use super::targets::resolve;
use super::weights::AdapterWeights;
use crate::adapter::{AdapterSwitch, LowRankAdapter, base_value};
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::fingerprint::BaseOutline;
use crate::layout::{Architecture, parameters, put};
use crate::quantize::{QuantizedModule, quantized_modules, take_packed, weights_above_limit};
use burn::module::{Module, Param, Reparameterizer};
use burn::tensor::{Tensor, TensorData};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

impl AttachReport {
    /// Resolves a configuration on a module.
    ///
    /// # Errors
    /// As [`attach`](crate::attach()).
    pub(crate) fn new<M: Module>(
        module: &M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<Self, LoraError> {
        let parameters = parameters(module, architecture);
        let resolved = resolve(&parameters, config, architecture)?;
        let quantized = quantized_modules(module, architecture);
        let is_saved =
            |q: &&QuantizedModule| resolved.saved.iter().any(|s| s.parameter == q.parameter);
        if let Some(quantized) = quantized.iter().find(is_saved) {
            let message = if quantized.format.is_half() {
                "its weight is in 16 bits and cannot be fully trained; leave it in f32"
            } else {
                "its weight is quantized and cannot be fully trained; leave it out of the quantization"
            };
            return Err(LoraError::unsupported_target(&quantized.module, message));
        }
        let above = weights_above_limit(module);
        let targets = resolved.targets.iter().map(|t| (&t.parameter, &t.module));
        let saved = resolved.saved.iter().map(|s| (&s.parameter, &s.name));
        if let Some((_, name)) = targets.chain(saved).find(|(path, _)| above.contains(*path)) {
            return Err(LoraError::unsupported_target(name, ABOVE_LIMIT));
        }
        let outline = BaseOutline::new(
            &parameters,
            &resolved.targets,
            &resolved.saved,
            &config.modules_to_save,
            architecture,
            &quantized,
        );
        Ok(Self {
            config: config.clone(),
            modules: resolved.targets,
            saved: resolved.saved,
            base_difference: None,
            outline,
            quantized,
            switch: AdapterSwitch::on(),
        })
    }

    /// Adds start values for the adapters without values.
    ///
    /// # Errors
    /// [`LoraError::UnsupportedTarget`] if the factors are made from a weight that is not finite.
    pub(crate) fn complete<M: Module>(
        &self,
        module: &M,
        weights: &mut AdapterWeights,
    ) -> Result<(), LoraError> {
        for adapted in &self.modules {
            let values = weights.adapters.entry(adapted.parameter.clone());
            if let Entry::Occupied(values) = &values
                && (!adapted.residual_init || values.get().start.is_some())
            {
                continue;
            }
            let weight = || base_value(module, &adapted.parameter).unwrap_or_default();
            let initial = starting_values(adapted, &self.config, weight)?;
            match values {
                Entry::Occupied(mut values) => values.get_mut().start = initial.start,
                Entry::Vacant(place) => {
                    place.insert(initial);
                }
            }
        }
        Ok(())
    }

    /// Attaches the adapters.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub(crate) fn apply<M: Module>(
        self,
        module: M,
        mut weights: AdapterWeights,
    ) -> Result<Adapted<M>, LoraError> {
        self.complete(&module, &mut weights)?;
        let saved = self.saved.iter().map(|saved| {
            let value = weights.saved.remove(&saved.parameter);
            (saved.parameter.clone(), value)
        });
        let saved = saved.collect();
        // Burn puts one thing on a parameter: with an adapter, the packed weight goes into that.
        let (module, mut packed) = take_packed(module);
        let entries = build_entries(&module, &self, weights, &mut packed, None);
        let (mut adapters, mut biases) = (BTreeMap::new(), BTreeMap::new());
        for (path, entry) in entries {
            if let Some(factors) = entry.factors {
                adapters.insert(path.clone(), factors);
            }
            if let Some(bias) = entry.bias {
                biases.insert(path, bias);
            }
        }
        let module = module.apply_reparameterization(PutAdapters { adapters, saved });
        let module = put(put(module, packed), biases);
        Ok(Adapted::from_parts(module, self))
    }
}

/// Message for a target whose weight in f32 is above the limit of its device.
const ABOVE_LIMIT: &str = "its weight in f32 is larger than the device binds in one buffer, and such a weight, in parts or in 16 bits, \
                           stays frozen; leave the module out, or use the CPU or a device with a higher limit";

/// The walk that freezes the base, loads the fully trained parameters, and puts adapters on the weights.
struct PutAdapters {
    adapters: BTreeMap<String, LowRankAdapter>,
    /// Fully trained parameters, with the value to load into them.
    saved: HashMap<String, Option<TensorData>>,
}

impl Reparameterizer for PutAdapters {
    type Reparam = LowRankAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRankAdapter>) {
        let Some(value) = self.saved.remove(path) else {
            return (param.set_require_grad(false), self.adapters.remove(path));
        };
        let param = match value {
            None => param,
            Some(data) => {
                let value = Tensor::<D>::from_data(data, &param.lazy_device());
                Param::initialized(param.id, value)
            }
        };
        (param.set_require_grad(true), None)
    }
}
