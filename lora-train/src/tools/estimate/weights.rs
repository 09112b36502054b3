//! Parameters and bytes of a run, counted without running it.

use crate::TrainError;
use crate::tools::bench::{Shape, Training};
use burn::tensor::Device;
use lora_core::{LoraConfig, Quantization, TargetModules, trainable_summary};
use lora_models::{LoraModel, ModelConfig, Pretrained, dispatch};

/// Number of moments that AdamW keeps for each parameter.
const MOMENTS: usize = 2;
/// Size of an f32 in bytes.
const F32: usize = 4;
/// Number of quantized values that share a scale.
const BLOCK: usize = 64;

/// Numbers of parameters and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Number of parameters of the model without adapters.
    pub parameters: usize,
    /// Number of trainable parameters, which are those that are saved.
    pub trainable: usize,
    /// Size of all weights in bytes, adapters included.
    pub weights_bytes: usize,
}

impl Counts {
    /// Counts on a model without values.
    pub fn new(
        config: &ModelConfig,
        shape: &Shape,
        training: Training,
    ) -> Result<Self, TrainError> {
        dispatch!(config, M(config) => {
            let options = <M as Pretrained>::Options::default();
            count(M::init_meta(config, &options, &Device::default())?, shape, training)
        })
    }

    pub fn gradients_bytes(&self) -> usize {
        self.trainable * F32
    }

    pub fn optimizer_bytes(&self) -> usize {
        self.trainable * F32 * MOMENTS
    }
}

fn count<M: LoraModel>(model: M, shape: &Shape, training: Training) -> Result<Counts, TrainError> {
    let parameters = trainable_summary(&model).total();
    if training.full {
        return Ok(Counts {
            parameters,
            trainable: parameters,
            weights_bytes: parameters * F32,
        });
    }
    let lora = shape.lora(&model)?;
    let report = model.attach_report(&lora)?;
    let factors = report.parameters();
    let trainable = factors + report.saved_parameters();
    let mut weights_bytes = (parameters + factors) * F32;
    if let Some(kind) = shape.quantize {
        let linear = LoraConfig::default().with_targets(TargetModules::AllLinear);
        let modules = model.attach_report(&linear)?.modules;
        for elements in modules.iter().map(|m| m.shape.iter().product()) {
            weights_bytes = weights_bytes - elements * F32 + packed_bytes(kind, elements);
        }
    }
    Ok(Counts {
        parameters,
        trainable,
        weights_bytes,
    })
}

/// Computes the size of quantized values with their scales.
fn packed_bytes(kind: Quantization, elements: usize) -> usize {
    (elements * kind.bits()).div_ceil(32) * 4 + elements.div_ceil(BLOCK) * F32
}
