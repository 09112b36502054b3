//! Training, from files to files.

use super::adapters::AdapterArg;
use super::batches::pad_multiple;
use super::causal::CausalJob;
use super::device_check::check_device;
use super::finite::check_finite;
use super::job::{Evaluate, Job, Metrics, measure};
use super::labelled::LabelledJob;
use super::memory_check::check_memory;
use super::plan::{TrainPlan, packed_on_gpu, packed_prefix};
use super::prefix::export_merged;
use super::session::{Base, Session, check_base};
use super::sources::Sources;
use super::weights::{Saver, starting_weights, weights_name};
use crate::TrainError;
use crate::data::{BatchPlan, BatchSize, Example, Sample};
use crate::device::{self, DeviceName};
use crate::progress::{MetricsFile, Screen};
use crate::task::{GeneratedText, TaskName};
use crate::trainer::{
    BatchLoader, CheckpointDir, Hooks, NonFinite, Outcome, ReadValues, Run, Schedule,
    TrainerConfig, fit,
};
use burn::module::Module;
use burn_train::Interrupter;
use lora_core::files::{Overwrite, write_file};
use lora_core::ops::is_on_host;
use lora_core::{BaseDType, merge, trainable_summary};
use lora_models::{ModelConfig, PrefixModel, Pretrained, dispatch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reason of a stop by Ctrl-C.
pub const INTERRUPTED: &str = "interrupted";

/// Outcome of a run.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// Metrics on the evaluation data before training, by name.
    pub before: BTreeMap<String, f64>,
    /// Metrics after training, with the kept weights.
    pub after: BTreeMap<String, f64>,
    /// Texts of the trained model, with their references.
    pub texts: Vec<GeneratedText>,
    /// Directory of the adapter, or of the model with `--full`.
    pub weights: PathBuf,
    /// Directory of the merged model.
    pub merged: Option<PathBuf>,
    /// Reason that the run ended before its last step, if it did.
    pub stopped: Option<String>,
    /// Number of completed steps.
    pub steps: usize,
    /// Duration in seconds, evaluations included.
    pub seconds: f64,
    /// Number of trainable parameters.
    pub trainable: usize,
}

/// Trains by a plan. A stop through the interrupter saves a checkpoint first.
///
/// On a GPU backend, only one thread of a process may train at a time: Burn's kernel fusion loses tensors if two threads
/// run backward passes on one device.
///
/// # Errors
/// If data, options or files are malformed, the loss is not finite, or the output exists.
pub fn train(
    plan: TrainPlan,
    interrupter: Interrupter,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let model = Sources::open_model(&plan.model, plan.options.task)?;
    // A resumed run continues from its checkpoint. The adapter that it started from tells only an encoder's labels and
    // what is not to be quantized or held in 16 bits.
    let o = &plan.options;
    let is_encoder = matches!(model.config(), ModelConfig::Encoder(_));
    // Without a task, the adapter tells whether a decoder is a classifier.
    let tells_task = o.task.is_none() && o.adapter.as_ref().is_some_and(|dir| dir.exists());
    let narrow = o.quantize.is_some() || o.base_dtype.is_some();
    let needs_adapter = !o.resume || is_encoder || narrow || tells_task;
    let adapter = o.adapter.clone().filter(|_| needs_adapter);
    let adapter = adapter.map(AdapterArg::from);
    let sources = Sources::with_model(model, adapter.as_slice())?;
    let task = plan.task(&sources)?;
    plan.options.check(task)?;
    let plan = TrainPlan {
        model: sources.model.path().into(),
        ..plan
    };
    dispatch!(sources.model.config(),
        causal M(config) => {
            train_job::<CausalJob<M>>(&sources, config, task, plan, interrupter, screen)
        },
        encoder M(config) => {
            train_job::<LabelledJob>(&sources, config, task, plan, interrupter, screen)
        },
    )
}

