//! Inference with the base, a merged model and a model with an active adapter, in turn.

use super::measure::{WARM_UP, in_turn};
use super::step::adapted;
use super::workload::{Shape, Training, tokens};
use super::{BenchReport, Timing};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::host;
use crate::jobs::ranges::at_least_one;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use clap::Args;
use lora_core::{merge, trainable_summary};
use lora_models::generate::KvCache;
use lora_models::{CausalLm, Pretrained, dispatch};

/// Options of `lora bench inference`.
#[derive(Args, Clone, Debug, Default)]
pub struct InferenceOptions {
    /// Workload: a language model reads `max-length` tokens and then generates one after another, an encoder reads them.
    #[command(flatten)]
    pub shape: Shape,
    /// Number of generated tokens, or of forward passes of an encoder; two more are not measured [default: 32].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
}

const KINDS: [(&str, &str); 3] = [
    ("base_s", "base_min_s"),
    ("merged_s", "merged_min_s"),
    ("adapter_s", "adapter_min_s"),
];

/// Times each model in each turn. `median_s` and `min_s` belong to the active adapter.
///
/// # Errors
/// If the shape exceeds the model's, or the device fails.
pub fn bench_inference(options: &InferenceOptions) -> Result<BenchReport, TrainError> {
    let shape = &options.shape;
    let turns = at_least_one("steps", options.steps.unwrap_or(32))?;
    let device = device::open(shape.device.unwrap_or(DeviceName::Auto))?;
    let (name, config) = shape.model()?;
    let size @ [batch, length] = shape.size(1, &config)?;
    if shape.quantize.is_some() {
        return Err(TrainError::config(
            "quantize",
            "applies to frozen weights under an adapter, and a merged model has none",
        ));
    }
    let (timings, trainable) = dispatch!(&config,
        causal M(config) => {
            let (models, trainable) = models::<M>(config, shape, &device)?;
            (generated(&models, size, turns, &device)?, trainable)
        },
        encoder M(config) => {
            let (models, trainable) = models::<M>(config, shape, &device)?;
            (read(&models, size, turns, &device)?, trainable)
        },
    );
    let [base, merged, active] = &timings;
    let method = shape.method(Training::default());
    let mut report = BenchReport::new("inference", name, method, &device, active, trainable)
        .with("batch_size", batch as f64)
        .with("max_length", length as f64)
        .with("steps", turns as f64)
        .with("merged_to_base", merged.median() / base.median())
        .with("adapter_to_merged", active.median() / merged.median());
    for ((median, min), timing) in KINDS.into_iter().zip(&timings) {
        report = report.with(median, timing.median()).with(min, timing.min());
    }
    Ok(report)
}

/// Creates the base, the merged model and the model with an active adapter, and counts the trainable parameters.
fn models<M: Pretrained>(
    config: &M::Config,
    shape: &Shape,
    device: &Device,
) -> Result<([M; 3], usize), TrainError> {
    let base = M::init_random(config, &M::Options::default(), 0, device)?;
    let active = adapted(base.clone(), shape)?;
    let trainable = trainable_summary(&active).trainable;
    let merged = merge(active.clone()).into_module();
    Ok(([base, merged, active], trainable))
}

fn ids(values: Vec<i64>, shape: [usize; 2], device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn rows([batch, length]: [usize; 2], vocab: usize) -> Vec<i64> {
    let rows = (0..batch).flat_map(|row| tokens(row, length, vocab));
    rows.map(i64::from).collect()
}

/// Times single tokens after a text.
fn generated<M: CausalLm>(
    models: &[M; 3],
    [batch, length]: [usize; 2],
    turns: usize,
    device: &Device,
) -> Result<[Timing; 3], TrainError> {
    let [base, _, _] = models;
    let total = length + turns + WARM_UP;
    if total > base.max_positions() {
        return Err(TrainError::config(
            "steps",
            format!(
                "{turns} tokens, {WARM_UP} before them and a text of {length} exceed the {} positions",
                base.max_positions()
            ),
        ));
    }
    let vocab = base.vocab_size();
    let position = |from: usize, to: usize| -> Vec<i64> {
        (0..batch).flat_map(|_| from as i64..to as i64).collect()
    };
    let mut caches = [0; 3].map(|_| KvCache::new(base.cache_layers(), total));
    for (model, cache) in models.iter().zip(&mut caches) {
        let text = ids(rows([batch, length], vocab), [batch, length], device);
        let places = ids(position(0, length), [batch, length], device);
        model.next_logits(text, None, places, cache);
    }
    host::wait(device)?;
    in_turn(turns, |kind, turn| {
        let place = length + turn;
        let token = ids(rows([batch, 1], vocab), [batch, 1], device);
        let places = ids(position(place, place + 1), [batch, 1], device);
        let logits = models[kind].next_logits(token, None, places, &mut caches[kind]);
        host::wait(device)?;
        drop(logits);
        Ok(())
    })
}

/// Times forward passes over texts.
fn read<M: Pretrained>(
    models: &[M; 3],
    size: [usize; 2],
    turns: usize,
    device: &Device,
) -> Result<[Timing; 3], TrainError> {
    let [batch, length] = size;
    let vocab = models[0].info().vocab_size;
    let text = ids(rows(size, vocab), size, device);
    let real = TensorData::new(vec![true; batch * length], size);
    let real = Tensor::<2, Bool>::from_data(real, device);
    let type_ids = Tensor::<2, Int>::zeros(size, device);
    in_turn(turns, |kind, _| {
        let outputs = models[kind].outputs(text.clone(), real.clone(), type_ids.clone());
        host::wait(device)?;
        drop(outputs);
        Ok(())
    })
}
