//! Training, from files to files.

use super::adapters::{AdapterArg, with_foreign};
use super::batches::pad_multiple;
use super::causal::CausalJob;
use super::device_check::check_device;
use super::finish::{Finish, TrainSummary};
use super::finite::check_finite;
use super::foreign::ForeignOptions;
use super::job::{Evaluate, Job, Metrics, TrainingSet, measure};
use super::labelled::LabelledJob;
use super::memory_check::check_memory;
use super::output::OutputDir;
use super::plan::{TrainPlan, packed_on_gpu, packed_prefix};
use super::record::{Before, Phases};
use super::resumed::RunRecord;
use super::session::{Base, Session, check_base};
use super::sources::Sources;
use super::together::{agree_on_base, agree_on_run, exchanged, idle};
use super::weights::{Saver, StartingWeights, check_attached, starting_weights, weights_name};
use crate::TrainError;
use crate::data::{BatchPlan, BatchSize, DataDigest, Example, ExampleSet, Mix};
use crate::device::{self, DeviceName};
use crate::progress::{MetricsFile, Screen, TensorBoard};
use crate::task::TaskName;
use crate::trainer::ranks::{Alone, Ranks};
use crate::trainer::{
    BatchLoader, Checkpoint, CheckpointDir, Hooks, NonFinite, Observer, ReadValues, Run, Schedule,
    TrainerConfig, fit, gradients_at_once,
};
use burn::module::Module;
use burn::tensor::Device;
use burn_train::Interrupter;
use lora_core::file::AdapterDir;
use lora_core::files::{Overwrite, write_file};
use lora_core::ops::{is_on_host, with_mixed_precision};
use lora_core::trainable_summary;
use lora_models::chat::ChatTemplate;
use lora_models::{AddedModel, ModelConfig, Pretrained, dispatch};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Number of steps in a row whose loss or gradients are not finite, which end a run in mixed precision.
const SKIPPED_IN_A_ROW: usize = 3;

/// Number of moments that AdamW keeps for each parameter.
const MOMENTS: usize = 2;

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
    train_with(Arc::new(Alone), plan, interrupter, screen)
}

/// Trains by a plan together with other ranks, each of which calls this with the same plan and has the same summary. The first
/// rank holds the lock of the output directory and writes there; the others read it, and print nothing.
///
/// # Errors
/// As [`train()`], and [`TrainError::Rank`] if another rank differs or has ended. After an error at one rank, the others wait for it:
/// [`Ranks::abort`] ends them.
pub fn train_with(
    ranks: Arc<dyn Ranks>,
    plan: TrainPlan,
    interrupter: Interrupter,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let quiet = &mut Screen::quiet();
    let screen = if ranks.is_first() { screen } else { quiet };
    let (sources, task, plan) = opened(plan)?;
    let with = With {
        ranks,
        plan,
        interrupter,
    };
    dispatch!(sources.model.config(),
        causal M(config) => train_job::<CausalJob<M>>(&sources, config, task, with, screen),
        encoder M(config) => train_job::<LabelledJob>(&sources, config, task, with, screen),
    )
}

/// Plan of a run, and what it runs with.
struct With {
    ranks: Arc<dyn Ranks>,
    plan: TrainPlan,
    interrupter: Interrupter,
}

