//! Results of a run after its last step: metrics, weights with their files, merged model, and the last line of `metrics.jsonl`.

use super::beside::export_merged;
use super::card::{Card, files_beside};
use super::job::{Job, Metrics, measure};
use super::output::OutputDir;
use super::plan::TrainPlan;
use super::record::{After, Memory, Phases, headline};
use super::session::Base;
use super::weights::{Saver, weights_name};
use crate::TrainError;
use crate::device;
use crate::progress::{MetricsFile, Screen};
use crate::task::{GeneratedText, TaskName};
use crate::trainer::Outcome;
use crate::trainer::ranks::Ranks;
use burn::module::Module;
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_core::ops::is_on_host;
use lora_core::{BaseDType, TrainableSummary, merge};
use lora_models::AddedModel;
use lora_models::added::has_own_part;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reason of a stop by Ctrl-C.
pub const INTERRUPTED: &str = "interrupted";

/// Name of the directory of the merged model.
const MERGED: &str = "merged";

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

/// Run whose training has ended.
pub(super) struct Finish<'a, J: Job> {
    pub job: &'a J,
    pub ranks: &'a dyn Ranks,
    pub plan: &'a TrainPlan,
    pub task: TaskName,
    pub base: &'a Base,
    pub saver: &'a Saver<J::Model>,
    pub output: &'a OutputDir,
    pub device: &'a Device,
    pub weights: TrainableSummary,
    /// Metrics before the first step.
    pub before: Metrics,
}

impl<J: Job> Finish<'_, J> {
    /// Measures the kept weights, and writes the results.
    ///
    /// # Errors
    /// If the evaluation fails or a file cannot be written.
    pub fn run(
        self,
        outcome: Outcome<J::Task>,
        mut phases: Phases,
        screen: &mut Screen,
    ) -> Result<TrainSummary, TrainError> {
        let Self {
            job,
            ranks,
            plan,
            task: task_name,
            base,
            saver,
            output,
            device,
            weights,
            before,
        } = self;
        let Outcome {
            model: mut task,
            state,
            stopped,
            last_evaluation,
            ..
        } = outcome;
        phases.training(&state);
        // The metrics of the last evaluation are those of the final weights, if it followed the last step.
        let known = last_evaluation.filter(|evaluation| evaluation.step == state.step);
        let mut known = known.map(|evaluation| evaluation.eval);
        // The best evaluation's weights are complete when the first rank is here.
        ranks.wait()?;
        let best = state.best.as_ref();
        let best = best.and_then(|best| output.checkpoints().best(best.step));
        if let (true, Some(best)) = (plan.keeps_best(), best) {
            screen.line(&format!("keeping the best evaluation, {}", best.display()));
            task = job.task(saver.reload(&best, device)?).valid();
            known = None;
        }
        let (after, texts) = match stopped.as_deref() {
            Some(INTERRUPTED) => Default::default(),
            _ => measure(job, &task, base, ranks, screen, "after", known)?,
        };
        phases.after = phases.lap();
        let path = plan.output.join(weights_name(plan.method.is_full()));
        if !ranks.is_first() {
            // The first rank writes.
            return Ok(TrainSummary {
                before,
                after,
                texts,
                weights: path,
                merged: plan.options.merge.then(|| plan.output.join(MERGED)),
                stopped,
                steps: state.step,
                seconds: state.seconds,
                trainable: weights.trainable,
            });
        }
        let files = saver.report().map(|report| {
            let model = J::model(&task);
            let card = Card {
                plan,
                task: task_name,
                report,
                added: model.added().summaries(),
                of_adapters: model.added().adapters.is_some() && !has_own_part(model, report),
                notes: saver.peft_notes(model, Path::new("this directory")),
                steps: state.step,
                before: &before,
                after: &after,
            };
            files_beside(base, &card, screen)
        });
        saver.save_with(
            J::model(&task),
            &path,
            files.unwrap_or_default(),
            Overwrite::Replace,
        )?;
        output.replace_state()?;
        for note in saver.peft_notes(J::model(&task), &path) {
            screen.line(&format!("note      {note}"));
        }
        let mut merged = None;
        if plan.options.merge {
            let dir = plan.output.join(MERGED);
            let in_f32 = plan.options.base_dtype.unwrap_or_default() == BaseDType::F32;
            let model = if plan.options.quantize.is_none() && in_f32 && plan.mixed.is_none() {
                J::into_model(task)
            } else {
                saver.unquantized(&path, device)?.valid()
            };
            let model = merge(model).into_module();
            saver.check_base_files()?;
            let beside = export_merged(model, &dir, &base.export_options(), Overwrite::Replace)?;
            for path in beside {
                screen.line(&format!("beside    the merged model: {}", path.display()));
            }
            merged = Some(dir);
        }
        if plan.options.overwrite {
            let written = [Some(path.as_path()), merged.as_deref()];
            output.remove_results_except(&written.into_iter().flatten().collect::<Vec<_>>())?;
        }
        if stopped.as_deref() != Some(INTERRUPTED) {
            let evaluator = job.evaluator();
            let best_by = job.best_by();
            let confusion = evaluator.and_then(|evaluator| evaluator.last_confusion());
            let after = After {
                step: state.step,
                after: &after,
                metric: headline(plan, &best_by, &after, &texts),
                trainable: weights.trainable,
                parameters: weights.total(),
                phases,
                memory_mib: Memory::of(&weights),
                device: device::describe(device),
                on_host: is_on_host(device),
                stopped: stopped.as_deref(),
                confusion: confusion.as_ref().map(Into::into),
                texts: (&texts[..]).into(),
            };
            MetricsFile::append(&output.metrics())?.write(&after)?;
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
}
