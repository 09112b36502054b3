//! Layout of the labelled files of a task, and facts about their records.

use crate::TrainError;
use crate::data::{
    Content, Label, LabelSet, LabelledData, LabelledLayout, LabelledSource, Record, Unlabelled,
    read_labelled,
};
use crate::options::ReadingOptions;
use crate::task::TaskName;
use lora_models::encoder::Labels;
use std::path::Path;

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
    read_labelled(path, &source)
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

/// Returns the labels of a head with these classes, or a score.
pub(super) fn head_labels(set: Option<&LabelSet>) -> Labels {
    match set {
        Some(set) => Labels::Classes(set.names().to_vec()),
        None => Labels::Score,
    }
}

/// Returns the classes of a head's labels.
pub(super) fn label_set(labels: &Labels) -> Result<Option<LabelSet>, TrainError> {
    match labels {
        Labels::Classes(names) => Ok(Some(LabelSet::new(names.clone())?)),
        Labels::Score => Ok(None),
    }
}
