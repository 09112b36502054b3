//! Training steps at one shape.

use super::measure::repeated;
use super::workload::{Shape, Training, labelled, texts};
use super::{BenchReport, Timing};
use crate::TrainError;
use crate::data::{ClassWeights, Sample, SampleBatch};
use crate::device::{self, DeviceName};
use crate::host;
use crate::jobs::ranges::at_least_one;
use crate::memory;
use crate::task::{CausalLm, Classify};
use crate::trainer::{AdamW, MicroBatch, Task};
use burn::tensor::Device;
use clap::Args;
use lora_core::{LoraConfig, QuantizeConfig, trainable_summary};
use lora_models::classifier::{Classifier, HeadKind};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoraModel, ModelConfig};

/// Options of `lora bench step`.
#[derive(Args, Clone, Debug, Default)]
pub struct StepOptions {
    /// The work.
    #[command(flatten)]
    pub shape: Shape,
    /// What trains.
    #[command(flatten)]
    pub training: Training,
    /// Steps that are counted, after two that are not [default: 8].
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
}

/// What steps took.
pub(in crate::tools) struct Measured {
    pub timing: Timing,
    /// Of the last step.
    pub loss: f64,
    pub trainable: usize,
    /// The most bytes that the process had allocated at once, where an allocator counts them.
    pub peak: Option<usize>,
}

/// Times training steps: forward, backward, AdamW, and the loss read back.
///
/// # Errors
/// For a shape that the model does not take, and where the device fails.
pub fn bench_step(options: &StepOptions) -> Result<BenchReport, TrainError> {
    let StepOptions {
        shape, training, ..
    } = options;
    let steps = at_least_one("steps", options.steps.unwrap_or(8))?;
    let device = device::open(shape.device.unwrap_or(DeviceName::Auto))?.autodiff();
    let (name, config) = shape.model()?;
    let size @ [batch, length] = shape.size(8, &config)?;
    let found = measured(&config, shape, *training, size, steps, &device)?;
    let Measured {
        timing, trainable, ..
    } = &found;
    let method = shape.method(*training);
    let report = BenchReport::new("step", name, method, &device, timing, *trainable)
        .with("batch_size", batch as f64)
        .with("max_length", length as f64)
        .with("steps", steps as f64)
        .with("tokens_per_s", (batch * length) as f64 / timing.median())
        .with("loss", found.loss);
    Ok(report)
}

/// Trains a model of this configuration, with random weights, for some steps.
pub(in crate::tools) fn measured(
    config: &ModelConfig,
    shape: &Shape,
    training: Training,
    size: [usize; 2],
    steps: usize,
    device: &Device,
) -> Result<Measured, TrainError> {
    memory::restart_peak();
    let vocab = config.vocab_size();
    let checkpointed = training.checkpoint_activations;
    let (timing, loss, trainable) = match config {
        ModelConfig::Gpt2(config) => {
            let model = Gpt2LmHead::init(config, 0, device)?;
            let model = prepared(model, shape, training)?;
            let trainable = trainable_summary(&model).trainable;
            let task = CausalLm::new(model, 0.0).with_checkpointed_activations(checkpointed);
            let (timing, loss) = time(task, &texts(size, vocab), steps)?;
            (timing, loss, trainable)
        }
        ModelConfig::Encoder(config) => {
            let model = Classifier::init(config, HeadKind::Sequence, 0, device)?;
            let model = prepared(model, shape, training)?;
            let trainable = trainable_summary(&model).trainable;
            let task = Classify::new(model, 0.0, ClassWeights::default())
                .with_checkpointed_activations(checkpointed);
            let (timing, loss) = time(task, &labelled(size, vocab), steps)?;
            (timing, loss, trainable)
        }
    };
    Ok(Measured {
        timing,
        loss,
        trainable,
        peak: memory::peak_allocated(),
    })
}

/// The model with what is to train.
fn prepared<M: LoraModel>(model: M, shape: &Shape, training: Training) -> Result<M, TrainError> {
    match training.full {
        true => Ok(model.set_require_grad(true)),
        false => adapted(model, shape),
    }
}

/// The model with the adapter that a shape asks for.
pub(super) fn adapted<M: LoraModel>(model: M, shape: &Shape) -> Result<M, TrainError> {
    let lora = with_adapter(&model, shape)?;
    let model = match shape.quantize {
        None => model,
        Some(kind) => model.quantize(&QuantizeConfig::new(kind))?.0,
    };
    Ok(model.attach(&lora)?.0)
}

/// The adapter that a shape asks for on a model.
pub(in crate::tools) fn with_adapter<M: LoraModel>(
    model: &M,
    shape: &Shape,
) -> Result<LoraConfig, TrainError> {
    let mut lora = shape.lora()?;
    if shape.targets.is_none() {
        lora.targets = model.default_targets();
    }
    Ok(lora)
}

/// Times steps; the loss of the last comes with it.
fn time<S: Sample, M: Task<S>>(
    task: M,
    samples: &[S],
    steps: usize,
) -> Result<(Timing, f64), TrainError> {
    let batch = S::collate(&samples.iter().collect::<Vec<_>>(), 0);
    let loss_scale = 1.0 / batch.weight().max(1.0);
    let mut optimizer = AdamW::default().init(&task);
    let mut task = Some(task);
    let mut last = f64::NAN;
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
        task = Some(current.optimize(&mut optimizer, 1e-4.into(), output.grads));
        let loss = host::values(output.item.loss)?;
        last = loss.first().map_or(f64::NAN, |&loss| f64::from(loss));
        Ok(())
    })?;
    Ok((timing, last))
}
