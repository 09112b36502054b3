//! Parameters and bytes of a run, counted without running it.

use crate::TrainError;
use crate::options::Precision;
use crate::tools::bench::{Shape, Training};
use burn::tensor::Device;
use lora_core::{
    AdaptedModule, AdapterPath, BaseFloats, HalfFloat, LayerKind, LoraConfig, PackedFormat,
    TargetModules, attach_report, trainable_summary,
};
use lora_models::{LoraModel, ModelConfig, Pretrained, dispatch};
use std::collections::BTreeMap;

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
    if training.full || shape.trained()?.is_full() {
        return Ok(Counts {
            parameters,
            trainable: parameters,
            weights_bytes: parameters * F32,
        });
    }
    let (factors, saved) = match shape.lora(&model)? {
        Some(lora) => {
            let report = model.attach_report(&lora)?;
            (report.parameters(), report.saved_parameters())
        }
        None => {
            let report = model.clone().freeze_all_but_head()?.into_parts().1;
            (0, report.saved_parameters())
        }
    };
    let sizes = model.added_shape();
    let prefix = shape.prefix()?;
    let prefix = prefix.map_or(0, |prefix| prefix.tokens * prefix.kind.width(&sizes));
    let layers = shape.adapter_layers()?;
    let layers = layers.map_or(0, |layers| layers.parameters(sizes.layers, sizes.d_model));
    // Weights that the model does not have by itself.
    let new = factors + prefix + layers;
    let trainable = new + saved;
    let mut weights_bytes = (parameters + new) * F32;
    let modules = |targets| -> Result<Vec<AdaptedModule>, TrainError> {
        let config = LoraConfig::default().with_targets(targets);
        let architecture = model.lora_architecture();
        let report = attach_report(&model, config.for_architecture(&architecture));
        Ok(report?.modules)
    };
    let mut packed = BTreeMap::new();
    // Both 16-bit types have the same size.
    let mixed = (shape.precision == Some(Precision::Mixed)).then_some(HalfFloat::F16);
    if shape.base_dtype.is_some() || mixed.is_some() {
        let floats = BaseFloats::new(shape.base_dtype.unwrap_or_default())
            .with_linear(mixed)
            .with_skip(model.modules_to_save());
        let architecture = model.lora_architecture();
        for module in modules(TargetModules::regex(".*"))? {
            let is_end =
                module.kind == LayerKind::Embedding || architecture.is_output(&module.module);
            if let (true, Some(kind)) = (is_end, floats.of_end(&module.module)) {
                packed.insert(module.parameter, (module.shape, kind.format()));
                continue;
            }
            let half = floats.half(&module.module, module.kind, None);
            if let (Some(half), AdapterPath::Activation) = (half, module.path) {
                packed.insert(module.parameter, (module.shape, half.format()));
            }
        }
    }
    if let Some(kind) = shape.quantize {
        for module in modules(TargetModules::AllLinear)? {
            packed.insert(module.parameter, (module.shape, kind.format()));
        }
    }
    for ([d_in, d_out], format) in packed.into_values() {
        let elements = d_in * d_out;
        weights_bytes = weights_bytes - elements * F32 + packed_bytes(format, elements);
    }
    Ok(Counts {
        parameters,
        trainable,
        weights_bytes,
    })
}

/// Computes the size of packed values with their scales; a last block is filled up.
fn packed_bytes(format: PackedFormat, elements: usize) -> usize {
    if format.is_half() {
        return (elements * format.bits()).div_ceil(32) * 4;
    }
    elements.div_ceil(BLOCK) * (BLOCK * format.bits() / 8 + F32)
}
