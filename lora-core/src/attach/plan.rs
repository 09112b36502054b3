//! The plan of an attach, made before anything changes: a reader checks its tensors in between.

use super::adapted::Adapted;
use super::build::build_entries;
use super::init::starting_factors;
use super::report::AttachReport;
use super::targets::{Target, resolve};
use super::weights::{AdapterValues, AdapterWeights};
use crate::adapter::{AdapterSwitch, LowRankAdapter, base_value};
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::fingerprint::BaseOutline;
use crate::layout::{AdaptedModule, Architecture, parameters, put};
use crate::quantize::{QuantizedModule, quantized_modules, take_packed};
use burn::module::{Module, Param, Reparameterizer};
use burn::tensor::{Tensor, TensorData};
use std::collections::{BTreeMap, HashMap};

/// The plan of an attach.
pub(crate) struct AttachPlan {
    pub report: AttachReport,
}

impl AttachPlan {
    /// Resolves a configuration on a module.
    ///
    /// # Errors
    /// As [`attach`](crate::attach()).
    pub fn new<M: Module>(
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
            return Err(LoraError::UnsupportedTarget {
                module: quantized.module.clone(),
                message: "its weight is quantised and cannot be fully trained; leave it out of the quantization".into(),
            });
        }
        let targets = resolved.targets.iter();
        let modules: Vec<AdaptedModule> = targets
            .map(|target| adapted_module(target, config))
            .collect();
        let outline = BaseOutline::new(
            &parameters,
            &modules,
            &resolved.saved,
            &config.modules_to_save,
            architecture,
            &quantized,
        );
        Ok(Self {
            report: AttachReport {
                config: config.clone(),
                modules,
                saved: resolved.saved,
                base_difference: None,
                outline,
                quantized,
                switch: AdapterSwitch::on(),
            },
        })
    }

    /// Adds start values for the adapters without values.
    ///
    /// # Errors
    /// [`LoraError::UnsupportedTarget`] if the factors are made from a weight that is not finite.
    pub fn complete<M: Module>(
        self,
        module: &M,
        mut weights: AdapterWeights,
    ) -> Result<(AttachReport, AdapterWeights), LoraError> {
        let report = self.report;
        for adapted in &report.modules {
            let given = weights.adapters.remove(&adapted.parameter);
            let values = complete(module, adapted, &report.config, given)?;
            weights.adapters.insert(adapted.parameter.clone(), values);
        }
        Ok((report, weights))
    }

    /// Attaches the adapters.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub fn apply<M: Module>(
        self,
        module: M,
        weights: AdapterWeights,
    ) -> Result<Adapted<M>, LoraError> {
        let (report, mut weights) = self.complete(&module, weights)?;
        let saved = report.saved.iter().map(|saved| {
            let value = weights.saved.remove(&saved.parameter);
            (saved.parameter.clone(), value)
        });
        let saved = saved.collect();
        // Burn puts one thing on a parameter: with an adapter, the packed weight goes into that.
        let (module, mut packed) = take_packed(module);
        let entries = build_entries(&module, &report, weights, &mut packed, None);
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
        Ok(Adapted::from_parts(module, report))
    }
}

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

fn adapted_module(target: &Target, config: &LoraConfig) -> AdaptedModule {
    AdaptedModule {
        module: target.matrix.module.clone(),
        parameter: target.matrix.parameter.clone(),
        kind: target.matrix.kind,
        shape: target.matrix.shape,
        rank: target.rank,
        alpha: target.alpha,
        scale: config.scaling.factor(target.alpha, target.rank),
        path: target.matrix.path,
        slices: target.slices.clone(),
        dora: config.dora,
        bias: target.bias.clone(),
        residual_init: config.init.is_residual(),
    }
}

/// Adds the start values that are not given.
fn complete<M: Module>(
    module: &M,
    adapted: &AdaptedModule,
    config: &LoraConfig,
    given: Option<AdapterValues>,
) -> Result<AdapterValues, LoraError> {
    let given = match given {
        Some(given) if !adapted.residual_init || given.start.is_some() => return Ok(given),
        given => given,
    };
    let weight = || base_value(module, &adapted.parameter).unwrap_or_default();
    let start = starting_factors(adapted, config, weight)?;
    let start_factors = adapted.residual_init.then(|| start.factors.clone());
    Ok(match given {
        Some(given) => AdapterValues {
            start: start_factors,
            ..given
        },
        None => AdapterValues {
            factors: start.factors,
            start: start_factors,
            magnitude: None,
            bias: start.bias,
        },
    })
}
