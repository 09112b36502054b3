//! What an attach will do, before it is done: reading an adapter checks its tensors in between.

use super::put::{PutBiases, PutFactors};
use super::{Adapted, AttachReport};
use crate::adapted::AdaptedModule;
use crate::adapter::AdapterSwitch;
use crate::fingerprint::BaseOutline;
use crate::init::starting_factors;
use crate::modules::{self, base_value};
use crate::quantize::{put_packed, quantized_modules, unpacked};
use crate::targets::{Architecture, Target, resolve};
use crate::{LoraConfig, LoraError, QuantizedModule};
use burn::module::Module;
use burn::tensor::TensorData;
use std::collections::HashMap;

/// An attach that is not done yet.
pub(crate) struct AttachPlan {
    pub report: AttachReport,
}

/// Values of one module's adapter, in the layout of its parameters.
pub(crate) struct AdapterValues {
    /// `A` and `B`.
    pub factors: [TensorData; 2],
    /// `A` and `B` where they started, if not at zero together.
    pub start: Option<[TensorData; 2]>,
    /// DoRA's magnitude; without it, the weight's own.
    pub magnitude: Option<TensorData>,
    /// The bias on `B`.
    pub bias: Option<TensorData>,
}

/// Values of an adapter, such as those of a file. Factors without a value start afresh, parameters without one stay.
#[derive(Default)]
pub(crate) struct AdapterWeights {
    /// Adapters by the path of the weight.
    pub adapters: HashMap<String, AdapterValues>,
    /// Fully trained parameters, by path.
    pub saved: HashMap<String, TensorData>,
}

impl AttachPlan {
    pub fn new<M: Module>(
        module: &M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<Self, LoraError> {
        let parameters = modules::parameters(module, architecture);
        let resolved = resolve(&parameters, config, architecture)?;
        let quantized = quantized_modules(module, architecture);
        let trains_whole =
            |q: &&QuantizedModule| resolved.saved.iter().any(|s| s.parameter == q.parameter);
        if let Some(quantized) = quantized.iter().find(trains_whole) {
            return Err(LoraError::UnsupportedTarget {
                module: quantized.module.clone(),
                message: "its weight is quantised and cannot train whole; leave it out of the quantization".into(),
            });
        }
        let targets = resolved.targets.iter();
        let modules: Vec<AdaptedModule> = targets.map(|target| adapted(target, config)).collect();
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

    /// Gives every adapter values: those that were not given are the ones that training starts at.
    ///
    /// # Errors
    /// If the factors are to start at a part of a weight that has none: one that is not finite.
    pub fn complete<M: Module>(
        self,
        module: &M,
        mut weights: AdapterWeights,
    ) -> Result<(AttachReport, AdapterWeights), LoraError> {
        let report = self.report;
        for adapted in &report.modules {
            let own = weights.adapters.remove(&adapted.parameter);
            let values = complete(module, adapted, &report.config, own)?;
            weights.adapters.insert(adapted.parameter.clone(), values);
        }
        Ok((report, weights))
    }

    /// Attaches.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub fn apply<M: Module>(
        self,
        module: M,
        weights: AdapterWeights,
    ) -> Result<Adapted<M>, LoraError> {
        let (report, mut weights) = self.complete(&module, weights)?;
        let mut adapters = HashMap::new();
        let mut biases = HashMap::new();
        for adapted in &report.modules {
            let Some(mut values) = weights.adapters.remove(&adapted.parameter) else {
                continue; // There is one of each.
            };
            if let (Some(path), Some(bias)) = (&adapted.bias, values.bias.take()) {
                biases.insert(path.clone(), (adapted.scale, bias));
            }
            adapters.insert(adapted.parameter.clone(), (adapted.clone(), values));
        }
        let saved = report.saved.iter().map(|saved| {
            let value = weights.saved.remove(&saved.parameter);
            (saved.parameter.clone(), value)
        });
        // Burn keeps one thing on a parameter: where there is an adapter, the packed weight goes into it.
        let (module, mut packed) = unpacked(module);
        let of_adapters = adapters.keys().filter_map(|path| packed.remove_entry(path));
        let module = module.apply_reparameterization(PutFactors {
            packed: of_adapters.collect(),
            dropout: report.config.dropout,
            saved: saved.collect(),
            adapters,
            switch: report.switch.clone(),
        });
        let module = put_packed(module, packed);
        let module = match biases.is_empty() {
            true => module,
            false => module.apply_reparameterization(PutBiases {
                biases,
                switch: report.switch.clone(),
            }),
        };
        Ok(Adapted::from_parts(module, report))
    }
}

fn adapted(target: &Target, config: &LoraConfig) -> AdaptedModule {
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
        starts_at_weight: config.init.starts_at_weight(),
    }
}

/// Adds what was not given: the values that training starts at.
fn complete<M: Module>(
    module: &M,
    adapted: &AdaptedModule,
    config: &LoraConfig,
    given: Option<AdapterValues>,
) -> Result<AdapterValues, LoraError> {
    let given = match given {
        Some(given) if !adapted.starts_at_weight || given.start.is_some() => return Ok(given),
        given => given,
    };
    let weight = || base_value(module, &adapted.parameter).unwrap_or_default();
    let start = starting_factors(adapted, config, weight)?;
    let at_weight = adapted.starts_at_weight.then(|| start.factors.clone());
    Ok(match given {
        Some(given) => AdapterValues {
            start: at_weight,
            ..given
        },
        None => AdapterValues {
            factors: start.factors,
            start: at_weight,
            magnitude: None,
            bias: start.bias,
        },
    })
}
