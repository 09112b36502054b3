//! Plan of a training run: its options, checked and with defaults.

use crate::TrainError;
use crate::data::{BatchOrder, BatchPlan, BatchSize, DataFiles};
use crate::device;
use crate::jobs::adapter::{adapter_layers_config, lora_config, lora_plus, prefix_config};
use crate::jobs::ranges::{at_least_one, within};
use crate::jobs::sources::Sources;
use crate::options::{Method, MethodPart, Precision, TrainOptions};
use crate::task::TaskName;
use crate::trainer::{AdamW, CheckpointDir, Every, LoraPlus, ScheduleKind};
use burn::tensor::Device;
use lora_core::{BaseDType, BaseFloats, HalfFloat, LoraConfig, QuantizeConfig};
use lora_models::ModelConfig;
use lora_models::adapter_layers::AdapterLayersConfig;
use lora_models::prefix::PrefixConfig;
use std::path::PathBuf;

/// Plan of a run: [`TrainOptions`], checked and with defaults.
#[derive(Clone, Debug)]
pub struct TrainPlan {
    /// Options as given.
    pub options: TrainOptions,
    /// Directory of the base model, or its name on the Hub.
    pub model: PathBuf,
    /// Files of the training data.
    pub data: DataFiles,
    /// Output directory.
    pub output: PathBuf,
    /// Method.
    pub method: Method,
    /// Configuration of what is trained of the model's own parameters; `None` to train all weights, or none but a head.
    pub lora: Option<LoraConfig>,
    /// Configuration of the virtual tokens.
    pub prefix: Option<PrefixConfig>,
    /// Configuration of the adapter layers.
    pub adapter_layers: Option<AdapterLayersConfig>,
    /// Options of the optimizer.
    pub adamw: AdamW,
    /// Maximum learning rate.
    pub lr: f64,
    /// Learning rates of LoRA+.
    pub lora_plus: Option<LoraPlus>,
    /// Schedule of the learning rate after the warm-up.
    pub schedule: ScheduleKind,
    /// Maximum norm of all gradients together, for clipping.
    pub max_grad_norm: Option<f64>,
    /// Label smoothing in [0, 1).
    pub label_smoothing: f64,
    /// Size of a batch.
    pub batch: BatchSize,
    /// Number of examples in a forward pass of an evaluation.
    pub eval_batch_size: usize,
    /// Number of forward passes in a step.
    pub accumulation: usize,
    /// Number of epochs.
    pub epochs: usize,
    /// Order of the examples.
    pub order: BatchOrder,
    /// Seed of all random draws.
    pub seed: u64,
    /// Interval of evaluations.
    pub evaluate: Every,
    /// Interval of checkpoints.
    pub save: Every,
    /// Number of checkpoints that are kept.
    pub keep_checkpoints: usize,
    /// 16-bit type of products with frozen weights; `None` for f32, and until the device is known.
    pub mixed: Option<HalfFloat>,
}

/// Creates the error for packing beside a prefix.
pub(super) fn packed_prefix() -> TrainError {
    TrainError::config(
        "packing",
        "cannot be used with a prefix: each example in a row would need the prefix before it",
    )
}

/// Creates the error for packing on a GPU.
pub(super) fn packed_on_gpu(device: &Device) -> TrainError {
    TrainError::config(
        "packing",
        format!(
            "cannot be used on {}: attention would run its kernels once for each text of a row. Leave it out: by default a \
             batch has examples of like length and hardly any padding",
            device::describe(device)
        ),
    )
}

fn required(name: &str, value: &Option<PathBuf>) -> Result<PathBuf, TrainError> {
    let message = format!("is missing: give --{name}, or `{name}` in a recipe");
    (value.clone()).ok_or_else(|| TrainError::config(name, message))
}

