//! Parameters and bytes of a run, counted without running it.

use crate::TrainError;
use crate::tools::bench::{Shape, Training, with_adapter};
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
    /// Number of trainable parameters.
    pub trainable: usize,
    /// Number of saved parameters: of the adapter with its fully trained modules, or of the model.
    pub saved: usize,
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
            saved: parameters,
            weights_bytes: parameters * F32,
        });
    }
    let lora = with_adapter(&model, shape)?;
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
        saved: trainable,
        weights_bytes,
    })
}

/// Computes the size of quantized values with their scales.
fn packed_bytes(kind: Quantization, elements: usize) -> usize {
    (elements * kind.bits()).div_ceil(32) * 4 + elements.div_ceil(BLOCK) * F32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TargetNames;
    use lora_models::Preset;
    use lora_models::gpt2::Gpt2Config;

    fn counts(config: &ModelConfig, rank: usize, targets: Option<&str>) -> Counts {
        let shape = Shape {
            rank: Some(rank),
            targets: targets.map(|text| TargetNames::Text(text.into())),
            ..Shape::default()
        };
        Counts::new(config, &shape, Training::default()).unwrap()
    }

    /// Hu et al. 2021, tables 2 to 4: without a head, whose parameters train beside these.
    #[test]
    fn parameters_are_the_papers() {
        let gpt2 = |n_layer, n_embd, n_head| {
            ModelConfig::Gpt2(Gpt2Config {
                n_layer,
                n_embd,
                n_head,
                ..Gpt2Config::default()
            })
        };
        let slices = Some("c_attn[q,v]");
        for (config, rank, expected) in [
            (gpt2(24, 1024, 16), 4, 393_216),
            (gpt2(36, 1280, 20), 4, 737_280),
            (gpt2(96, 12_288, 96), 4, 18_874_368),
            (gpt2(96, 12_288, 96), 1, 4_718_592),
        ] {
            assert_eq!(counts(&config, rank, slices).trainable, expected);
        }
        let roberta = Preset::RobertaBase.config().unwrap();
        let head = 768 * 768 + 768 + 2 * 768 + 2;
        assert_eq!(counts(&roberta, 8, None).trainable, 294_912 + head);
    }

    #[test]
    fn a_model_of_175_billion_parameters_is_counted_without_being_made() {
        let config = ModelConfig::Gpt2(Gpt2Config {
            n_layer: 96,
            n_embd: 12_288,
            n_head: 96,
            n_positions: 2048,
            ..Gpt2Config::default()
        });
        let found = counts(&config, 4, Some("c_attn[q,v]"));
        assert_eq!(found.parameters, 174_604_259_328);
        let full = Training {
            full: true,
            ..Training::default()
        };
        let all = Counts::new(&config, &Shape::default(), full).unwrap();
        // Table 4 and section 4.2: the optimizer's state is three quarters of what is saved.
        assert_eq!(all.optimizer_bytes() / found.optimizer_bytes(), 9250);
        assert_eq!(all.gradients_bytes(), 4 * all.parameters);
    }

    #[test]
    fn packed_weights_take_what_the_report_of_packing_says() {
        let shape = |quantize| Shape {
            quantize,
            ..Shape::default()
        };
        let bytes = |quantize| {
            let config = Preset::Gpt2.config().unwrap();
            let counts = Counts::new(&config, &shape(quantize), Training::default());
            counts.unwrap().weights_bytes as f64 / (1 << 20) as f64
        };
        let (floats, int8, nf4) = (
            bytes(None),
            bytes(Some(Quantization::Int8)),
            bytes(Some(Quantization::Nf4)),
        );
        // 324.0 MiB of linear layers take 86.1 and 45.6, as measured in `benchmarks/`.
        assert!((floats - int8 - (324.0 - 86.1)).abs() < 0.2);
        assert!((floats - nf4 - (324.0 - 45.6)).abs() < 0.2);
    }
}
