//! Reading a file of labelled records.

use std::path::Path;

use serde_json::Value;

use super::classes::{Classes, raw_label};
use super::columns::LabelledColumns;
use super::glue::GlueTask;
use super::label_set::LabelSet;
use super::record::{Label, LabelKind, LabelledRecord, ReadReport, Unlabelled};
use super::row_plan::Plan;
use super::table::{Column, Row, Table};
use crate::data::lines::is_blank;
use crate::data::{DataFormat, jsonl};
use crate::error::TrainError;

/// What the columns of a file are, and what its labels mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelledLayout {
    /// A file of a task of GLUE, as GLUE, the authors of the data set or the `datasets` library
    /// write it; its columns tell.
    Glue(GlueTask),
    /// Any other file.
    Own {
        /// What its columns are called.
        columns: LabelledColumns,
        /// What kind of label it holds.
        kind: LabelKind,
    },
}

impl Default for LabelledLayout {
    fn default() -> Self {
        Self::Own {
            columns: LabelledColumns::default(),
            kind: LabelKind::default(),
        }
    }
}

/// How to read a file of labelled records.
#[derive(Clone, Copy, Debug)]
pub struct LabelledSource<'a> {
    /// Its columns and labels.
    pub layout: &'a LabelledLayout,
    /// Its format: JSON Lines, CSV or TSV.
    pub format: DataFormat,
    /// The classes: to evaluate or predict, those of the model. Without, they are the task's own,
    /// or for one's own data those that the file has.
    pub labels: Option<&'a LabelSet>,
    /// What becomes of records without a label.
    pub unlabelled: Unlabelled,
}

impl<'a> LabelledSource<'a> {
    /// Reads to train: the format told by itself, the classes the task's or the file's own, a label
    /// for every record.
    pub fn new(layout: &'a LabelledLayout) -> Self {
        Self {
            layout,
            format: DataFormat::Auto,
            labels: None,
            unlabelled: Unlabelled::Refuse,
        }
    }

    /// The classes of the records.
    pub fn with_labels(self, labels: Option<&'a LabelSet>) -> Self {
        Self { labels, ..self }
    }

    /// The file's format.
    pub fn with_format(self, format: DataFormat) -> Self {
        Self { format, ..self }
    }

    /// What becomes of records without a label.
    pub fn with_unlabelled(self, unlabelled: Unlabelled) -> Self {
        Self { unlabelled, ..self }
    }
}

/// The records of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledData {
    /// The records, in the order of the file.
    pub records: Vec<LabelledRecord>,
    /// The classes; `None` for scores, and for own data of which nothing is labelled.
    pub labels: Option<LabelSet>,
    /// What was read, and what was left out.
    pub report: ReadReport,
}

/// How the labels are read.
enum Reader {
    Classes(Classes),
    /// Scores of any size.
    Scores,
    /// Scores from 0 to 5, where -1 means that there is none.
    Stsb,
}

/// Reads every record of the file at `path`, in the file's order.
///
/// Labels are class names or indices, or scores. Classes that are gathered from the file are put
/// in the order of `run_glue.py` of transformers: numbers by value, names by code point. Pass the
/// [`LabelSet`] of the training data to read evaluation data, so that both mean the same by a
/// class.
///
/// The file is read as hostile input: lines, columns and classes are bounded.
///
/// # Errors
/// - [`TrainError::Io`] if the file cannot be read;
/// - [`TrainError::DataLine`] for the first row that is malformed, or whose label is missing,
///   unknown or out of range;
/// - [`TrainError::Column`] or [`TrainError::DataFormat`] if the columns are not those expected, or
///   the format cannot be told;
/// - [`TrainError::DataEmpty`] if there is no record;
/// - [`TrainError::Config`] if the options contradict each other, or the labels that are given are
///   not those of the task.
///
/// # Examples
/// ```
/// use lora_train::data::{Label, LabelledLayout, LabelledSource, read_labelled};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train.csv");
/// std::fs::write(&path, "text,label\nwell done,good\n\"no, never\",bad\n")?;
///
/// let layout = LabelledLayout::default();
/// let data = read_labelled(&path, &LabelledSource::new(&layout))?;
/// assert_eq!(data.labels.unwrap().names(), ["bad", "good"]);
/// assert_eq!(data.records[1].first, "no, never");
/// assert_eq!(data.records[1].label, Some(Label::Class(0)));
/// # Ok(())
/// # }
/// ```
pub fn read_labelled(path: &Path, source: &LabelledSource) -> Result<LabelledData, TrainError> {
    let mut reader = Reader::of(source)?;
    let headerless = |row: &[String]| match source.layout {
        LabelledLayout::Glue(task) => task.headerless(row),
        LabelledLayout::Own { .. } => None,
    };
    let Some(mut table) = Table::open(path, source.format, &headerless)? else {
        return Err(TrainError::data_empty(path, "it has no record"));
    };
    let plan = match source.layout {
        LabelledLayout::Glue(task) => task.plan(&mut table, source.unlabelled)?,
        LabelledLayout::Own { columns, .. } => columns.plan(&table, source.unlabelled)?,
    };

    let mut records = Vec::new();
    let mut report = ReadReport::default();
    while let Some(row) = table.next_row()? {
        let line = row.origin.line();
        let record = plan
            .record(row, &mut reader, &mut report, source.unlabelled)
            .map_err(|message| TrainError::data_line(path, line, message))?;
        records.extend(record);
    }
    report.records = records.len();
    report.malformed += table.skipped();
    if records.is_empty() {
        return Err(TrainError::data_empty(
            path,
            format!("of {} rows, no record is left", report.rows()),
        ));
    }
    let labels = reader.settle(path, &mut records)?;
    Ok(LabelledData {
        records,
        labels,
        report,
    })
}

