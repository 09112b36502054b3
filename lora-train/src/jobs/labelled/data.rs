//! Layout of the labelled files of a task, and facts about their records.

use crate::TrainError;
use crate::data::{
    ClassWeights, Content, Example, Label, LabelKind, LabelSet, LabelledData, LabelledLayout,
    LabelledSource, ReadReport, Record, TruncationReport, Unlabelled, encode_labelled,
    read_labelled_files,
};
use crate::error::listed;
use crate::options::ReadingOptions;
use crate::task::TaskName;
use lora_models::encoder::Labels;
use lora_models::tokenizer::Tokenizer;
use std::path::{Path, PathBuf};

/// Reads a file of a task. `adapter` is the column with the adapters' names, if they are to be read; `labels` are the
/// classes, if they are known.
pub(super) fn read(
    path: &Path,
    task: TaskName,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    labels: Option<&LabelSet>,
    unlabelled: Unlabelled,
) -> Result<LabelledData, TrainError> {
    let paths = [path.to_path_buf()];
    let (data, _) = read_files(&paths, task, reading, adapter, labels, unlabelled)?;
    Ok(data)
}

/// Reads several files of a task, as [`read`]; their classes are united. Returns the report of each file, too.
pub(super) fn read_files(
    paths: &[PathBuf],
    task: TaskName,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    labels: Option<&LabelSet>,
    unlabelled: Unlabelled,
) -> Result<(LabelledData, Vec<ReadReport>), TrainError> {
    let columns = reading.columns(adapter);
    let layout = match (task, task.label_kind()) {
        (TaskName::Glue(glue), _) => LabelledLayout::Glue(glue),
        (_, Some(kind)) => LabelledLayout::Own { columns, kind },
        (_, None) => LabelledLayout::Words(columns),
    };
    let source = LabelledSource::new(&layout)
        .with_labels(labels)
        .with_format(reading.format.unwrap_or_default())
        .with_unlabelled(unlabelled)
        .with_adapter_column(adapter);
    read_labelled_files(paths, &source)
}

/// Reads a file for a head, as [`read`].
///
/// # Errors
/// Those of [`read`]; [`TrainError::DataFormat`] if the labels are for another number of outputs than the head has.
pub(super) fn read_for(
    head: &Labels,
    path: &Path,
    task: TaskName,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    unlabelled: Unlabelled,
) -> Result<LabelledData, TrainError> {
    let labels = label_set(head)?;
    let data = read(path, task, reading, adapter, labels.as_ref(), unlabelled)?;
    // Several outputs have names, by which they were compared.
    if *head == Labels::Score && data.outputs.len() > 1 {
        let message = format!(
            "each record has {} numbers, {}, and the head gives one score",
            data.outputs.len(),
            listed(&data.outputs)
        );
        return Err(TrainError::data_format(path, message));
    }
    Ok(data)
}

/// Returns the minimum input length in tokens: a token of each text between special tokens.
pub(super) fn shortest(records: &[Record]) -> usize {
    let is_pair = |record: &Record| matches!(record.content, Content::Pair { .. });
    if records.iter().any(is_pair) { 5 } else { 3 }
}

/// Returns the class of each label.
pub(super) fn classes(records: &[Record]) -> impl Iterator<Item = usize> + '_ {
    let labels = records.iter().filter_map(|record| record.label.as_ref());
    labels.flat_map(Label::classes).copied()
}

/// Returns the labels of a head for data of a task.
///
/// # Errors
/// [`TrainError::DataEmpty`] if no record has a class, and the task is one of classes.
pub(super) fn head_labels(
    task: TaskName,
    data: &LabelledData,
    path: &Path,
) -> Result<Labels, TrainError> {
    let classes = data.labels.as_ref().map(|set| set.names().to_vec());
    Ok(match (task.label_kind(), classes) {
        (Some(LabelKind::Score), _) if data.outputs.len() > 1 => {
            Labels::Scores(data.outputs.clone())
        }
        (Some(LabelKind::Score), _) => Labels::Score,
        (Some(LabelKind::MultiLabel), Some(names)) => Labels::MultiLabel(names),
        (_, Some(names)) => Labels::Classes(names),
        (_, None) => {
            let message =
                "no record has a class; name the classes with `labels`, or give data with some";
            return Err(TrainError::data_empty(path, message));
        }
    })
}

/// Returns the classes of a head, or its several scores, by name; `None` for a single score.
///
/// # Errors
/// [`TrainError::Config`] for names that cannot be told apart.
pub(super) fn label_set(labels: &Labels) -> Result<Option<LabelSet>, TrainError> {
    match labels {
        Labels::Score => Ok(None),
        labels => Ok(Some(LabelSet::new(labels.names().to_vec())?)),
    }
}

/// Tokenizes records. Words are encoded with the space before them, as in transformers' scripts for token classification, unless
/// the options say otherwise.
pub(super) fn encode(
    records: &[Record],
    task: TaskName,
    reading: &ReadingOptions,
    tokenizer: &Tokenizer,
    max_length: usize,
    weights: &ClassWeights,
) -> Result<(Vec<Example>, TruncationReport), TrainError> {
    if task != TaskName::TokenClassification {
        return encode_labelled(records, tokenizer, max_length, weights);
    }
    let space = reading.add_prefix_space.unwrap_or(true);
    let tokenizer = tokenizer.clone().with_prefix_space(space);
    encode_labelled(records, &tokenizer, max_length, weights)
}