/// Opens the model and the adapter of a plan, and checks the options against the task.
pub(super) fn opened(plan: TrainPlan) -> Result<(Sources, TaskName, TrainPlan), TrainError> {
    let model = Sources::open_model(&plan.model, plan.options.task)?;
    // A resumed run continues from its checkpoint. The adapter that it started from tells only an encoder's labels and
    // what is not to be quantized or held in 16 bits.
    let o = &plan.options;
    let is_encoder = matches!(model.config(), ModelConfig::Encoder(_));
    // Without a task, the adapter tells whether a decoder is a classifier.
    let tells_task = o.task.is_none() && o.adapter.as_ref().is_some_and(|dir| dir.exists());
    let has_packed = o.quantize.is_some() || o.base_dtype.is_some() || o.precision.is_some();
    let needs_adapter = !o.resume || is_encoder || has_packed || tells_task;
    let adapter = o.adapter.clone().filter(|_| needs_adapter);
    let adapter = adapter.map(AdapterArg::from);
    let is_file = adapter.as_ref().is_some_and(|arg| arg.dir.is_file());
    let foreign = ForeignOptions {
        // For a directory, alpha is compared with the adapter's own.
        alpha: o.alpha.filter(|_| is_file),
        slices: o.slices.clone(),
        ..ForeignOptions::default()
    };
    // An adapter that is not opened needs no values.
    let adapter = match adapter {
        None if needs_adapter => with_foreign(&[], &foreign)?,
        None => Vec::new(),
        Some(arg) => with_foreign(&[arg], &foreign)?,
    };
    let sources = Sources::with_model(model, &adapter)?;
    let task = plan.task(&sources)?;
    plan.options.check(task)?;
    let plan = TrainPlan {
        model: sources.model.path().into(),
        ..plan.for_model(sources.model.config())
    };
    Ok((sources, task, plan))
}

fn train_job<J: Job + 'static>(
    sources: &Sources,
    config: &<J::Model as Pretrained>::Config,
    task: TaskName,
    with: With,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let With {
        ranks,
        plan,
        interrupter,
    } = with;
    let output = OutputDir::open_with(&*ranks, &plan, screen)?;
    let name = plan.options.device.unwrap_or(DeviceName::Auto);
    let device = device::open_numbered(name, ranks.local().rank)?;
    screen.line(&format!("device    {}", device::describe(&device)));
    if plan.options.packing && !is_on_host(&device) {
        return Err(packed_on_gpu(&device));
    }
    let plan = plan.on(&device)?;
    if let Some(half) = plan.mixed {
        screen.line(&format!(
            "precision products with frozen weights in {half}, everything else in f32"
        ));
    }
    with_mixed_precision(plan.mixed, || {
        let run = LockedRun {
            ranks,
            plan,
            interrupter,
            output,
            device: device.autodiff(),
        };
        run_job::<J>(sources, config, task, run, screen)
    })
}

/// Plan of a run with its locked output and its device.
struct LockedRun {
    ranks: Arc<dyn Ranks>,
    plan: TrainPlan,
    interrupter: Interrupter,
    output: OutputDir,
    device: Device,
}