fn train_job<J: Job + 'static>(
    sources: &Sources,
    config: &<J::Model as Pretrained>::Config,
    task: TaskName,
    plan: TrainPlan,
    interrupter: Interrupter,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let checkpoints = CheckpointDir::new(plan.output.join("checkpoints"));
    let checkpoint = if plan.options.resume {
        Some(checkpoints.last()?.ok_or_else(|| TrainError::Checkpoint {
            path: plan.output.join("checkpoints"),
            message: "there is none to resume from".into(),
        })?)
    } else {
        None
    };
    let device = device::open(plan.options.device.unwrap_or(DeviceName::Auto))?;
    screen.line(&format!("device    {}", device::describe(&device)));
    if plan.options.packing && !is_on_host(&device) {
        return Err(packed_on_gpu(&device));
    }
    let device = device.autodiff();

    let mut job = J::new(&plan, sources, task, screen)?;
    let options = job.load_options();
    let last = checkpoint.as_ref();
    let Session {
        model,
        adapter,
        mut base,
        summary,
    } = starting_weights::<J::Model>(&plan, sources, config, &options, last, &device)?;
    base.pad_to_multiple_of = pad_multiple(plan.options.pad_to_multiple_of, &device)?;
    screen.line(&format!("model     {summary}"));
    check_finite(&model)?;
    let from = match &checkpoint {
        Some(checkpoint) => Some(checkpoint.path.join(weights_name(plan.lora.is_none()))),
        None => plan.options.adapter.clone(),
    };
    let strict = plan.options.strict_base;
    check_base(from.as_deref(), adapter.as_ref(), strict, screen)?;
    if let Some(report) = adapter.as_ref().filter(|report| !report.is_empty()) {
        screen.line(&report.to_string());
    }
    if let Some(prefix) = model.prefix() {
        screen.line(&format!("prefix    {}", prefix.summary()));
        if plan.options.packing {
            return Err(packed_prefix());
        }
    }
    let weights = trainable_summary(&model);
    screen.line(&format!("weights   {weights}"));
    check_memory(
        weights.trainable,
        3,
        "the gradients and AdamW's two moments",
        &device,
    )?;
    let examples = job.encode(&plan, &base, screen)?;
    let loader = loader(&plan, &job, examples, &base)?;
    let total_steps = plan.total_steps(loader.plan())?;

    if checkpoint.is_none() {
        prepare_output(&plan)?;
    }
    let recipe = plan.options.clone().absolute()?.to_toml()?;
    let path = plan.output.join("recipe.toml");
    write_file(&path, Overwrite::Replace, |file| {
        file.write_all(recipe.as_bytes())
    })?;

    let task = job.task(model);
    check_device::<J>(&task, &loader, &device, plan.options.verify_device, screen)?;
    let before = match &checkpoint {
        Some(_) => BTreeMap::new(),
        None => measure(&job, &task.valid(), &base, screen, "before", None)?.0,
    };
    let saver = Arc::new(Saver::new(base.clone(), config.clone(), options, adapter));
    let hooks = JobHooks::<J> {
        evaluator: job.evaluator(),
        saver: saver.clone(),
    };
    let step = checkpoint.as_ref().map_or(0, |c| c.state.step);
    let metrics = MetricsFile::open(&plan.output.join("metrics.jsonl"), step)?;
    let best = job.best_by();
    let warmup = plan.warmup_steps(total_steps);
    let run = Run {
        config: TrainerConfig {
            total_steps,
            accumulation: plan.accumulation,
            max_grad_norm: plan.max_grad_norm,
            non_finite: NonFinite::Fail,
            read_values: if is_on_host(&device) {
                ReadValues::AtOnce
            } else {
                ReadValues::OneStepLate
            },
            evaluate: plan.evaluate,
            save: plan.save,
            patience: plan.options.early_stopping,
            best_metric: best.metric,
            higher_is_better: best.higher_is_better,
            seed: plan.seed,
        },
        adamw: plan.adamw,
        lora_plus: plan.lora_plus,
        schedule: Schedule::new(plan.schedule, plan.lr, warmup, total_steps),
        fingerprint: plan.fingerprint(loader.examples(), base.pad_to_multiple_of)?,
        loader,
        hooks: Box::new(hooks),
        observers: vec![
            Box::new(metrics),
            Box::new(screen.observer().for_device(&device)),
        ],
        interrupter,
    };
    let Outcome {
        model: mut task,
        state,
        stopped,
        last_evaluation,
    } = fit(task, run, &plan.output, checkpoint)?;

    // The metrics of the last evaluation are those of the final weights, if it followed the last step.
    let known = last_evaluation.filter(|evaluation| evaluation.step == state.step);
    let mut known = known.map(|evaluation| evaluation.eval);
    if let (true, Some(best)) = (plan.keeps_best(), checkpoints.best()) {
        screen.line(&format!("keeping the best evaluation, {}", best.display()));
        task = job.task(saver.reload(&best, &device)?).valid();
        known = None;
    }
    let (after, texts) = match stopped.as_deref() {
        Some(INTERRUPTED) => Default::default(),
        _ => measure(&job, &task, &base, screen, "after", known)?,
    };
    let path = plan.output.join(weights_name(plan.options.full));
    saver.save(J::model(&task), &path, Overwrite::Replace)?;
    let mut merged = None;
    if plan.options.merge {
        let dir = plan.output.join("merged");
        let in_f32 = plan.options.base_dtype.unwrap_or_default() == BaseDType::F32;
        let model = if plan.options.quantize.is_none() && in_f32 {
            J::into_model(task)
        } else {
            saver.unquantized(&path, &device)?.valid()
        };
        let model = merge(model).into_module();
        let prefix = export_merged(model, &dir, &base.export_options(), Overwrite::Replace)?;
        if let Some(prefix) = prefix {
            let prefix = prefix.display();
            screen.line(&format!("prefix    of the merged model: {prefix}"));
        }
        merged = Some(dir);
    }
    Ok(TrainSummary {
        before,
        after,
        texts,
        weights: path,
        merged,
        stopped,
        steps: state.step,
        seconds: state.seconds,
        trainable: weights.trainable,
    })
}

