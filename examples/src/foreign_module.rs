//! Adapters on a plain Burn module, with `lora-core` alone.
#![allow(clippy::print_stdout, reason = "an example prints to a terminal")]

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use lora_core::file::{self, PeftOptions};
use lora_core::files::Overwrite;
use lora_core::{
    Architecture, LoraConfig, LoraError, TargetModules, attach, detach, merge, trainable_summary,
};
use std::path::Path;

/// Module of plain Burn layers, for example from another crate.
#[derive(Module, Debug)]
pub struct Regressor {
    input: Linear,
    hidden: Linear,
    output: Linear,
}

impl Regressor {
    fn new(device: &Device) -> Self {
        Self {
            input: LinearConfig::new(1, 64).init(device),
            hidden: LinearConfig::new(64, 64).init(device),
            output: LinearConfig::new(64, 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.input.forward(x).tanh();
        self.output.forward(self.hidden.forward(x).tanh())
    }
}

/// Result of the example.
#[derive(Debug)]
pub struct Outcome {
    /// Mean squared error of the pretrained module on the new task.
    pub before: f32,
    /// Error after training the adapters.
    pub after: f32,
    /// Error with the adapters merged into plain weights.
    pub merged: f32,
    /// Error with the adapter loaded from its PEFT directory.
    pub reloaded: f32,
    /// Trainable parameters, in percent of all.
    pub percent: f64,
}

/// Samples a sine wave at 128 points.
fn wave(phase: f32, device: &Device) -> (Tensor<2>, Tensor<2>) {
    let points: Vec<f32> = (0..128).map(|i| i as f32 / 20.0 - 3.2).collect();
    let values = points.iter().map(|x| (2.0 * x + phase).sin()).collect();
    let column = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, [128, 1]), device);
    (column(points), column(values))
}

fn error(model: &Regressor, (x, y): &(Tensor<2>, Tensor<2>)) -> Tensor<1> {
    (model.forward(x.clone()) - y.clone()).square().mean()
}

/// Trains with plain Burn: the optimizer updates parameters with a gradient, which are only the adapters once they
/// are attached.
fn train(mut model: Regressor, data: &(Tensor<2>, Tensor<2>), steps: usize, lr: f64) -> Regressor {
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..steps {
        let grads = error(&model, data).backward();
        let grads = GradientsParams::from_grads(grads, &model);
        model = optimizer.step(lr, model, grads);
    }
    model
}

/// Pretrains on one wave, adapts to another, saves, loads and merges.
///
/// # Errors
/// Fails if the adapter cannot be written to `dir`.
pub fn run(dir: &Path) -> Result<Outcome, LoraError> {
    let device = Device::default().autodiff();
    device.seed(7);
    let model = train(Regressor::new(&device), &wave(0.0, &device), 600, 1e-2);

    let task = wave(0.7, &device);
    let value = |loss: Tensor<1>| loss.into_scalar::<f32>();
    let before = value(error(&model, &task));

    let config = LoraConfig::new(4)
        .with_alpha(8.0)
        .with_targets(TargetModules::names(["hidden", "input"]))
        .with_rank_for("input", 1);
    let (model, report) = attach(model, &config)?.into_parts();
    println!("{report}");
    let summary = trainable_summary(&model);
    println!("{summary}");
    let model = train(model, &task, 600, 1e-2);
    let after = value(error(&model, &task));

    file::save(
        &model,
        &report,
        dir,
        &PeftOptions::default(),
        Overwrite::Replace,
    )?;
    let merged = merge(model);
    let merged_error = value(error(merged.module(), &task));

    let base = detach(merged.unmerge());
    let reloaded = file::load(base, dir, &Architecture::default())?.into_module();
    Ok(Outcome {
        before,
        after,
        merged: merged_error,
        reloaded: value(error(&reloaded, &task)),
        percent: summary.percent(),
    })
}