/// Trains on an opened device, from the last checkpoint if there is one.
fn run_job<J: Job + 'static>(
    sources: &Sources,
    config: &<J::Model as Pretrained>::Config,
    task: TaskName,
    run: LockedRun,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let start = Instant::now();
    let LockedRun {
        ranks,
        plan,
        interrupter,
        output,
        device,
    } = run;
    let checkpoints = output.checkpoints();
    let mut checkpoint = if plan.options.resume {
        Some(last_checkpoint(&checkpoints, &plan, screen)?)
    } else {
        None
    };

    // Data and options are checked before any weight is read.
    let mut job = J::new(&plan, sources, task, screen)?;
    let options = job.load_options();
    let saved_weights = checkpoint
        .as_ref()
        .map(|checkpoint| checkpoint.path.join(weights_name(plan.method.is_full())));
    let saved = saved_weights.as_ref().filter(|_| !plan.method.is_full());
    let saved = saved.map(AdapterDir::open).transpose()?;
    let from = saved_weights.as_ref().or(plan.options.adapter.as_ref());
    let adapter = saved.as_ref().or(sources.one());
    let (outline, mut base) =
        Session::<J::Model>::outline(&sources.model, config, adapter, &options, &device)?;
    if let Some(note) = &base.unknown_tokens {
        screen.line(&format!("adapter   {note}"));
    }
    if let Some(path) = &plan.options.reading.chat_template {
        // What is trained goes with the template that it was trained by.
        let template = ChatTemplate::from_file(path)?;
        base.keep_template(template.files())?;
    }
    base.pad_to_multiple_of = pad_multiple(plan.options.pad_to_multiple_of, &device)?;
    let (outline, tokens) = match checkpoint {
        Some(_) => (outline, None),
        None => check_attached(&plan, sources, outline, &mut base)?,
    };
    if plan.options.packing && outline.prefix().is_some() {
        return Err(packed_prefix());
    }
    let TrainingSet {
        examples,
        mix,
        held_out,
    } = job.encode(&plan, &base, screen)?;
    let data = examples.digest(job.classes());
    let loader = loader(&plan, &job, (examples, mix), &base)?;
    let total_steps = plan.total_steps(loader.plan())?;
    let record = RunRecord {
        fingerprint: plan.fingerprint(&data, base.pad_to_multiple_of)?,
        data,
        eval_data: plan
            .keeps_best()
            .then(|| DataDigest::new(job.eval_examples(), job.classes())),
    };
    agree_on_run(&*ranks, &plan, &record)?;
    if let Some(line) = idle(&*ranks, plan.accumulation) {
        screen.line(&line);
    }
    if let Some(checkpoint) = &mut checkpoint {
        record.adopt(checkpoint, &plan, &loader, screen)?;
    }

    let Session {
        model,
        adapter,
        base: loaded,
        summary,
    } = starting_weights::<J::Model>(
        &plan,
        sources,
        config,
        &options,
        StartingWeights {
            checkpoint: saved_weights.as_deref(),
            saved: saved.as_ref(),
            tokens,
        },
        &device,
    )?;
    base.info = loaded.info;
    base.weight_files = loaded.weight_files;
    screen.line(&format!("model     {summary}"));
    if !is_on_host(&device) {
        // Files were searched as they were read; a GPU may not have taken a weight.
        check_finite(&model)?;
    }
    let strict = plan.options.strict_base;
    check_base(from.map(PathBuf::as_path), adapter.as_ref(), strict, screen)?;
    if let Some(report) = adapter.as_ref().filter(|report| !report.is_empty()) {
        screen.line(&report.to_string());
    }
    for (name, summary) in model.added().summaries() {
        screen.line(&format!("{name:<9} {summary}"));
    }
    let weights = trainable_summary(&model);
    screen.line(&format!("weights   {weights}"));
    check_memory(
        weights.trainable,
        MOMENTS + gradients_at_once(plan.accumulation),
        "the gradients and AdamW's two moments",
        &device,
    )?;

    agree_on_base(&*ranks, &base.weight_files)?;
    if checkpoint.is_none() && ranks.is_first() {
        output.start()?;
    }
    let recipe = plan.options.clone().absolute()?.to_toml()?;
    if ranks.is_first() {
        write_file(&output.recipe(), Overwrite::Replace, |file| {
            file.write_all(recipe.as_bytes())
        })?;
    }

    let task_name = task;
    let task = job.task(model);
    check_device::<J>(
        &task,
        &loader,
        &device,
        plan.mixed,
        plan.options.verify_device,
        screen,
    )?;
    let mut phases = Phases::starting(start);
    let (before, texts_before) = match &checkpoint {
        Some(_) => Default::default(),
        None => measure(&job, &task.valid(), &base, &*ranks, screen, "before", None)?,
    };
    phases.before = phases.lap();
    let saver = Arc::new(Saver::new(base.clone(), config.clone(), options, adapter));
    let hooks = JobHooks::<J> {
        evaluator: job.evaluator(),
        saver: saver.clone(),
        ranks: ranks.clone(),
    };
    let step = checkpoint.as_ref().map_or(0, |c| c.state.step);
    let best = job.best_by();
    let mut observers = Vec::new();
    if ranks.is_first() {
        let mut metrics = MetricsFile::open(&output.metrics(), step)?;
        if checkpoint.is_none() && !before.is_empty() {
            metrics.write(&Before::new(&before, &best, held_out, &texts_before))?;
        }
        let tensorboard = plan.options.tensorboard;
        let tensorboard =
            tensorboard.then(|| TensorBoard::create(&output.tensorboard(), step, &before));
        observers = self::observers(metrics, tensorboard.transpose()?, screen, &device);
    }
    let warmup = plan.warmup_steps(total_steps);
    let run = Run {
        config: TrainerConfig {
            total_steps,
            accumulation: plan.accumulation,
            max_grad_norm: plan.max_grad_norm,
            non_finite: match plan.mixed {
                None => NonFinite::Fail,
                Some(_) => NonFinite::Skip {
                    limit: SKIPPED_IN_A_ROW,
                },
            },
            read_values: if is_on_host(&device) {
                ReadValues::AtOnce
            } else {
                ReadValues::OneStepLate
            },
            evaluate: plan.evaluate,
            save: plan.save,
            keep_checkpoints: plan.keep_checkpoints,
            patience: plan.options.early_stopping,
            best_metric: best.metric,
            higher_is_better: best.higher_is_better,
            seed: plan.seed,
        },
        adamw: plan.adamw,
        lora_plus: plan.lora_plus,
        schedule: Schedule::new(plan.schedule, plan.lr, warmup, total_steps),
        fingerprint: record.fingerprint,
        data: Some(record.data),
        eval_data: record.eval_data,
        loader,
        hooks: Box::new(hooks),
        ranks: ranks.clone(),
        observers,
        interrupter,
    };
    let outcome = fit(task, run, &plan.output, checkpoint)?;
    if let Some(line) = exchanged(&*ranks, outcome.exchange) {
        screen.line(&line);
    }
    let finish = Finish {
        job: &job,
        ranks: &*ranks,
        plan: &plan,
        task: task_name,
        base: &base,
        saver: &saver,
        output: &output,
        device: &device,
        weights,
        before,
    };
    finish.run(outcome, phases, screen)
}