/// Refuses options that do not go together.
fn check_conflicts(o: &TrainOptions, method: &Method) -> Result<(), TrainError> {
    let full = method.is_full();
    let best = o.early_stopping.is_some() || o.keep_best || o.metric.is_some();
    let (option, message) = if o.warmup_ratio.is_some() && o.warmup_steps.is_some() {
        ("warmup_ratio", "is given beside warmup_steps; give one")
    } else if o.from_scratch && !full {
        let message = "requires --full: an adapter on random weights learns nothing useful";
        ("from_scratch", message)
    } else if full && (o.adapter.is_some() || o.merge) {
        let message = "trains all weights: there is no adapter to start from or to merge";
        ("full", message)
    } else if full && o.quantize.is_some() {
        let message = "applies to frozen weights, but --full trains all weights";
        ("quantize", message)
    } else if full && o.base_dtype.is_some_and(|dtype| dtype != BaseDType::F32) {
        let message = "applies to frozen weights, but --full trains all weights, in f32";
        ("base_dtype", message)
    } else if full && o.precision == Some(Precision::Mixed) {
        let message =
            "is mixed, for products with frozen weights, but --full trains all weights, in f32";
        ("precision", message)
    } else if o.new_tokens.is_some() && (full || (o.adapter.is_some() && !o.resume)) {
        let message = "begins with a new adapter: leave out --full, and --adapter, whose tokens are trained further by themselves";
        ("new_tokens", message)
    } else if best && !o.evaluates() {
        let message = "is missing: early stopping, `keep_best` and `metric` need evaluations; give it, or eval_split";
        ("eval_data", message)
    } else if o.eval_split.is_some() && o.eval_data.is_some() {
        let message = "is given beside eval_data; give one";
        ("eval_split", message)
    } else if o.eval_split_seed.is_some() && o.eval_split.is_none() {
        let message = "is the seed of eval_split, which is not given";
        ("eval_split_seed", message)
    } else if o.batch_size.is_some() && o.batch_tokens.is_some() {
        ("batch_tokens", "is given beside batch_size; give one")
    } else if o.pad_to_multiple_of.is_some() && o.packing {
        let message = "pads the examples of a batch, and packed examples are not padded; give one";
        ("pad_to_multiple_of", message)
    } else {
        return Ok(());
    };
    Err(TrainError::config(option, message))
}

