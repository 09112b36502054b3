//! Encoders with a head: classes or scores for texts and pairs, classes for words.

mod data;
mod eval;
mod evaluator;
mod heads;
mod predict;

pub(crate) use eval::eval;
pub use predict::{PredictOptions, Predicted, predict};

use super::job::{BestBy, Evaluate, Job};
use super::open::Base;
use super::plan::TrainPlan;
use crate::TrainError;
use crate::data::{ClassWeights, LabelKind, LabelSet, LabelledExample, Unlabelled};
use crate::metric::are_entity_tags;
use crate::options::ClassWeighting;
use crate::progress::Screen;
use crate::task::{Classify, TaskName};
use data::{Reader, Records, label_set, labels_of};
use evaluator::Evaluator;
use heads::check_start;
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind, adapter_labels};
use lora_models::encoder::{EncoderConfig, Labels};
use std::sync::Arc;

/// Training an encoder with a head.
pub(crate) struct LabelledJob {
    task: TaskName,
    label_smoothing: f64,
    checkpoint_activations: bool,
    how: ClassifierOptions,
    labels: Option<LabelSet>,
    records: Records,
    eval_records: Option<Records>,
    weights: ClassWeights,
    evaluator: Option<Arc<Evaluator>>,
    best_by: BestBy,
}

/// What the head of a task is for.
pub(in crate::jobs) fn head_kind(task: TaskName) -> HeadKind {
    match task {
        TaskName::TokenClassification => HeadKind::Token,
        _ => HeadKind::Sequence,
    }
}

impl Job for LabelledJob {
    type Model = Classifier;
    type Sample = LabelledExample;
    type Task = Classify;

    fn new(plan: &TrainPlan, screen: &Screen) -> Result<Self, TrainError> {
        let task = plan.task()?;
        let reader = Reader::new(task, &plan.options.reading);
        let known = known_labels(plan, task, screen)?;
        let read = reader.read(&plan.data, known.as_ref(), Unlabelled::Refuse)?;
        let (records, labels, report) = match of_the_model(plan, task, &known, &read.labels)? {
            None => (read.records, read.labels, read.report),
            Some(own) => {
                let read = reader.read(&plan.data, Some(&own), Unlabelled::Refuse)?;
                (read.records, read.labels, read.report)
            }
        };
        screen.line(&format!("data      {}: {report}", plan.data.display()));
        let mut eval_records = None;
        if let Some(path) = &plan.options.eval_data {
            let read = reader.read(path, labels.as_ref(), Unlabelled::Refuse)?;
            screen.line(&format!("eval data {}: {}", path.display(), read.report));
            eval_records = Some(read.records);
        }
        if let Some(labels) = &labels {
            screen.line(&format!("labels    {}", labels.names().join(", ")));
        }
        let head = labels_of(labels.as_ref());
        if let (Some(adapter), false) = (&plan.options.adapter, plan.options.fresh_head) {
            check_start(adapter, task, &head)?;
        }
        let weights = class_weights(plan, labels.as_ref(), &records)?;
        let best_by = best_by(plan, task, labels.as_ref())?;
        Ok(Self {
            task,
            label_smoothing: plan.label_smoothing,
            checkpoint_activations: plan.options.checkpoint_activations,
            how: ClassifierOptions {
                head: head_kind(task),
                labels: Some(head),
                fresh_head: plan.options.fresh_head,
                seed: plan.seed,
                quantize: plan.quantize()?,
            },
            labels,
            records,
            eval_records,
            weights,
            evaluator: None,
            best_by,
        })
    }

    fn load_options(&self) -> ClassifierOptions {
        self.how.clone()
    }

    fn encode(
        &mut self,
        plan: &TrainPlan,
        base: &Base,
        screen: &Screen,
    ) -> Result<Vec<LabelledExample>, TrainError> {
        let records = std::mem::take(&mut self.records);
        let length = base.max_length(plan.options.max_length, records.least())?;
        let (examples, report) = records.encode(&base.tokenizer, length, &self.weights)?;
        screen.line(&format!("tokens    {report}"));
        if let Some(records) = self.eval_records.take() {
            // Every label counts alike in an evaluation.
            let weights = ClassWeights::default();
            let (examples, _) = records.encode(&base.tokenizer, length, &weights)?;
            self.evaluator = Some(Arc::new(Evaluator::new(
                self.task,
                self.labels.clone(),
                examples,
                plan.eval_batch_size,
                base.pad_id(),
            )?));
        }
        Ok(examples)
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
        let evaluator = self.evaluator.clone()?;
        Some(evaluator)
    }

