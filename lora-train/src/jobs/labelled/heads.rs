//! Checks that an existing head is one for the task.

use super::data::label_set;
use super::head_kind;
use crate::TrainError;
use crate::data::{LabelKind, LabelSet};
use crate::error::listed;
use crate::jobs::session::{Base, Session};
use crate::jobs::sources::{AdapterSource, Sources};
use crate::task::TaskName;
use burn::tensor::Device;
use lora_core::{BaseDType, HalfFloat, Quantization};
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::encoder::{EncoderConfig, Labels};

/// Refuses to use a head for another task than its own.
fn check_use(kind: Option<HeadKind>, labels: &Labels, task: TaskName) -> Result<(), TrainError> {
    let own = kind_of(labels);
    if kind.is_none_or(|kind| kind == head_kind(task))
        && task.label_kind().is_none_or(|kind| kind == own)
    {
        return Ok(());
    }
    let gives = described_inputs(kind, labels);
    let message = format!("is {task}, but the model's head gives {gives}");
    Err(TrainError::config("task", message))
}

/// Returns the labels of the model with its adapters, which must fit the task. Several adapters must have the same. `names` are
/// those of the option `labels`.
pub(super) fn labels_in_use(
    sources: &Sources,
    task: TaskName,
    names: Option<&[String]>,
) -> Result<Labels, TrainError> {
    let head = |adapter: Option<&AdapterSource>| {
        let (kind, labels) = sources.head(adapter)?;
        let labels = match adapter {
            Some(adapter) if adapter.is_undescribed() => for_task(labels, task),
            _ => labels,
        };
        check_use(kind, &labels, task)?;
        Ok::<_, TrainError>(labels)
    };
    let labels = head(sources.first())?;
    let mut named = sources.named();
    let first = named.next();
    for (name, adapter) in named {
        let own = head(Some(adapter))?;
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
    renamed(labels, names)
}

/// Returns the options for loading a model with a head of these labels.
pub(super) fn load_options(
    sources: &Sources,
    task: TaskName,
    labels: Labels,
    (quantization, base_dtype): (Option<Quantization>, Option<BaseDType>),
    mixed: Option<HalfFloat>,
) -> Result<ClassifierOptions, TrainError> {
    let load = ClassifierOptions {
        head: head_kind(task),
        labels: Some(labels),
        quantize: sources.quantize(quantization, &[])?,
        floats: sources.floats(base_dtype, mixed, &[])?,
        ..ClassifierOptions::default()
    };
    without_head(sources, sources.encoder()?, load)
}

/// Returns the tokenizer and the sizes of a model, by which data and options are checked before weights are read.
pub(super) fn outline(
    sources: &Sources,
    load: &ClassifierOptions,
    device: &Device,
) -> Result<Base, TrainError> {
    let (dir, config, adapter) = (&sources.model, sources.encoder()?, sources.one());
    Ok(Session::<Classifier>::outline(dir, config, adapter, load, device)?.1)
}

/// Opens the model, and the adapter if there is one. Named adapters are added later.
pub(super) fn open(
    sources: &Sources,
    load: &ClassifierOptions,
    device: &Device,
) -> Result<Session<Classifier>, TrainError> {
    let (dir, config, adapter) = (&sources.model, sources.encoder()?, sources.one());
    let session = Session::open(dir, config, adapter, load, device)?;
    if sources.is_named() {
        return Ok(session);
    }
    session.check_trained()
}

/// Returns the labels of a head in use with the names of the option `labels`, for a head without names of its own.
///
/// # Errors
/// [`TrainError::Config`] if the head has other names, or another number of outputs.
fn renamed(labels: Labels, names: Option<&[String]>) -> Result<Labels, TrainError> {
    let Some(names) = names else {
        return Ok(labels);
    };
    let given = LabelSet::new(names.iter().cloned())?;
    refuse_for_score(&labels)?;
    let refuse = |message: String| Err(TrainError::config("labels", message));
    let (own, count) = (listed(labels.names()), labels.outputs());
    if given.len() != count {
        let (given, names) = (given.len(), listed(given.names()));
        return refuse(format!(
            "name {given} outputs ({names}), but the head has {count} ({own})"
        ));
    }
    let names = names.to_vec();
    if labels.are_numbered() {
        return Ok(match labels {
            Labels::MultiLabel(_) => Labels::MultiLabel(names),
            Labels::Scores(_) => Labels::Scores(names),
            _ => Labels::Classes(names),
        });
    }
    if label_set(&labels)?.is_some_and(|own| own.find_all(given.names()).is_some()) {
        return Ok(labels);
    }
    refuse(format!(
        "are {}, but the head has names of its own: {own}; leave the option out, or rename the classes in the model's \
         config.json",
        listed(given.names())
    ))
}

/// Refuses the option `labels` for a head with one score, which has no name.
pub(super) fn refuse_for_score(head: &Labels) -> Result<(), TrainError> {
    if *head != Labels::Score {
        return Ok(());
    }
    let message = "name classes, or several scores, but the head gives one score; leave it out";
    Err(TrainError::config("labels", message))
}

/// Returns the labels of a head, of which the number of outputs alone is known, as those of a task.
fn for_task(labels: Labels, task: TaskName) -> Labels {
    match (task.label_kind(), labels) {
        (Some(LabelKind::MultiLabel), Labels::Score) => {
            Labels::MultiLabel(Labels::numbered_names(1))
        }
        (Some(LabelKind::MultiLabel), Labels::Classes(names)) => Labels::MultiLabel(names),
        (Some(LabelKind::Score), Labels::Classes(names)) => Labels::Scores(names),
        (_, labels) => labels,
    }
}

/// Leaves the head to the named adapters, if each brings one and that of the model is for something else. The model alone is then
/// without a head.
fn without_head(
    sources: &Sources,
    config: &EncoderConfig,
    load: ClassifierOptions,
) -> Result<ClassifierOptions, TrainError> {
    let is_like = HeadKind::from_config(config).is_none_or(|kind| kind == load.head);
    let outputs = load.labels.as_ref().map(Labels::outputs);
    if is_like && outputs == Some(config.labels.outputs()) {
        return Ok(load);
    }
    let mut left: Option<ClassifierOptions> = None;
    for (_, adapter) in sources.named() {
        let mut with = load.clone().for_adapter(config.family, &adapter.dir)?;
        if let Some(before) = &left {
            with.brought.retain(|name| before.brought.contains(name));
        }
        left = Some(with);
    }
    Ok(left.unwrap_or(load))
}

/// Returns the kind of the labels of a head.
pub(super) fn kind_of(labels: &Labels) -> LabelKind {
    match labels {
        Labels::Classes(_) => LabelKind::Classes,
        Labels::MultiLabel(_) => LabelKind::MultiLabel,
        Labels::Score | Labels::Scores(_) => LabelKind::Score,
    }
}

/// Describes the outputs and the inputs of a head.
pub(super) fn described_inputs(kind: Option<HeadKind>, labels: &Labels) -> String {
    let inputs = match kind {
        Some(HeadKind::Token) => " for words",
        Some(HeadKind::Sequence) => " for texts",
        None => "",
    };
    format!("{}{inputs}", described(labels))
}

/// Describes the outputs of a head.
pub(super) fn described(labels: &Labels) -> String {
    const SHOWN: usize = 10;
    let what = match labels {
        Labels::Score => return "a score".into(),
        Labels::Classes(_) => "classes",
        Labels::MultiLabel(_) => "classes, any number of them",
        Labels::Scores(_) => "scores",
    };
    let names = labels.names();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown = names[..names.len().min(SHOWN)].join(", ");
    format!("{} {what} ({shown}{more})", names.len())
}