impl TrainPlan {
    /// Checks every option and adds the defaults.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub fn new(options: TrainOptions) -> Result<Self, TrainError> {
        let o = &options;
        let rate =
            |name: &str, value| within(name, value, 0.0..=f64::MAX, "a number of at least 0");
        let share = |name: &str, value| within(name, value, 0.0..1.0, "a number in [0, 1)");
        if let Some(ratio) = o.warmup_ratio {
            within("warmup_ratio", ratio, 0.0..=1.0, "a share in [0, 1]")?;
        }
        let method = o.method()?;
        check_conflicts(o, &method)?;
        let batch_size = at_least_one("batch_size", o.batch_size.unwrap_or(8))?;
        let most = o
            .max_examples
            .map(|most| at_least_one("max_examples", most));
        most.transpose()?;
        let batch_tokens = o
            .batch_tokens
            .map(|most| at_least_one("batch_tokens", most));
        let batch = match (batch_tokens.transpose()?, o.packing) {
            (None, _) => BatchSize::Examples(batch_size),
            (Some(most), false) => BatchSize::PaddedTokens(most),
            (Some(most), true) => BatchSize::PackedTokens(most),
        };
        let max_grad_norm = rate("max_grad_norm", o.max_grad_norm.unwrap_or(1.0))?;
        let prefix = prefix_config(o, &method)?;
        if o.packing && prefix.is_some() {
            return Err(packed_prefix());
        }
        let lora = lora_config(o, &method)?;
        let adapter_layers = adapter_layers_config(o, &method)?;
        let eval_batch_size = o.eval_batch_size.unwrap_or(batch_size);
        let standard = AdamW::default();
        Ok(Self {
            model: required("model", &o.model)?,
            data: DataFiles::new(&o.data)?,
            output: required("output", &o.output)?,
            lora,
            prefix,
            adapter_layers,
            adamw: AdamW {
                beta1: share("beta1", o.beta1.unwrap_or(standard.beta1))?,
                beta2: share("beta2", o.beta2.unwrap_or(standard.beta2))?,
                epsilon: rate("epsilon", o.epsilon.unwrap_or(standard.epsilon))?,
                weight_decay: rate(
                    "weight_decay",
                    o.weight_decay.unwrap_or(standard.weight_decay),
                )?,
            },
            lr: rate("lr", o.lr.unwrap_or(2e-4))?,
            lora_plus: lora_plus(o, &method)?,
            schedule: o.schedule.unwrap_or_default(),
            max_grad_norm: (max_grad_norm > 0.0).then_some(max_grad_norm),
            label_smoothing: share("label_smoothing", o.label_smoothing.unwrap_or(0.0))?,
            batch,
            eval_batch_size: at_least_one("eval_batch_size", eval_batch_size)?,
            accumulation: at_least_one("grad_accumulation", o.grad_accumulation.unwrap_or(1))?,
            epochs: at_least_one("epochs", o.epochs.unwrap_or(3))?,
            // Packed examples need no padding, whatever their lengths.
            order: match (o.no_shuffle, o.no_group_by_length || o.packing) {
                (true, _) => BatchOrder::FileOrder,
                (false, true) => BatchOrder::Shuffled,
                (false, false) => BatchOrder::GroupedByLength,
            },
            seed: o.seed.unwrap_or(42),
            evaluate: match (o.evaluates(), o.eval_steps) {
                (false, _) => Every::Never,
                (true, None) => Every::Epoch,
                (true, Some(steps)) => Every::Steps(at_least_one("eval_steps", steps)?),
            },
            save: match o.save_steps {
                None => Every::Epoch,
                Some(0) => Every::Never,
                Some(steps) => Every::Steps(steps),
            },
            keep_checkpoints: match o.keep_checkpoints {
                None => CheckpointDir::KEPT,
                Some(count) => at_least_one("keep_checkpoints", count)?,
            },
            mixed: None,
            method,
            options,
        })
    }

    /// Adds what depends on the model: the last two layers, if the method trains them.
    pub(crate) fn for_model(mut self, config: &ModelConfig) -> Self {
        if let (true, Some(lora)) = (self.method.has(MethodPart::Top2), &mut self.lora) {
            lora.modules_to_save = config.last_layers(2);
        }
        self
    }

    /// Returns the modules that are trained fully, beside a head.
    fn saved_modules(&self) -> Vec<String> {
        let lora = self.lora.as_ref();
        lora.map_or_else(Vec::new, |lora| lora.modules_to_save.clone())
    }

    /// Returns the quantization of the frozen weights.
    pub(crate) fn quantize(&self, sources: &Sources) -> Result<Option<QuantizeConfig>, TrainError> {
        sources.quantize(self.options.quantize, &self.saved_modules())
    }

    /// Adds the 16-bit type of products with frozen weights on a device.
    ///
    /// # Errors
    /// As [`Precision::half_on`].
    pub(crate) fn on(self, device: &Device) -> Result<Self, TrainError> {
        let mixed = self.options.precision.unwrap_or_default().half_on(device)?;
        Ok(Self { mixed, ..self })
    }

    /// Returns the float type of the frozen weights that are not quantized.
    pub(crate) fn floats(&self, sources: &Sources) -> Result<BaseFloats, TrainError> {
        let mut saved = self.saved_modules();
        if self.options.new_tokens.is_some() {
            saved.push(sources.model.config().token_embedding());
        }
        sources.floats(self.options.base_dtype, self.mixed, &saved)
    }

    /// Returns the task: the option's, or else that of the model and the adapter to start from.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the model does not fit the task.
    pub(crate) fn task(&self, sources: &Sources) -> Result<TaskName, TrainError> {
        let by_model = sources.task()?;
        let task = self.options.task.unwrap_or(by_model);
        if (task == TaskName::CausalLm) != (by_model == TaskName::CausalLm) {
            let model = self.model.display();
            let message = format!(
                "is {task}, but {model} is a model for {by_model}; causal-lm needs a language model without a \
                 head of classes",
            );
            return Err(TrainError::config("task", message));
        }
        Ok(task)
    }

    /// Returns the number of steps of the run.
    ///
    /// # Errors
    /// [`TrainError::Config`] for `max_steps` 0.
    pub fn total_steps(&self, batches: &BatchPlan) -> Result<usize, TrainError> {
        let steps = |epoch| batches.batches_in(epoch).div_ceil(self.accumulation);
        match self.options.max_steps {
            Some(steps) => at_least_one("max_steps", steps),
            None => Ok((0..self.epochs as u64).map(steps).sum()),
        }
    }

    /// Returns the number of steps of the warm-up; a ratio is rounded up, as in transformers.
    pub fn warmup_steps(&self, total: usize) -> usize {
        match (self.options.warmup_steps, self.options.warmup_ratio) {
            (Some(steps), _) => steps,
            (None, Some(ratio)) => (ratio * total as f64).ceil() as usize,
            (None, None) => 0,
        }
    }

    /// Returns true if the weights of the best evaluation are kept, in place of the last step's.
    pub fn keeps_best(&self) -> bool {
        self.options.keep_best || self.options.early_stopping.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> TrainOptions {
        TrainOptions {
            model: Some("base".into()),
            data: vec!["train.jsonl".into()],
            output: Some("out".into()),
            ..TrainOptions::default()
        }
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let bad: [(&str, TrainOptions); 12] = [
            (
                "model",
                TrainOptions {
                    model: None,
                    ..options()
                },
            ),
            (
                "batch_size",
                TrainOptions {
                    batch_size: Some(0),
                    ..options()
                },
            ),
            (
                "lr",
                TrainOptions {
                    lr: Some(f64::NAN),
                    ..options()
                },
            ),
            (
                "label_smoothing",
                TrainOptions {
                    label_smoothing: Some(1.0),
                    ..options()
                },
            ),
            (
                "warmup_ratio",
                TrainOptions {
                    warmup_ratio: Some(1.5),
                    ..options()
                },
            ),
            (
                "from_scratch",
                TrainOptions {
                    from_scratch: true,
                    ..options()
                },
            ),
            (
                "eval_data",
                TrainOptions {
                    early_stopping: Some(2),
                    ..options()
                },
            ),
            (
                "batch_tokens",
                TrainOptions {
                    batch_size: Some(4),
                    batch_tokens: Some(512),
                    ..options()
                },
            ),
            (
                "batch_tokens",
                TrainOptions {
                    batch_tokens: Some(0),
                    ..options()
                },
            ),
            (
                "packing",
                TrainOptions {
                    packing: true,
                    prefix: Some(4),
                    ..options()
                },
            ),
            (
                "precision",
                TrainOptions {
                    full: true,
                    precision: Some(Precision::Mixed),
                    ..options()
                },
            ),
            (
                "full",
                TrainOptions {
                    full: true,
                    merge: true,
                    ..options()
                },
            ),
        ];
        for (name, options) in bad {
            match TrainPlan::new(options) {
                Err(TrainError::Config { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn steps_and_warm_up_are_counted_as_transformers_does() {
        let plan = TrainPlan::new(TrainOptions {
            epochs: Some(3),
            grad_accumulation: Some(4),
            warmup_ratio: Some(0.1),
            ..options()
        })
        .unwrap();
        // 10 batches make 3 steps an epoch, the last of 2 batches.
        let batches = |lengths: &[usize], size| {
            BatchPlan::new(lengths.to_vec(), size, BatchOrder::FileOrder, 0).unwrap()
        };
        let ten = batches(&[3; 20], BatchSize::Examples(2));
        assert_eq!(plan.total_steps(&ten).unwrap(), 9);
        let five = batches(&[3; 20], BatchSize::PackedTokens(12));
        assert_eq!(plan.total_steps(&five).unwrap(), 6);
        assert_eq!(plan.warmup_steps(9), 1);
    }
}
