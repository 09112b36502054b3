//! Labelled files to examples.

use crate::TrainError;
use crate::data::{
    ClassWeights, DataFormat, EncodeInputs, Label, LabelSet, LabelledColumns, LabelledExample,
    LabelledLayout, LabelledRecord, LabelledSource, ReadReport, TokenFormat, TokenKeys,
    TokenRecord, TokenSource, TruncationReport, Unlabelled, encode_labelled, encode_tagged,
    read_labelled, read_tokens,
};
use crate::options::ReadingOptions;
use crate::task::TaskName;
use lora_models::encoder::Labels;
use std::path::Path;

/// Records of either kind.
pub(super) enum Records {
    /// Texts and pairs.
    Texts(Vec<LabelledRecord>),
    /// Rows of words.
    Words(Vec<TokenRecord>),
}

impl Default for Records {
    fn default() -> Self {
        Self::Texts(Vec::new())
    }
}

impl Records {
    /// Tokenises them.
    pub fn encode(
        &self,
        tokenizer: &dyn EncodeInputs,
        max_length: usize,
        weights: &ClassWeights,
    ) -> Result<(Vec<LabelledExample>, TruncationReport), TrainError> {
        match self {
            Self::Texts(records) => encode_labelled(records, tokenizer, max_length, weights),
            Self::Words(records) => encode_tagged(records, tokenizer, max_length, weights),
        }
    }

    /// Shortest input that has anything of the records: a token of each text between special ones.
    pub fn least(&self) -> usize {
        match self {
            Self::Texts(records) if records.iter().any(|record| record.second.is_some()) => 5,
            _ => 3,
        }
    }

    /// Every class that is a label, as often as it is.
    pub fn classes(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match self {
            Self::Texts(records) => {
                let labels = records.iter().filter_map(|record| record.label);
                Box::new(labels.filter_map(Label::class))
            }
            Self::Words(records) => {
                let labels = records.iter().filter_map(|record| record.labels.as_ref());
                Box::new(labels.flatten().copied())
            }
        }
    }

    /// The records' own names, where all have one.
    pub fn ids(&self) -> Option<Vec<&str>> {
        match self {
            Self::Texts(records) => records.iter().map(|record| record.id.as_deref()).collect(),
            Self::Words(_) => None,
        }
    }
}

/// What a file held.
pub(super) struct Read {
    pub records: Records,
    pub labels: Option<LabelSet>,
    pub report: ReadReport,
}

/// Reads files of a task.
pub(super) struct Reader {
    kind: Kind,
    format: DataFormat,
}

enum Kind {
    Texts(LabelledLayout),
    Words(TokenKeys),
}

impl Reader {
    /// Reads as the options say.
    pub fn new(task: TaskName, reading: &ReadingOptions) -> Self {
        let kind = match (task, task.label_kind()) {
            (TaskName::Glue(glue), _) => Kind::Texts(LabelledLayout::Glue(glue)),
            (_, Some(kind)) => Kind::Texts(LabelledLayout::Own {
                columns: LabelledColumns {
                    text: reading.text_column.clone(),
                    pair: reading.pair_column.clone(),
                    label: reading.label_column.clone(),
                    id: None,
                },
                kind,
            }),
            (_, None) => Kind::Words(TokenKeys {
                words: reading.text_column.clone(),
                labels: reading.label_column.clone(),
            }),
        };
        Self {
            kind,
            format: reading.format.unwrap_or_default(),
        }
    }

    /// Reads a file; `labels` are the classes, where they are known.
    pub fn read(
        &self,
        path: &Path,
        labels: Option<&LabelSet>,
        unlabelled: Unlabelled,
    ) -> Result<Read, TrainError> {
        match &self.kind {
            Kind::Texts(layout) => {
                let source = LabelledSource::new(layout)
                    .with_labels(labels)
                    .with_format(self.format)
                    .with_unlabelled(unlabelled);
                let data = read_labelled(path, &source)?;
                Ok(Read {
                    records: Records::Texts(data.records),
                    labels: data.labels,
                    report: data.report,
                })
            }
            Kind::Words(keys) => {
                let source = TokenSource {
                    format: match self.format {
                        DataFormat::JsonLines => TokenFormat::JsonLines,
                        DataFormat::PlainText => TokenFormat::Conll,
                        _ => TokenFormat::Auto,
                    },
                    keys: keys.clone(),
                    labels,
                    unlabelled,
                };
                let data = read_tokens(path, &source)?;
                Ok(Read {
                    records: Records::Words(data.records),
                    labels: data.labels,
                    report: data.report,
                })
            }
        }
    }
}

/// The labels of a head that has these classes, or a score.
pub(super) fn labels_of(set: Option<&LabelSet>) -> Labels {
    match set {
        Some(set) => Labels::Classes(set.names().to_vec()),
        None => Labels::Score,
    }
}

/// The classes of a head's labels.
pub(super) fn label_set(labels: &Labels) -> Result<Option<LabelSet>, TrainError> {
    match labels {
        Labels::Classes(names) => Ok(Some(LabelSet::new(names.clone())?)),
        Labels::Score => Ok(None),
    }
}
