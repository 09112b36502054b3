//! Training, from files to files.

use super::causal::CausalJob;
use super::finite::check_finite;
use super::job::{Evaluate, Job, Metrics, judge};
use super::labelled::LabelledJob;
use super::open::{Loaded, check_base, model_directory};
use super::plan::{TrainPlan, packed_prefix};
use super::prefix::export_merged;
use super::weights::{Saver, starting_weights, weights_name};
use crate::TrainError;
use crate::data::{BatchPlan, Sample};
use crate::device::{self, DeviceName};
use crate::progress::{MetricsFile, Screen};
use crate::task::{GeneratedText, TaskName};
use crate::trainer::{
    BatchLoader, CheckpointDir, Hooks, Outcome, Run, Schedule, TrainerConfig, fit,
};
use burn::module::Module;
use burn_train::Interrupter;
use lora_core::files::{Overwrite, write_file};
use lora_core::{merge, trainable_summary};
use lora_models::{ExportOptions, LoraModel};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The reason that Ctrl-C gives for a stop.
pub const INTERRUPTED: &str = "interrupted";

/// What a run did.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// Metrics on the evaluation data before training.
    pub before: BTreeMap<String, f64>,
    /// And after it, with the weights that were kept.
    pub after: BTreeMap<String, f64>,
    /// What the trained model wrote, beside what people wrote.
    pub texts: Vec<GeneratedText>,
    /// The adapter's directory, or the model's with `--full`.
    pub weights: PathBuf,
    /// The merged model's directory.
    pub merged: Option<PathBuf>,
    /// Why the run ended before its last step, if it did.
    pub stopped: Option<String>,
    /// Steps done.
    pub steps: usize,
    /// Seconds of training, evaluations included.
    pub seconds: f64,
    /// Number of parameters that trained.
    pub trainable: usize,
}

/// Trains as the plan says. Stopped through the interrupter, it saves a checkpoint first.
///
/// On a GPU backend train in one thread of a process at a time: Burn's kernel fusion loses tensors
/// where two run backward passes on one device.
///
/// # Errors
/// On bad data, options or files, a loss that is not finite, or output that is there already.
pub fn train(
    plan: TrainPlan,
    interrupter: Interrupter,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let plan = TrainPlan {
        model: model_directory(&plan.model)?,
        ..plan
    };
    let task = plan.task()?;
    plan.options.check(task)?;
    match task {
        TaskName::CausalLm => train_job::<CausalJob>(plan, interrupter, screen),
        _ => train_job::<LabelledJob>(plan, interrupter, screen),
    }
}

