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
use crate::layout::{
    AdaptedModule, AdapterPath, Architecture, LayerKind, Parameters, SavedParameter, parameters,
    put,
};
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
        let is_saved = |q: &&QuantizedModule| {
            let mut saved = resolved.saved.iter().map(|s| &s.parameter);
            let mut tokens = resolved.tokens.iter().map(|t| &t.parameter);
            saved.any(|path| *path == q.parameter) || tokens.any(|path| *path == q.parameter)
        };
        if let Some(quantized) = quantized.iter().find(is_saved) {
            let message = if quantized.format.is_half() {
                "its weight is in 16 bits, and neither it nor rows of it can be trained; leave it in f32"
            } else {
                "its weight is quantized and cannot be fully trained; leave it out of the quantization"
            };
            return Err(LoraError::unsupported_target(&quantized.module, message));
        }
        let above = weights_above_limit(module);
        let targets = resolved.targets.iter().map(|t| (&t.parameter, &t.module));
        let saved = resolved.saved.iter().map(|s| (&s.parameter, &s.name));
        let tokens = resolved.tokens.iter().map(|t| (&t.parameter, &t.module));
        if let Some((_, name)) = targets
            .chain(saved)
            .chain(tokens)
            .find(|(path, _)| above.contains(*path))
        {
            return Err(LoraError::unsupported_target(name, ABOVE_LIMIT));
        }
        let vocabulary = vocabulary(&parameters, architecture);
        let base_weights = tied_output(&resolved.saved, &vocabulary, config, architecture);
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
            tokens: resolved.tokens,
            base_weights,
            notes: Vec::new(),
            vocabulary,
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
        for tokens in &self.tokens {
            if !weights.rows.contains_key(&tokens.parameter) {
                let weight = base_value(module, &tokens.parameter);
                let weight = weight.ok_or_else(|| LoraError::not_attached(&tokens.module))?;
                let rows = TensorData::new(tokens.rows_of(&weight), tokens.rows_shape());
                weights.rows.insert(tokens.parameter.clone(), rows);
            }
        }
        Ok(())
    }

    /// Refuses dropout that would have no effect in training: on layers of other crates, which read the composed weight.
    /// [`attach`](crate::attach()) checks it, and loading an adapter does on a device with gradients.
    ///
    /// # Errors
    /// [`LoraError::UnsupportedTarget`] that names the first such layer.
    pub fn check_dropout(&self) -> Result<(), LoraError> {
        let is_refused = |module: &&AdaptedModule| {
            self.config.dropout > 0.0
                && module.path == AdapterPath::Composed
                && module.kind == LayerKind::Linear
        };
        match self.modules.iter().find(is_refused) {
            None => Ok(()),
            Some(module) => Err(LoraError::unsupported_target(
                &module.module,
                "dropout applies to the adapter's input, and a layer that reads the composed weight has none; to train it, use \
                 a `LoraLinear` there, or dropout 0",
            )),
        }
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
        let (mut adapters, mut biases, mut rows) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (path, entry) in entries {
            if let Some(factors) = entry.factors {
                adapters.insert(path.clone(), factors);
            }
            if let Some(own) = entry.rows {
                rows.insert(path.clone(), own);
            }
            if let Some(bias) = entry.bias {
                biases.insert(path, bias);
            }
        }
        let module = module.apply_reparameterization(PutAdapters { adapters, saved });
        let module = put(put(put(module, packed), biases), rows);
        Ok(Adapted::from_parts(module, self))
    }
}

/// Returns the weights over the vocabulary, in the order of the architecture.
fn vocabulary(parameters: &Parameters, architecture: &Architecture) -> Vec<SavedParameter> {
    let names = architecture.vocabulary.iter();
    let names = names.map(|module| format!("{module}.weight"));
    let found = names.filter_map(|name| parameters.all.iter().find(|p| p.name == name));
    found
        .map(|parameter| SavedParameter {
            parameter: parameter.path.clone(),
            name: parameter.name.clone(),
            shape: parameter.shape.clone(),
            transposed: parameter.transposed,
        })
        .collect()
}

/// Returns the output layer that is tied to a fully trained embedding: PEFT's files have the matrix under both names.
fn tied_output(
    saved: &[SavedParameter],
    vocabulary: &[SavedParameter],
    config: &LoraConfig,
    architecture: &Architecture,
) -> Vec<SavedParameter> {
    let ([input], [_, output]) = (vocabulary, architecture.vocabulary.as_slice()) else {
        return Vec::new();
    };
    let is_trained = saved.iter().any(|saved| saved.parameter == input.parameter);
    if !config.ensure_weight_tying || !is_trained {
        return Vec::new();
    }
    vec![SavedParameter {
        name: format!("{output}.weight"),
        ..input.clone()
    }]
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
