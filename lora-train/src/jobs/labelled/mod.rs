//! Jobs of encoders with a head: classes or scores for texts and pairs, classes for words.
//!
//! | file | contents |
//! | --- | --- |
//! | `data` | layout of labelled files, and facts about their records |
//! | `heads` | checks of an existing head |
//! | `naming` | names of a head's outputs, where those of options, data, adapter and base meet |
//! | `thresholds` | probabilities above which classes are predicted |
//! | `evaluator`, `eval` | outputs, loss and metrics; evaluation |
//! | `predict` | predictions, and submissions to GLUE |

mod data;
mod eval;
mod evaluator;
mod heads;
mod naming;
mod predict;
mod thresholds;

pub(crate) use eval::eval;
pub use predict::{PredictOptions, Predicted, predict, predict_with};

use super::batches::EvalBatches;
use super::division::HeldOut;
use super::job::{BestBy, Evaluate, Job, TrainingSet};
use super::plan::TrainPlan;
use super::session::Base;
use super::sources::Sources;
use crate::TrainError;
use crate::data::{
    ClassWeights, Example, ExampleSet, LabelSet, Mix, Record, RecordUse, Selection, UNCUT,
    Unlabelled,
};
use crate::metric::are_entity_tags;
use crate::options::{ClassWeighting, DataCache};
use crate::progress::Screen;
use crate::task::{Classify, TaskName};
use data::{classes, encode, head_labels, label_set, read_files, read_for, shortest};
use evaluator::Evaluator;
use heads::refuse_for_score;
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::encoder::Labels;
use naming::StartingHead;
use std::sync::Arc;
use thresholds::Thresholds;

/// Way out for a head of another task.
const FRESH: &str =
    "start a new head with `fresh_head`, which keeps the factors and the tokens of an adapter";

/// Training of an encoder with a head.
pub(crate) struct LabelledJob {
    task: TaskName,
    label_smoothing: f64,
    checkpoint_activations: bool,
    load: ClassifierOptions,
    head: Labels,
    thresholds: Thresholds,
    records: Vec<Record>,
    division: (Option<Mix>, Option<HeldOut>),
    eval_records: Option<Vec<Record>>,
    weights: ClassWeights,
    evaluator: Option<Arc<Evaluator>>,
    best_by: BestBy,
}

/// Returns the kind of head of a task.
pub(in crate::jobs) fn head_kind(task: TaskName) -> HeadKind {
    match task {
        TaskName::TokenClassification => HeadKind::Token,
        _ => HeadKind::Sequence,
    }
}

impl Job for LabelledJob {
    type Model = Classifier;
    type Task = Classify;

