//! Activations that are computed again instead of kept: the same gradients and the same dropout in less memory.

use crate::common;
use crate::common::steps::{assert_same, step};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use burn_train::TrainStep;
use lora_core::{LoraConfig, LoraInit, TargetModules};
use lora_models::classifier::{Classifier, HeadKind};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::prefix::PrefixConfig;
use lora_models::{AddedModel, LoraModel, ModelConfig, Preset};
use lora_train::data::{ClassWeights, Example, Origin, Sample, SampleBatch, Target};
use lora_train::memory::{peak_allocated, restart_peak};
use lora_train::task::{CausalLmTask, Classify};
use lora_train::trainer::MicroBatch;
use std::path::Path;
use test_support::process::passed_alone;

fn origin() -> Origin {
    Origin::new(Path::new("a"), 1)
}

/// Three texts of different lengths.
fn texts(vocab: usize) -> Vec<Example> {
    [11, 7, 9]
        .into_iter()
        .enumerate()
        .map(|(row, length)| {
            let tokens = (0..length).map(|i| ((row * 31 + i * 17 + 5) % vocab) as u32);
            Example::new(row, tokens.collect(), 2, origin())
        })
        .collect()
}

fn labelled(vocab: usize) -> Vec<Example> {
    let example = |(row, text): (usize, Example)| {
        let tokens = text.tokens().to_vec();
        Example::with_target(row, tokens, Target::Class(row % 2), origin())
            .with_type_ids(vec![0; text.len()])
    };
    texts(vocab).into_iter().enumerate().map(example).collect()
}

fn micro<S: Sample>(samples: &[S]) -> MicroBatch<S::Batch> {
    let batch = S::collate(&samples.iter().collect::<Vec<_>>(), 1.into());
    MicroBatch {
        loss_scale: 1.0 / batch.weight(),
        batch,
        seed: 77,
    }
}

fn gpt2(dropout: f64) -> Gpt2Config {
    Gpt2Config {
        vocab_size: 61,
        n_positions: 24,
        n_embd: 24,
        n_layer: 3,
        n_head: 4,
        resid_pdrop: dropout,
        embd_pdrop: dropout,
        attn_pdrop: dropout,
        ..Gpt2Config::default()
    }
}

fn lora(targets: TargetModules) -> LoraConfig {
    LoraConfig::new(3)
        .with_alpha(5.0)
        .with_init(LoraInit::Random)
        .with_targets(targets)
}

#[test]
fn gradients_of_a_gpt2_are_those_of_kept_activations() {
    let device = Device::flex().autodiff();
    let base = || Gpt2LmHead::init(&gpt2(0.0), 3, &device).unwrap();
    let names = TargetModules::names(["c_attn", "c_fc"]);
    let adapted = |config: LoraConfig| base().attach(&config).unwrap().into_module();
    let upper = LoraConfig {
        layers: Some(vec![2]),
        ..lora(names.clone())
    };
    let embedding = lora(TargetModules::names(["wte", "c_proj"]));
    let prefix = lora_core::freeze(base()).into_module();
    for (what, model) in [
        ("all layers", adapted(lora(names.clone()))),
        ("the last layer", adapted(upper)),
        ("DoRA", adapted(lora(names).with_dora(true))),
        ("the embedding", adapted(embedding)),
        ("all weights", base()),
        (
            "a prefix",
            prefix.with_prefix(&PrefixConfig::new(4)).unwrap(),
        ),
    ] {
        let task = CausalLmTask::new(model, 0.1);
        let micro = micro(&texts(61));
        let kept = step(&task, &micro);
        let again = step(&task.with_checkpointed_activations(true), &micro);
        assert_same(&kept, &again, what);
    }
}

#[test]
fn gradients_of_encoders_are_those_of_kept_activations() {
    let device = Device::flex().autodiff();
    for folder in ["bert", "roberta", "deberta", "v2"] {
        let dir = common::fixtures().join("classify/models").join(folder);
        let ModelConfig::Encoder(config) = ModelConfig::from_dir(dir).unwrap().without_dropout()
        else {
            panic!("{folder} is an encoder");
        };
        let base = Classifier::init(&config, HeadKind::Sequence, 3, &device).unwrap();
        let lora = lora(TargetModules::AllLinear);
        for (what, model) in [
            (
                "adapters",
                base.clone().attach(&lora).unwrap().into_module(),
            ),
            ("all weights", base),
        ] {
            let task = Classify::new(model, 0.1, ClassWeights::default());
            let micro = micro(&labelled(config.vocab_size));
            let kept = step(&task, &micro);
            let again = step(&task.with_checkpointed_activations(true), &micro);
            assert_same(&kept, &again, &format!("{folder}, {what}"));
        }
    }
}

/// The gradient equals a central difference, so that the second run of a block drops what the first did.
#[test]
fn dropout_drops_the_same_both_times() {
    if passed_alone("checkpointed::dropout_drops_the_same_both_times") {
        return;
    }
    let device = Device::flex().autodiff();
    let config = lora(TargetModules::names(["c_attn", "c_fc"])).with_dropout(0.3);
    let model = Gpt2LmHead::init(&gpt2(0.2), 3, &device).unwrap();
    let (model, _) = model.attach(&config).unwrap().into_parts();
    let micro = micro(&texts(61));
    let loss_at = |shift: f32| {
        let model = model.clone().map(&mut Shift(shift));
        step(
            &CausalLmTask::new(model, 0.0).with_checkpointed_activations(true),
            &micro,
        )
    };
    let (_, grads) = loss_at(0.0);
    let step = 1e-3;
    let difference = (loss_at(step).0 - loss_at(-step).0) / (2.0 * step);
    // The direction is one everywhere.
    let slope: f32 = grads.values().flatten().sum();
    assert!(slope.abs() > 0.05, "{slope}");
    assert!(
        (difference - slope).abs() < 0.02 * slope.abs(),
        "{difference} is not {slope}"
    );
    // And the same seed draws the same.
    assert_eq!(loss_at(0.0), loss_at(0.0));
}

/// Adds a number to all that trains.
struct Shift(f32);

impl burn::module::ModuleMapper for Shift {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        let by = self.0;
        param.map(|value| (value.without_autodiff() + by).autodiff().require_grad())
    }
}

#[test]
fn less_is_kept() {
    if passed_alone("checkpointed::less_is_kept") {
        return;
    }
    let device = Device::flex().autodiff();
    let preset = Preset::Minilm.config().unwrap().without_dropout();
    let ModelConfig::Encoder(mut config) = preset.with_layers(8) else {
        panic!("MiniLM is an encoder");
    };
    config.vocab_size = 500;
    let model = Classifier::init(&config, HeadKind::Sequence, 3, &device).unwrap();
    let (model, _) = model
        .attach(&lora(TargetModules::AllLinear))
        .unwrap()
        .into_parts();
    let samples: Vec<Example> = (0..8)
        .map(|row| {
            let tokens = (0..128).map(|i| ((i * 7 + row) % 500) as u32).collect();
            Example::with_target(row, tokens, Target::Class(row % 2), origin())
                .with_type_ids(vec![0; 128])
        })
        .collect();
    let micro = micro(&samples);
    let task = Classify::new(model, 0.0, ClassWeights::default());
    let peak = |task: &Classify| {
        restart_peak();
        let before = peak_allocated().unwrap();
        drop(task.step(micro.clone()));
        peak_allocated().unwrap() - before
    };
    peak(&task); // Buffers of the threads are there after the first.
    let kept = peak(&task);
    let again = peak(&task.with_checkpointed_activations(true));
    assert!(again * 3 < kept, "{again} bytes instead of {kept}");
}