fn train_job<J: Job + 'static>(
    plan: TrainPlan,
    interrupter: Interrupter,
    screen: &mut Screen,
) -> Result<TrainSummary, TrainError> {
    let checkpoints = CheckpointDir::new(plan.output.join("checkpoints"));
    let checkpoint = match plan.options.resume {
        false => None,
        true => Some(checkpoints.last()?.ok_or_else(|| TrainError::Checkpoint {
            path: plan.output.join("checkpoints"),
            message: "there is none to resume from".into(),
        })?),
    };
    let device = device::open(plan.options.device.unwrap_or(DeviceName::Auto))?;
    screen.line(&format!("device    {}", device::describe(&device)));
    let device = device.autodiff();

    let mut job = J::new(&plan, screen)?;
    let how = job.how();
    let Loaded {
        model,
        adapter,
        base,
        summary,
    } = starting_weights::<J::Model>(&plan, &how, checkpoint.as_ref(), &device)?;
    screen.line(&format!("model     {summary}"));
    check_finite(&model)?;
    let from = match &checkpoint {
        Some(checkpoint) => Some(checkpoint.path.join(weights_name(plan.lora.is_none()))),
        None => plan.options.adapter.clone(),
    };
    check_base(
        from.as_deref(),
        adapter.as_ref(),
        plan.options.strict_base,
        screen,
    )?;
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
    let examples = job.encode(&plan, &base, screen)?;
    let loader = loader(&plan, &job, examples, base.pad_id())?;
    let total_steps = plan.total_steps(loader.plan())?;

    if checkpoint.is_none() {
        prepare_output(&plan)?;
    }
    let recipe = plan.options.clone().absolute()?.to_toml()?;
    write_file(
        &plan.output.join("recipe.toml"),
        Overwrite::Replace,
        |file| file.write_all(recipe.as_bytes()),
    )?;

    let task = job.task(model);
    let before = match &checkpoint {
        Some(_) => BTreeMap::new(),
        None => judge(&job, &task.valid(), &base, screen, "before", None)?.0,
    };
    let saver = Saver::new(base.clone(), how, adapter);
    let hooks = JobHooks::<J> {
        evaluator: job.evaluator(),
        saver: saver.clone(),
    };
    let step = checkpoint.as_ref().map_or(0, |c| c.state.step);
    let metrics = MetricsFile::open(&plan.output.join("metrics.jsonl"), step)?;
    let best = job.best_by();
    let run = Run {
        config: TrainerConfig {
            total_steps,
            accumulation: plan.accumulation,
            max_grad_norm: plan.max_grad_norm,
            evaluate: plan.evaluate,
            save: plan.save,
            patience: plan.options.early_stopping,
            best_metric: best.metric,
            higher_is_better: best.higher_is_better,
            seed: plan.seed,
        },
        adamw: plan.adamw,
        lora_plus: plan.lora_plus,
        schedule: Schedule::new(
            plan.schedule,
            plan.lr,
            plan.warmup_steps(total_steps),
            total_steps,
        ),
        fingerprint: plan.fingerprint(loader.examples())?,
        loader,
        hooks: Box::new(hooks),
        observers: vec![Box::new(metrics), Box::new(screen.observer())],
        interrupter,
    };
    let Outcome {
        model: mut task,
        state,
        stopped,
        last_evaluation,
    } = fit(task, run, &plan.output, checkpoint)?;

    // The last evaluation holds for the final weights, if it was after the last step.
    let mut known = last_evaluation
        .filter(|e| e.step == state.step)
        .map(|e| e.eval);
    if let (true, Some(best)) = (plan.keeps_best(), checkpoints.best()) {
        screen.line(&format!("keeping the best evaluation, {}", best.display()));
        task = job.task(saver.reload(&best, &device)?).valid();
        known = None;
    }
    let (after, texts) = match stopped.as_deref() {
        Some(INTERRUPTED) => Default::default(),
        _ => judge(&job, &task, &base, screen, "after", known)?,
    };
    let path = plan.output.join(weights_name(plan.options.full));
    saver.save(J::model(&task), &path, Overwrite::Replace)?;
    let mut merged = None;
    if plan.options.merge {
        let dir = plan.output.join("merged");
        let options = ExportOptions {
            base_dir: Some(base.dir.clone()),
            ..ExportOptions::default()
        };
        let model = match plan.options.quantize {
            None => J::into_model(task),
            Some(_) => saver.in_floats(&path, &device)?.valid(),
        };
        let model = merge(model).into_module();
        let prefix = export_merged(model, &dir, &options, Overwrite::Replace)?;
        if let Some(prefix) = prefix {
            screen.line(&format!(
                "prefix    of the merged model: {}",
                prefix.display()
            ));
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

/// Refuses to write over another run, or clears it away when asked to; what this run reads stays.
fn prepare_output(plan: &TrainPlan) -> Result<(), TrainError> {
    let dir = &plan.output;
    let o = &plan.options;
    let inputs = [&o.model, &o.adapter, &o.data, &o.eval_data];
    let inputs: Vec<PathBuf> = inputs
        .into_iter()
        .flatten()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
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
        let place = path.canonicalize().map_err(TrainError::io(&path))?;
        if inputs.iter().any(|input| input.starts_with(&place)) {
            return Err(TrainError::config(
                "output",
                format!("would replace {}, which this run reads", path.display()),
            ));
        }
        let removed = match path.is_dir() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.map_err(TrainError::io(&path))?;
    }
    std::fs::create_dir_all(dir).map_err(TrainError::io(dir))
}

/// The examples in batches, as the plan has them.
fn loader<J: Job>(
    plan: &TrainPlan,
    job: &J,
    examples: Vec<J::Sample>,
    pad_id: u32,
) -> Result<BatchLoader<J::Sample>, TrainError> {
    let lengths = examples.iter().map(Sample::length).collect();
    let batches = BatchPlan::new(lengths, plan.batch, plan.order, plan.seed)?;
    Ok(BatchLoader::new(examples, batches, pad_id).with_collate(job.collate()))
}

/// Evaluation and saving for the training loop.
struct JobHooks<J: Job> {
    evaluator: Option<Arc<dyn Evaluate<J::Task>>>,
    saver: Saver<J::Model>,
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
