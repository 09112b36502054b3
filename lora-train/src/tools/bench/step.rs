//! Training steps with one batch size.

use super::measure::repeated;
use super::workload::{Shape, Training, labelled, texts};
use super::{BenchReport, Timing};
use crate::TrainError;
use crate::data::{ClassWeights, Sample, SampleBatch};
use crate::device::{self, DeviceName};
use crate::host;
use crate::jobs::batch_limit::BatchLimit;
use crate::jobs::ranges::at_least_one;
use crate::jobs::session::trained_in_full;
use crate::memory;
use crate::task::{CausalLmTask, Classify};
use crate::trainer::ranks::{Alone, Exchange, ExchangeReport, Ranks};
use crate::trainer::{AdamW, MicroBatch, Task};
use burn::tensor::Device;
use clap::Args;
use lora_core::ops::{LaunchCounter, with_mixed_precision};
use lora_core::{BaseFloats, HalfFloat, QuantizeConfig, trainable_summary};
use lora_models::{LoraModel, ModelConfig, Pretrained, dispatch};
use std::sync::Arc;

/// Options of `lora bench step`.
#[derive(Args, Clone, Debug, Default)]
pub struct StepOptions {
    /// Workload.
    #[command(flatten)]
    pub shape: Shape,
    /// Training.
    #[command(flatten)]
    pub training: Training,
    /// Number of measured steps, after two that are not measured [default: 8].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Measure steps of all ranks of a launcher together, with a batch at each, and the share of their exchange: `mpirun -n 2 lora bench step --ranks`.
    #[arg(long)]
    pub ranks: bool,
}

/// Measurement of training steps.
pub(in crate::tools) struct Measured {
    pub timing: Timing,
    /// Loss of the last step.
    pub loss: f64,
    pub trainable: usize,
    /// Kernels that a GPU ran in the last step.
    pub launches: u64,
    /// Peak of the allocated bytes, if an allocator counts them.
    pub peak: Option<usize>,
    /// Exchange of the measured steps and of those before with other ranks.
    pub exchange: ExchangeReport,
}

/// Times training steps: forward, backward, AdamW, and the loss read back.
///
/// # Errors
/// If the shape exceeds the model's, or the device fails.
pub fn bench_step(options: &StepOptions) -> Result<BenchReport, TrainError> {
    bench_step_with(&(Arc::new(Alone) as Arc<dyn Ranks>), options)
}

/// Times training steps of several ranks, with the exchange of their gradients.
///
/// # Errors
/// As [`bench_step`].
pub fn bench_step_with(
    ranks: &Arc<dyn Ranks>,
    options: &StepOptions,
) -> Result<BenchReport, TrainError> {
    let (shape, training) = (&options.shape, options.training);
    let steps = at_least_one("steps", options.steps.unwrap_or(8))?;
    let device = shape.device.unwrap_or(DeviceName::Auto);
    let device = device::open_numbered(device, ranks.local().rank)?.autodiff();
    let (name, config) = shape.model()?;
    let size @ [batch, length] = shape.size(8, &config)?;
    let mut exchange = Exchange::new(ranks.clone());
    let found = measured(
        &config,
        shape,
        training,
        size,
        steps,
        (&device, &mut exchange),
    )?;
    let (timing, method) = (&found.timing, shape.describe_with(training));
    let mut report = BenchReport::new("step", name, method, &device, timing, found.trainable)
        .with("batch_size", batch as f64)
        .with("max_length", length as f64)
        .with("steps", steps as f64)
        .with(
            "tokens_per_s",
            (batch * length * ranks.size()) as f64 / timing.median(),
        )
        .with("loss", found.loss);
    if found.launches > 0 {
        report = report.with("launches", found.launches as f64);
    }
    if !ranks.is_alone() {
        let of_step = |value: f64| value / found.exchange.steps as f64;
        let (exchange, waiting) = (
            of_step(found.exchange.seconds),
            of_step(found.exchange.waiting),
        );
        report = report
            .with("ranks", ranks.size() as f64)
            .with("exchange_s", exchange)
            .with("exchange_share", exchange / timing.median())
            .with("waiting_s", waiting)
            .with(
                "sent_mib",
                of_step(found.exchange.bytes as f64) / f64::from(1 << 20),
            );
    }
    Ok(report)
}

