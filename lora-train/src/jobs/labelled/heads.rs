//! Checks that an existing head is one for the task.

use super::head_kind;
use crate::TrainError;
use crate::data::LabelKind;
use crate::jobs::session::Session;
use crate::jobs::sources::{AdapterSource, Sources};
use crate::task::TaskName;
use burn::tensor::Device;
use lora_core::{BaseDType, HalfFloat, Quantization};
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::encoder::Labels;

/// Way out for a head of another task.
const FRESH: &str = "start a new head with `fresh_head`, which keeps only the adapter's factors";

/// Refuses to train an adapter further whose head is for something else than the task, or has other outputs
/// than there are labels.
pub(super) fn check_start(
    adapter: &AdapterSource,
    task: TaskName,
    labels: &Labels,
) -> Result<(), TrainError> {
    let (kind, Some(own)) = (adapter.kind(), adapter.labels()) else {
        return Ok(());
    };
    let refuse = |what: String| {
        let adapter = adapter.dir.path().display();
        let message = format!("{adapter} has a head for {what}; {FRESH}");
        Err(TrainError::config("adapter", message))
    };
    if kind.is_some_and(|kind| kind != head_kind(task)) {
        let described = described_inputs(kind, own);
        return refuse(format!("{described}, and the task is {task}"));
    }
    if own.outputs() != labels.outputs() {
        let (own, labels) = (described(own), described(labels));
        return refuse(format!("{own}, and the run is for {labels}"));
    }
    Ok(())
}

/// Refuses to use a head for another task than its own.
fn check_use(kind: Option<HeadKind>, labels: &Labels, task: TaskName) -> Result<(), TrainError> {
    let scores = match labels {
        Labels::Score => LabelKind::Score,
        Labels::Classes(_) => LabelKind::Classes,
    };
    if kind.is_none_or(|kind| kind == head_kind(task))
        && task.label_kind().is_none_or(|kind| kind == scores)
    {
        return Ok(());
    }
    let gives = described_inputs(kind, labels);
    let message = format!("is {task}, but the model's head gives {gives}");
    Err(TrainError::config("task", message))
}

/// Returns the labels of the model with its adapters, which must fit the task. Several adapters must have the same.
pub(super) fn labels_in_use(sources: &Sources, task: TaskName) -> Result<Labels, TrainError> {
    let (kind, labels) = sources.head(sources.first())?;
    check_use(kind, &labels, task)?;
    let mut named = sources.named();
    let first = named.next();
    for (name, adapter) in named {
        let (kind, own) = sources.head(Some(adapter))?;
        check_use(kind, &own, task)?;
        if own != labels {
            let message = format!(
                "`{name}` has {}, and `{}` has {}: one run has one set of labels; run them one at a time",
                described(&own),
                first.map_or("", |(first, _)| first),
                described(&labels)
            );
            return Err(TrainError::config("adapter", message));
        }
    }
    Ok(labels)
}

/// Opens the model with a head of these labels, and with the adapter if there is one. Named adapters are added later.
pub(super) fn open(
    sources: &Sources,
    task: TaskName,
    labels: Labels,
    (quantization, base_dtype): (Option<Quantization>, Option<BaseDType>),
    mixed: Option<HalfFloat>,
    device: &Device,
) -> Result<Session<Classifier>, TrainError> {
    let load = ClassifierOptions {
        head: head_kind(task),
        labels: Some(labels),
        quantize: sources.quantize(quantization, &[])?,
        floats: sources.floats(base_dtype, mixed, &[])?,
        ..ClassifierOptions::default()
    };
    let config = sources.encoder()?;
    let session = Session::open(&sources.model, config, sources.one(), &load, device)?;
    if sources.is_named() {
        return Ok(session);
    }
    session.check_trained()
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