/// Refuses to overwrite another run, or removes its files with `--overwrite`; files that this run reads stay.
fn prepare_output(plan: &TrainPlan) -> Result<(), TrainError> {
    let dir = &plan.output;
    let o = &plan.options;
    let inputs = [&o.model, &o.adapter, &o.data, &o.eval_data];
    let inputs = inputs.map(|path| path.as_ref()?.canonicalize().ok());
    let names = [
        "adapter",
        "model",
        "merged",
        "checkpoints",
        "metrics.jsonl",
        "recipe.toml",
    ];
    for path in names.map(|name| dir.join(name)) {
        if !path.exists() {
            continue;
        }
        if !o.overwrite {
            return Err(TrainError::OutputExists { path });
        }
        let canonical = path.canonicalize().map_err(TrainError::io(&path))?;
        let mut inputs = inputs.iter().flatten();
        if inputs.any(|input| input.starts_with(&canonical)) {
            let message = format!("would replace {}, which this run reads", path.display());
            return Err(TrainError::config("output", message));
        }
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(TrainError::io(&path))?;
    }
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))
}

/// Creates the loader of the training batches.
fn loader<J: Job>(
    plan: &TrainPlan,
    job: &J,
    examples: Vec<Example>,
    base: &Base,
) -> Result<BatchLoader<Example>, TrainError> {
    let lengths = examples.iter().map(Sample::length).collect();
    let length = base.max_length(plan.options.max_length, 0)?;
    let padding = base.padding(match plan.batch {
        BatchSize::PaddedTokens(most) => length.min(most),
        _ => length,
    });
    let batches = BatchPlan::new(lengths, plan.batch, plan.order, plan.seed)?;
    let batches = batches.with_padding(padding);
    let option = match plan.batch {
        BatchSize::Examples(_) => "batch_size",
        _ => "batch_tokens",
    };
    base.limit.check(option, batches.largest())?;
    Ok(BatchLoader::new(examples, batches, padding).with_collate(job.collate()))
}

/// Evaluation and saving during the training loop.
struct JobHooks<J: Job> {
    evaluator: Option<Arc<dyn Evaluate<J::Task>>>,
    saver: Arc<Saver<J::Model>>,
}

impl<J: Job + 'static> Hooks<J::Task> for JobHooks<J> {
    fn evaluate(&mut self, task: &J::Task) -> Result<Metrics, TrainError> {
        match &self.evaluator {
            Some(evaluator) => evaluator.metrics(task, &mut |_| {}),
            None => Ok(Metrics::new()),
        }
    }

    fn save_weights(&mut self, task: &J::Task, dir: &Path) -> Result<(), TrainError> {
        self.saver.save_into(J::model(task), dir)
    }
}