    fn new(
        plan: &TrainPlan,
        sources: &Sources,
        task: TaskName,
        screen: &Screen,
    ) -> Result<Self, TrainError> {
        if plan.options.data_cache == Some(DataCache::Disk) {
            let message = "is disk, which is for language models: labelled data is held in memory";
            return Err(TrainError::config("data_cache", message));
        }
        let reading = &plan.options.reading;
        let start = StartingHead::new(plan, sources, task)?;
        let known = start.known(plan, task, screen)?;
        let (path, refuse) = (plan.data.first(), Unlabelled::Refuse);
        let paths = plan.data.paths();
        let (mut data, reports) = read_files(paths, task, reading, None, known.as_ref(), refuse)?;
        if known.is_none() {
            start.name(&mut data, screen)?;
        }
        let head = head_labels(task, &data, path)?;
        if plan.options.labels.is_some() {
            refuse_for_score(&head)?;
        }
        start.check_outputs(&head)?;
        let labels = label_set(&head)?;
        for (path, report) in paths.iter().zip(&reports) {
            screen.line(&format!("data      {}: {report}", path.display()));
        }
        // The classes are those of the whole files.
        let all = data.records.len();
        let selection = Selection::new(&plan.selection(), all)?;
        let (mut records, mut held, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = data.records.into_iter().enumerate();
        for report in &reports {
            let before = records.len();
            for (place, record) in places.by_ref().take(report.records) {
                match selection.of(place) {
                    RecordUse::Train => records.push(record),
                    RecordUse::HoldOut => held.push(record),
                    RecordUse::LeaveOut => {}
                }
            }
            counts.push(records.len() - before);
        }
        let held_out = plan.held_out(held.len(), all, screen);
        if records.len() + held.len() < all {
            let drawn = records.len();
            screen.line(&format!("data      {drawn} records drawn by the seed"));
        }
        let mix = plan.mix(&counts, screen)?;
        let mut eval_records = held_out.map(|_| held);
        if let Some(path) = &plan.options.eval_data {
            let data = read_for(&head, path, task, reading, None, refuse)?;
            screen.line(&format!("eval data {}: {}", path.display(), data.report));
            eval_records = Some(data.records);
        }
        if let Some(labels) = &labels {
            screen.line(&format!("labels    {}", labels.names().join(", ")));
        }
        let thresholds = Thresholds::new(plan.options.threshold.as_deref(), &head)?;
        let weights = class_weights(plan, labels.as_ref(), &records)?;
        let best_by = best_by(plan, task, labels.as_ref())?;
        Ok(Self {
            task,
            label_smoothing: plan.label_smoothing,
            checkpoint_activations: plan.options.checkpoint_activations,
            load: ClassifierOptions {
                head: head_kind(task),
                labels: Some(head.clone()),
                fresh_head: plan.options.fresh_head,
                brought: Vec::new(),
                seed: plan.seed,
                quantize: plan.quantize(sources)?,
                floats: plan.floats(sources)?,
            },
            head,
            thresholds,
            records,
            division: (mix, held_out),
            eval_records,
            weights,
            evaluator: None,
            best_by,
        })
    }

    fn load_options(&self) -> ClassifierOptions {
        self.load.clone()
    }

    fn encode(
        &mut self,
        plan: &TrainPlan,
        base: &Base,
        screen: &Screen,
    ) -> Result<TrainingSet, TrainError> {
        let records = std::mem::take(&mut self.records);
        let length = base.max_length(plan.options.max_length, shortest(&records))?;
        let reading = &plan.options.reading;
        let encode = |records: &[Record], weights: &ClassWeights| {
            encode(
                records,
                self.task,
                reading,
                &base.tokenizer,
                length,
                weights,
            )
        };
        let (examples, report) = encode(&records, &self.weights)?;
        screen.line(&format!("tokens    {report}"));
        if let Some(records) = self.eval_records.take() {
            // Every label has the weight 1 in an evaluation.
            let weights = ClassWeights::default();
            let (examples, _) = encode(&records, &weights)?;
            let size = ("eval_batch_size", plan.eval_batch_size);
            let batches = EvalBatches::new(examples, size, base, length)?;
            let head = (self.head.clone(), self.thresholds.clone());
            let evaluator = Evaluator::new(self.task, head, batches);
            self.evaluator = Some(Arc::new(evaluator));
        }
        let (mix, held_out) = self.division.clone();
        Ok(TrainingSet {
            examples: ExampleSet::Memory(examples),
            mix,
            held_out,
        })
    }

    fn uncut(&self, plan: &TrainPlan, base: &Base) -> Result<Vec<Example>, TrainError> {
        let (task, reading, weights) = (self.task, &plan.options.reading, &self.weights);
        let (examples, _) = encode(
            &self.records,
            task,
            reading,
            &base.tokenizer,
            UNCUT,
            weights,
        )?;
        Ok(examples)
    }

    fn classes(&self) -> &[String] {
        self.head.names()
    }

    fn eval_examples(&self) -> &[Example] {
        let evaluator = self.evaluator.as_ref();
        evaluator.map_or(&[][..], |evaluator| evaluator.examples())
    }

    fn task(&self, model: Classifier) -> Classify {
        Classify::new(model, self.label_smoothing, self.weights.clone())
            .with_checkpointed_activations(self.checkpoint_activations)
    }

    fn model(task: &Classify) -> &Classifier {
        &task.model
    }

    fn into_model(task: Classify) -> Classifier {
        task.model
    }

    fn evaluator(&self) -> Option<Arc<dyn Evaluate<Classify>>> {
        Some(self.evaluator.clone()?)
    }

    fn best_by(&self) -> BestBy {
        self.best_by.clone()
    }
}

/// Returns the weights of the classes in the loss.
fn class_weights(
    plan: &TrainPlan,
    labels: Option<&LabelSet>,
    records: &[Record],
) -> Result<ClassWeights, TrainError> {
    let refuse = |message: String| Err(TrainError::config("class_weights", message));
    let Some(weighting) = &plan.options.class_weights else {
        return Ok(ClassWeights::default());
    };
    let Some(labels) = labels else {
        return refuse("require classes, and a regression has none".into());
    };
    match weighting {
        ClassWeighting::Balanced => Ok(ClassWeights::balanced(classes(records), labels.len())),
        ClassWeighting::PerClass(weights) => {
            let (given, classes) = (weights.len(), labels.len());
            if given != classes {
                let names = labels.names().join(", ");
                return refuse(format!(
                    "are {given}, but the classes are {classes}: {names}"
                ));
            }
            if let Some(bad) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
                return refuse(format!("has {bad}, expected numbers above 0"));
            }
            Ok(ClassWeights::given(weights.clone()))
        }
    }
}

/// Returns the metric of the options, else the task's own.
fn best_by(
    plan: &TrainPlan,
    task: TaskName,
    labels: Option<&LabelSet>,
) -> Result<BestBy, TrainError> {
    let Some(name) = &plan.options.metric else {
        let entities = || labels.is_some_and(|set| are_entity_tags(set.names()));
        return Ok(match task.metric() {
            Some(metric) => BestBy::new(metric.primary(), metric.higher_is_better()),
            // F1 of entities, if the tags mark entities.
            None => BestBy::new(if entities() { "f1" } else { "micro_f1" }, true),
        });
    };
    let known = evaluator::metric_names(task);
    if !known.contains(&name.as_str()) {
        let message = format!(
            "is `{name}`, but the metrics of {task} are {}",
            known.join(", ")
        );
        return Err(TrainError::config("metric", message));
    }
    Ok(BestBy::new(
        name,
        !["loss", "mse", "mae"].contains(&name.as_str()),
    ))
}
