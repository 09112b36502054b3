//! Whether a head that is there already is one for the task.

use super::{head_kind, model_labels};
use crate::TrainError;
use crate::data::LabelKind;
use crate::jobs::adapters::Wanted;
use crate::jobs::open::{Loaded, load_base, load_trained};
use crate::task::TaskName;
use burn::tensor::Device;
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind, adapter_labels};
use lora_models::encoder::{EncoderConfig, Labels};
use std::path::Path;

/// What would put a head of another task right.
const FRESH: &str = "start a fresh one with `fresh_head`, which keeps the adapter's factors alone";

/// Refuses to train an adapter further whose head is for something else than the task, or has other outputs
/// than there are labels.
pub(super) fn check_start(
    adapter: &Path,
    task: TaskName,
    labels: &Labels,
) -> Result<(), TrainError> {
    let found = adapter_labels(adapter)?;
    let Some(own) = found.labels else {
        return Ok(());
    };
    let refuse = |what: String| {
        let adapter = adapter.display();
        let message = format!("{adapter} has a head for {what}; {FRESH}");
        Err(TrainError::config("adapter", message))
    };
    if found.kind.is_some_and(|kind| kind != head_kind(task)) {
        return refuse(format!(
            "{}, and the task is {task}",
            of_kind(found.kind, &own)
        ));
    }
    match own.outputs() == labels.outputs() {
        true => Ok(()),
        false => refuse(format!(
            "{}, and the run is for {}",
            described(&own),
            described(labels)
        )),
    }
}

/// Refuses to use a head for another task than its own.
pub(super) fn check_use(
    model: &Path,
    adapter: Option<&Path>,
    task: TaskName,
    labels: &Labels,
) -> Result<(), TrainError> {
    let kind = match adapter {
        Some(adapter) => adapter_labels(adapter)?.kind,
        None => HeadKind::from_config(&EncoderConfig::from_dir(model)?),
    };
    let other = kind.is_some_and(|kind| kind != head_kind(task));
    let scores = match labels {
        Labels::Score => LabelKind::Score,
        Labels::Classes(_) => LabelKind::Classes,
    };
    let other = other || task.label_kind().is_some_and(|kind| kind != scores);
    match other {
        false => Ok(()),
        true => Err(TrainError::config(
            "task",
            format!(
                "is {task}, but the model's head gives {}",
                of_kind(kind, labels)
            ),
        )),
    }
}

/// The labels of what is used, after [`check_use`]: of several adapters, those that all of them have.
pub(super) fn labels_in_use(
    model: &Path,
    wanted: &Wanted<'_>,
    task: TaskName,
) -> Result<Labels, TrainError> {
    let labels = model_labels(model, wanted.first())?;
    check_use(model, wanted.first(), task, &labels)?;
    let Wanted::Named(adapters) = wanted else {
        return Ok(labels);
    };
    for (name, dir) in adapters {
        let own = model_labels(model, Some(dir))?;
        check_use(model, Some(dir), task, &own)?;
        if own != labels {
            let message = format!(
                "`{name}` has {}, and `{}` has {}: one run has one set of labels; run them one at a time",
                described(&own),
                adapters[0].0,
                described(&labels)
            );
            return Err(TrainError::config("adapter", message));
        }
    }
    Ok(labels)
}

/// The model with the one adapter, or without where there are several: those are put on by name.
pub(super) fn open(
    model: &Path,
    wanted: &Wanted<'_>,
    how: &ClassifierOptions,
    device: &Device,
) -> Result<Loaded<Classifier>, TrainError> {
    match wanted {
        Wanted::Named(_) => load_base(model, None, how, device),
        _ => load_trained(model, wanted.one(), how, device),
    }
}

fn of_kind(kind: Option<HeadKind>, labels: &Labels) -> String {
    let inputs = match kind {
        Some(HeadKind::Token) => " for words",
        Some(HeadKind::Sequence) => " for texts",
        None => "",
    };
    format!("{}{inputs}", described(labels))
}

fn described(labels: &Labels) -> String {
    const SHOWN: usize = 10;
    match labels {
        Labels::Score => "a score".into(),
        Labels::Classes(names) => {
            let more = if names.len() > SHOWN { ", …" } else { "" };
            let shown = names[..names.len().min(SHOWN)].join(", ");
            format!("{} classes ({shown}{more})", names.len())
        }
    }
}