/// Trains a model with random weights for some steps.
pub(in crate::tools) fn measured(
    config: &ModelConfig,
    shape: &Shape,
    training: Training,
    size: [usize; 2],
    steps: usize,
    (device, exchange): (&Device, &mut Exchange),
) -> Result<Measured, TrainError> {
    memory::restart_peak();
    BatchLimit::new(config.sizes(), device).check("batch_size", size)?;
    let vocab = config.sizes().vocab_size;
    let checkpointed = training.checkpoint_activations;
    let mixed = shape.precision.unwrap_or_default().half_on(device)?;
    with_mixed_precision(mixed, || {
        Ok(dispatch!(config,
            causal M(config) => {
                let (model, trainable) = prepared::<M>(config, shape, training, mixed, device)?;
                let task = CausalLmTask::new(model, 0.0).with_checkpointed_activations(checkpointed);
                time(task, &texts(size, vocab), steps, trainable, exchange)?
            },
            encoder M(config) => {
                let (model, trainable) = prepared::<M>(config, shape, training, mixed, device)?;
                let task = Classify::new(model, 0.0, ClassWeights::default())
                    .with_checkpointed_activations(checkpointed);
                time(task, &labelled(size, vocab), steps, trainable, exchange)?
            },
        ))
    })
}

/// Creates a model to train, and counts its trainable parameters.
fn prepared<M: Pretrained>(
    config: &M::Config,
    shape: &Shape,
    training: Training,
    mixed: Option<HalfFloat>,
    device: &Device,
) -> Result<(M, usize), TrainError> {
    let options = M::Options::default();
    let model = if training.full || shape.trained()?.is_full() {
        trained_in_full(M::init_random(config, &options, 0, device)?)?
    } else {
        let quantize = shape.quantize.map(QuantizeConfig::new);
        let floats = BaseFloats::new(shape.base_dtype.unwrap_or_default()).with_linear(mixed);
        let quantize = quantize.as_ref();
        let model = M::init_random_packed(config, &options, quantize, &floats, 0, device)?;
        adapted(model, shape)?
    };
    let trainable = trainable_summary(&model).trainable;
    Ok((model, trainable))
}

/// Adds what the method of a shape trains to a model.
pub(in crate::tools) fn adapted<M: LoraModel>(model: M, shape: &Shape) -> Result<M, TrainError> {
    let lora = shape.lora(&model)?;
    let mut model = match &lora {
        Some(lora) => model.attach(lora)?,
        None => model.freeze_all_but_head()?,
    }
    .into_module();
    if let Some(prefix) = shape.prefix()? {
        model = model.with_prefix(&prefix)?;
    }
    if let Some(layers) = shape.adapter_layers()? {
        model = model.with_adapter_layers(&layers)?;
    }
    Ok(model)
}

/// Times steps of a task with this number of trainable parameters.
fn time<S: Sample, M: Task<S>>(
    task: M,
    samples: &[S],
    steps: usize,
    trainable: usize,
    exchange: &mut Exchange,
) -> Result<Measured, TrainError> {
    let ranks = exchange.ranks().size();
    let batch = S::collate(&samples.iter().collect::<Vec<_>>(), 0.into());
    let loss_scale = 1.0 / (batch.weight() * ranks as f64).max(1.0);
    let mut optimizer = AdamW::default().init(&task);
    let mut task = Some(task);
    let mut loss = f64::NAN;
    let counter = LaunchCounter::new();
    let (mut launches, mut before) = (0, 0);
    let timing = repeated(steps, |turn| {
        let Some(current) = task.take() else {
            return Ok(());
        };
        let micro = MicroBatch {
            batch: batch.clone(),
            loss_scale,
            seed: turn as u64,
        };
        let output = burn_train::TrainStep::step(&current, micro);
        let (mut grads, mut sum) = (output.grads, output.item.loss);
        if ranks > 1 {
            (grads, sum) = exchange.sum_of_one_each(&current, grads, sum.without_autodiff())?;
        }
        task = Some(current.optimize(&mut optimizer, 1e-4.into(), grads));
        let values = host::values(sum)?;
        loss = values.first().map_or(f64::NAN, |&loss| f64::from(loss));
        launches = counter.launches() - before;
        before += launches;
        Ok(())
    })?;
    Ok(Measured {
        timing,
        loss,
        trainable,
        launches,
        peak: memory::peak_allocated(),
        exchange: exchange.report,
    })
}