/// What a record is called: a string or a number.
fn id(value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok((!is_blank(&id)).then_some(id)),
        Some(Value::Number(id)) => Ok(Some(id.to_string())),
        Some(other) => Err(format!(
            "the id is {}, expected a string or a number",
            jsonl::kind(&other)
        )),
    }
}

impl Reader {
    fn of(source: &LabelledSource) -> Result<Self, TrainError> {
        match source.layout {
            LabelledLayout::Glue(task) => match (task.labels(), source.labels) {
                (Some(labels), None) => Ok(Self::Classes(Classes::Mapped {
                    mapping: (0..labels.len()).collect(),
                    model: labels.clone(),
                    task: labels,
                })),
                (Some(labels), Some(model)) => Ok(Self::Classes(Classes::Mapped {
                    mapping: task.class_mapping(model)?,
                    model: model.clone(),
                    task: labels,
                })),
                (None, None) => Ok(Self::Stsb),
                (None, Some(model)) => task.class_mapping(model).map(|_| Self::Stsb),
            },
            LabelledLayout::Own { columns, kind } => {
                columns.validate()?;
                match (kind, source.labels) {
                    (LabelKind::Classes, labels) => Ok(Self::Classes(Classes::of(labels))),
                    (LabelKind::Score, None) => Ok(Self::Scores),
                    (LabelKind::Score, Some(_)) => Err(TrainError::config(
                        "labels",
                        "scores have no names; name no labels, or choose classes",
                    )),
                }
            }
        }
    }

    /// What a label in the file means: `None` if it says that there is none. A class is not final
    /// before [`Reader::settle`].
    fn label(&mut self, raw: &str) -> Result<Option<Label>, String> {
        match self {
            Self::Classes(classes) if raw == "-1" && classes.minus_one_is_none() => Ok(None),
            Self::Classes(classes) => Ok(Some(Label::Class(classes.class(raw)?))),
            Self::Scores => Ok(Some(Label::Score(score(raw)?))),
            Self::Stsb => match score(raw)? {
                -1.0 => Ok(None),
                score if (0.0..=5.0).contains(&score) => Ok(Some(Label::Score(score))),
                _ => Err(format!("the score {raw} is out of range; STS-B has 0 to 5")),
            },
        }
    }

    /// The classes, once the file is read; those of the records become final.
    fn settle(
        self,
        path: &Path,
        records: &mut [LabelledRecord],
    ) -> Result<Option<LabelSet>, TrainError> {
        let Self::Classes(classes) = self else {
            return Ok(None);
        };
        let settled = classes.settle(path)?;
        for record in records {
            if let Some(Label::Class(class)) = &mut record.label {
                *class = settled.class(*class);
            }
        }
        Ok(settled.labels)
    }
}

/// The score that a label is.
fn score(raw: &str) -> Result<f64, String> {
    raw.parse()
        .ok()
        .filter(|score: &f64| score.is_finite())
        .ok_or_else(|| {
            format!("the label `{raw}` is no score; expected a number, or choose classes")
        })
}
impl Plan {
    /// The record of a row, with its label as `reader` has it; `None` if the row is left out.
    fn record(
        &self,
        mut row: Row,
        reader: &mut Reader,
        report: &mut ReadReport,
        unlabelled: Unlabelled,
    ) -> Result<Option<LabelledRecord>, String> {
        let raw = match &self.label {
            Some(column) => raw_label(row.take(column))?,
            None => None,
        };
        if raw.is_some() && raw.as_deref() == self.undecided {
            report.undecided += 1;
            return Ok(None);
        }
        if raw.is_none() && self.skip_without_label {
            report.malformed += 1;
            return Ok(None);
        }
        let label = match &raw {
            Some(raw) => reader.label(raw)?,
            None => None,
        };
        if label.is_none() {
            if unlabelled == Unlabelled::Refuse {
                return Err(
                    "no label: it is missing, empty or -1; to train and to evaluate, every record \
                     needs one, so leave out those without"
                        .to_string(),
                );
            }
            report.unlabelled += 1;
        }

        let text = |row: &mut Row, (column, name): &(Column, String)| row.take_text(column, name);
        let first = text(&mut row, &self.first)?;
        let second = match &self.second {
            Some(second) => Some(text(&mut row, second)?),
            None => None,
        };
        if let Some((column, name)) = &self.absent
            && row.take(column).is_some()
        {
            return Err(format!(
                "the object has a key \"{name}\", which the first one has not; a file holds texts or \
                 pairs of texts"
            ));
        }
        report.blank += usize::from(is_blank(&first) || second.as_deref().is_some_and(is_blank));
        let id = match &self.id {
            Some(column) => id(row.take(column))?,
            None => None,
        };
        Ok(Some(LabelledRecord {
            first,
            second,
            label,
            id,
            origin: row.origin,
        }))
    }
}
