//! Checks that an existing head is one for the task.

use super::{head_kind, model_labels};
use crate::TrainError;
use crate::data::LabelKind;
use crate::jobs::adapters::AdapterSelection;
use crate::jobs::open::{Loaded, load_base, load_trained};
use crate::task::TaskName;
use burn::tensor::Device;
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind, adapter_labels};
use lora_models::encoder::{EncoderConfig, Labels};
use std::path::Path;

/// Way out for a head of another task.
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
            described_inputs(found.kind, &own)
        ));
    }
    if own.outputs() != labels.outputs() {
        return refuse(format!(
            "{}, and the run is for {}",
            described(&own),
            described(labels)
        ));
    }
    Ok(())
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
    if other {
        return Err(TrainError::config(
            "task",
            format!(
                "is {task}, but the model's head gives {}",
                described_inputs(kind, labels)
            ),
        ));
    }
    Ok(())
}

/// Returns the labels of the model or adapter, after [`check_use`]. Several adapters must have the same.
pub(super) fn labels_in_use(
    model: &Path,
    selection: &AdapterSelection<'_>,
    task: TaskName,
) -> Result<Labels, TrainError> {
    let labels = model_labels(model, selection.first())?;
    check_use(model, selection.first(), task, &labels)?;
    let AdapterSelection::Named(adapters) = selection else {
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

/// Opens the model, with the adapter if there is one. Several adapters are added later, by name.
pub(super) fn open(
    model: &Path,
    selection: &AdapterSelection<'_>,
    how: &ClassifierOptions,
    device: &Device,
) -> Result<Loaded<Classifier>, TrainError> {
    match selection {
        AdapterSelection::Named(_) => load_base(model, None, how, device),
        _ => load_trained(model, selection.one(), how, device),
    }
}

/// Describes the outputs and the inputs of a head.
fn described_inputs(kind: Option<HeadKind>, labels: &Labels) -> String {
    let inputs = match kind {
        Some(HeadKind::Token) => " for words",
        Some(HeadKind::Sequence) => " for texts",
        None => "",
    };
    format!("{}{inputs}", described(labels))
}

/// Describes the outputs of a head.
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
