//! Inference with the base, a merged model and a model with an active adapter, in turn.

use super::measure::{WARM_UP, in_turn};
use super::step::adapted;
use super::workload::{BatchSize, Shape, Training, tokens};
use super::{BenchReport, Timing};
use crate::TrainError;
use crate::device::{self, DeviceName};
use crate::host;
use crate::jobs::batch_limit::BatchLimit;
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
    /// Number of generated tokens, or of forward passes of an encoder; two more are not measured [default: 32; with --method 8].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// With --method: batches and lengths of the forward passes [default: those of the paper's table 1, 32x512,16x256,1x128].
    #[arg(
        long,
        value_name = "BxL",
        value_delimiter = ',',
        conflicts_with_all = ["batch_size", "max_length"]
    )]
    pub sizes: Vec<BatchSize>,
}

impl InferenceOptions {
    /// Returns true if the latency of a method is asked for, by batch and length.
    pub fn is_by_size(&self) -> bool {
        self.shape.method.is_some() || !self.sizes.is_empty()
    }
}

/// Refuses options of frozen weights.
pub(super) fn refuse_frozen(shape: &Shape) -> Result<(), TrainError> {
    for (name, given) in [
        ("quantize", shape.quantize.is_some()),
        ("base_dtype", shape.base_dtype.is_some()),
        ("precision", shape.precision.is_some()),
    ] {
        if given {
            let message = "applies to frozen weights under an adapter, and a merged model has none";
            return Err(TrainError::config(name, message));
        }
    }
    Ok(())
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
    BatchLimit::new(config.sizes(), &device).check("batch_size", size)?;
    refuse_frozen(shape)?;
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
    let method = shape.describe_with(Training::default());
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

fn ids(values: impl IntoIterator<Item = i64>, size: [usize; 2], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = values.into_iter().collect();
    Tensor::from_data(TensorData::new(values, size), device)
}

fn text(size @ [batch, length]: [usize; 2], vocab: usize, device: &Device) -> Tensor<2, Int> {
    let rows = (0..batch).flat_map(|row| tokens(row, length, vocab));
    ids(rows.map(i64::from), size, device)
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
        let message = format!(
            "{turns} tokens, {WARM_UP} before them and a text of {length} exceed the {} positions",
            base.max_positions()
        );
        return Err(TrainError::config("steps", message));
    }
    let vocab = base.vocab_size();
    let positions = |from: usize, count: usize| {
        let rows = (0..batch).flat_map(|_| from as i64..(from + count) as i64);
        ids(rows, [batch, count], device)
    };
    let mut caches = [0; 3].map(|_| KvCache::new(base.cache_layers(), total));
    for (model, cache) in models.iter().zip(&mut caches) {
        let text = text([batch, length], vocab, device);
        model.next_logits(text, None, positions(0, length), cache);
    }
    host::wait(device)?;
    in_turn(turns, |kind, turn| {
        let (token, place) = (text([batch, 1], vocab, device), positions(length + turn, 1));
        let logits = models[kind].next_logits(token, None, place, &mut caches[kind]);
        host::wait(device)?;
        drop(logits);
        Ok(())
    })
}

/// Times forward passes of language models over texts, with the logits of the last token.
pub(super) fn forwarded<M: CausalLm>(
    models: &[M; 3],
    size: [usize; 2],
    turns: usize,
    device: &Device,
) -> Result<[Timing; 3], TrainError> {
    let [batch, length] = size;
    let text = text(size, models[0].vocab_size(), device);
    let positions = ids((0..batch).flat_map(|_| 0..length as i64), size, device);
    in_turn(turns, |kind, _| {
        let mut cache = KvCache::new(models[kind].cache_layers(), length);
        let (text, positions) = (text.clone(), positions.clone());
        let logits = models[kind].next_logits(text, None, positions, &mut cache);
        host::wait(device)?;
        drop(logits);
        Ok(())
    })
}

/// Times forward passes over texts.
pub(super) fn read<M: Pretrained>(
    models: &[M; 3],
    size: [usize; 2],
    turns: usize,
    device: &Device,
) -> Result<[Timing; 3], TrainError> {
    let [batch, length] = size;
    let text = text(size, models[0].info().vocab_size, device);
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