/// Reads the checkpoint to resume from, and tells which later ones are damaged.
fn last_checkpoint(
    checkpoints: &CheckpointDir,
    plan: &TrainPlan,
    screen: &Screen,
) -> Result<Checkpoint, TrainError> {
    let last = checkpoints.last()?.ok_or_else(|| TrainError::Checkpoint {
        path: plan.output.join("checkpoints"),
        message: "there is none to resume from".into(),
    })?;
    for (_, error) in &last.damaged {
        screen.line(&format!("warning   {error}"));
    }
    if !last.damaged.is_empty() {
        let step = last.checkpoint.state.step;
        screen.line(&format!(
            "resume    from the checkpoint before, at step {step}"
        ));
    }
    Ok(last.checkpoint)
}

/// Returns the receivers of a run's events.
fn observers(
    metrics: MetricsFile,
    tensorboard: Option<TensorBoard>,
    screen: &Screen,
    device: &Device,
) -> Vec<Box<dyn Observer>> {
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(metrics),
        Box::new(screen.observer().for_device(device)),
    ];
    if let Some(tensorboard) = tensorboard {
        observers.push(Box::new(tensorboard));
    }
    observers
}

/// Creates the loader of the training batches.
fn loader<J: Job>(
    plan: &TrainPlan,
    job: &J,
    (examples, mix): (ExampleSet, Option<Mix>),
    base: &Base,
) -> Result<BatchLoader<Example>, TrainError> {
    let length = base.max_length(plan.options.max_length, 0)?;
    let padding = base.padding(match plan.batch {
        BatchSize::PaddedTokens(most) => length.min(most),
        _ => length,
    });
    let batches = BatchPlan::new(examples.lengths(), plan.batch, plan.order, plan.seed)?;
    let batches = batches.with_padding(padding).with_mix(mix);
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
    ranks: Arc<dyn Ranks>,
}

impl<J: Job + 'static> Hooks<J::Task> for JobHooks<J> {
    fn evaluate(&mut self, task: &J::Task) -> Result<Metrics, TrainError> {
        match &self.evaluator {
            Some(evaluator) => evaluator.metrics(task, &*self.ranks, &mut |_| {}),
            None => Ok(Metrics::new()),
        }
    }

    fn save_weights(&mut self, task: &J::Task, dir: &Path) -> Result<(), TrainError> {
        self.saver.save_into(J::model(task), dir)
    }
}