    fn best_by(&self) -> BestBy {
        self.best_by.clone()
    }
}

/// The classes that are known before the data is read: those of the options, or of the adapter that is
/// gone on with.
fn known_labels(
    plan: &TrainPlan,
    task: TaskName,
    screen: &Screen,
) -> Result<Option<LabelSet>, TrainError> {
    let options = &plan.options;
    if task.label_kind() == Some(LabelKind::Score) {
        return Ok(None);
    }
    if let Some(names) = &options.labels {
        return Ok(Some(LabelSet::new(names.clone())?));
    }
    match &options.adapter {
        Some(adapter) if !options.fresh_head => {
            let labels = adapter_labels(adapter)?.labels;
            let set = labels.as_ref().map(label_set).transpose()?.flatten();
            if let Some(set) = &set {
                // Before the data is read, which may have others.
                screen.line(&format!(
                    "adapter   {} has a head for {}; `fresh_head` starts another",
                    adapter.display(),
                    set.names().join(", ")
                ));
            }
            Ok(set)
        }
        _ => Ok(None),
    }
}

/// The classes of the model's own head, where the data has some of them by name: a model that is
/// fine-tuned further keeps the order of its classes.
fn of_the_model(
    plan: &TrainPlan,
    task: TaskName,
    known: &Option<LabelSet>,
    gathered: &Option<LabelSet>,
) -> Result<Option<LabelSet>, TrainError> {
    let own_data = matches!(
        task,
        TaskName::Classification | TaskName::TokenClassification
    );
    let (Some(gathered), None, false, true) = (gathered, known, plan.options.fresh_head, own_data)
    else {
        return Ok(None);
    };
    let config = EncoderConfig::from_dir(super::open::model_directory(&plan.model)?)?;
    let Some(own) = label_set(&config.labels)?.filter(|own| !own.is_generic()) else {
        return Ok(None);
    };
    let all = gathered
        .names()
        .iter()
        .all(|name| own.index(name).is_some());
    Ok((all && own != *gathered).then_some(own))
}

fn class_weights(
    plan: &TrainPlan,
    labels: Option<&LabelSet>,
    records: &Records,
) -> Result<ClassWeights, TrainError> {
    let refuse = |message: String| Err(TrainError::config("class_weights", message));
    let Some(weighting) = &plan.options.class_weights else {
        return Ok(ClassWeights::default());
    };
    let Some(labels) = labels else {
        return refuse("are for classes, and a regression has none".into());
    };
    match weighting {
        ClassWeighting::Balanced => Ok(ClassWeights::balanced(records.classes(), labels.len())),
        ClassWeighting::PerClass(weights) => {
            if weights.len() != labels.len() {
                return refuse(format!(
                    "are {}, but the classes are {}: {}",
                    weights.len(),
                    labels.len(),
                    labels.names().join(", ")
                ));
            }
            if let Some(bad) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
                return refuse(format!("has {bad}, expected numbers above 0"));
            }
            Ok(ClassWeights::given(weights.clone()))
        }
    }
}

/// The metric of the options, else the task's own.
fn best_by(
    plan: &TrainPlan,
    task: TaskName,
    labels: Option<&LabelSet>,
) -> Result<BestBy, TrainError> {
    let entities = labels.is_some_and(|set| are_entity_tags(set.names()));
    let own = match task.metric() {
        Some(metric) => BestBy {
            metric: metric.primary().into(),
            higher_is_better: metric.higher_is_better(),
        },
        // Of entities, where the tags are theirs.
        None => BestBy {
            metric: if entities { "f1" } else { "micro_f1" }.into(),
            higher_is_better: true,
        },
    };
    let Some(name) = &plan.options.metric else {
        return Ok(own);
    };
    let known = evaluator::metric_names(task);
    match known.contains(&name.as_str()) {
        true => Ok(BestBy {
            metric: name.clone(),
            higher_is_better: !["loss", "mse", "mae"].contains(&name.as_str()),
        }),
        false => Err(TrainError::config(
            "metric",
            format!("is `{name}`, but {task} is judged by {}", known.join(", ")),
        )),
    }
}

/// The task's labels of a model, with or without an adapter: to evaluate or to predict.
pub(in crate::jobs) fn model_labels(
    model: &std::path::Path,
    adapter: Option<&std::path::Path>,
) -> Result<Labels, TrainError> {
    if let Some(adapter) = adapter
        && let Some(labels) = adapter_labels(adapter)?.labels
    {
        return Ok(labels);
    }
    Ok(EncoderConfig::from_dir(model)?.labels)
}
