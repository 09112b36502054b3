//! Reading a file of records with labels.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::records::{LabelledData, ReadReport, map_classes};
use super::scores::{Scores, score};
use super::sets::Sets;
use super::words;
use crate::data::columns::Columns;
use crate::data::format::DataFormat;
use crate::data::glue::GlueTask;
use crate::data::jsonl;
use crate::data::labels::{Classes, LabelKind, LabelSet, Unlabelled, raw_label};
use crate::data::lines::is_blank;
use crate::data::record::{Content, Label, Origin, Record};
use crate::data::row_layout::RowLayout;
use crate::data::table::{Headerless, Row, Table};
use crate::error::{TrainError, listed};

/// Columns of a file, and the meaning of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelledLayout {
    /// File of a task of GLUE, as GLUE, the authors of the data set or the `datasets` library
    /// write it. The reader detects which from the columns.
    Glue(GlueTask),
    /// Any other file of texts or pairs of texts.
    Own {
        /// Names of the columns.
        columns: Columns,
        /// Kind of the labels.
        kind: LabelKind,
    },
    /// Sentences of words with a class for each word.
    Words(Columns),
}

impl Default for LabelledLayout {
    fn default() -> Self {
        Self::Own {
            columns: Columns::default(),
            kind: LabelKind::default(),
        }
    }
}

/// Options for reading a file of records with labels.
#[derive(Clone, Copy, Debug)]
pub struct LabelledSource<'a> {
    layout: &'a LabelledLayout,
    format: DataFormat,
    labels: Option<&'a LabelSet>,
    unlabelled: Unlabelled,
    adapter: Option<&'a str>,
}

impl<'a> LabelledSource<'a> {
    /// Creates the options to train: a detected format, the classes of the task or of the file, and a label
    /// for every record.
    pub fn new(layout: &'a LabelledLayout) -> Self {
        Self {
            layout,
            format: DataFormat::Auto,
            labels: None,
            unlabelled: Unlabelled::Refuse,
            adapter: None,
        }
    }

    /// Sets the classes: to evaluate or predict, those of the model. Without, they are those of the task or of the file.
    pub fn with_labels(self, labels: Option<&'a LabelSet>) -> Self {
        Self { labels, ..self }
    }

    /// Sets the format of the file: JSON Lines, CSV or TSV; for words JSON Lines or plain text.
    pub fn with_format(self, format: DataFormat) -> Self {
        Self { format, ..self }
    }

    /// Sets the treatment of records without a label.
    pub fn with_unlabelled(self, unlabelled: Unlabelled) -> Self {
        Self { unlabelled, ..self }
    }

    /// Sets the column or key of the name of the record's adapter, which may be missing.
    pub fn with_adapter_column(self, adapter: Option<&'a str>) -> Self {
        Self { adapter, ..self }
    }
}

/// Reader of the labels of a file.
enum LabelReader<'a> {
    Classes(Classes),
    Sets(Sets<'a>),
    /// Scores of any size.
    Scores(Scores<'a>),
    /// Scores from 0 to 5, where -1 stands for no label.
    Stsb,
}

/// Reads every record of the file at `path`, in the file's order.
///
/// Labels are class names or indices, or scores. A record with several labels has a list of them, or a column for each: of 0 and
/// 1 for classes, and of numbers for scores. Classes that are gathered from the file have
/// the order of `run_glue.py` and `run_ner.py` of transformers: numbers by value, names by code point. Pass the
/// [`LabelSet`] of the training data to read evaluation data, so that both mean the same by a
/// class.
///
/// Words come from JSON Lines, or from the columns of `CoNLL` ([`DataFormat::PlainText`]), where lines that begin with
/// `-DOCSTART-` are left out.
///
/// The reader expects hostile input: lines, columns and classes are bounded.
///
/// # Errors
/// - [`TrainError::Io`] if the file cannot be read;
/// - [`TrainError::DataLine`] for the first row that is malformed, or whose label is missing,
///   unknown or out of range; for the first sentence without words, or without as many labels;
/// - [`TrainError::Column`] or [`TrainError::DataFormat`] if the columns are not those expected, or
///   the format is not detected;
/// - [`TrainError::DataEmpty`] if there is no record;
/// - [`TrainError::Config`] if the options contradict each other, or the labels that are given are
///   not those of the task.
///
/// # Examples
/// ```
/// use lora_train::data::{Content, Label, LabelledLayout, LabelledSource, read_labelled};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("train.csv");
/// std::fs::write(&path, "text,label\nwell done,good\n\"no, never\",bad\n")?;
///
/// let layout = LabelledLayout::default();
/// let data = read_labelled(&path, &LabelledSource::new(&layout))?;
/// assert_eq!(data.labels.unwrap().names(), ["bad", "good"]);
/// assert_eq!(data.records[1].content, Content::Text { text: "no, never".into() });
/// assert_eq!(data.records[1].label, Some(Label::Class(0)));
///
/// let path = folder.path().join("train.conll");
/// std::fs::write(&path, "Ada B-PER\nwrote O\n\nIn O\nParis B-LOC\n")?;
/// let layout = LabelledLayout::Words(Default::default());
/// let data = read_labelled(&path, &LabelledSource::new(&layout))?;
/// assert_eq!(data.labels.unwrap().names(), ["B-LOC", "B-PER", "O"]);
/// assert_eq!(data.records[1].content.words(), ["In", "Paris"]);
/// assert_eq!(data.records[1].label, Some(Label::Tags(vec![2, 0])));
/// # Ok(())
/// # }
/// ```
pub fn read_labelled(path: &Path, source: &LabelledSource) -> Result<LabelledData, TrainError> {
    let (data, _) = read_labelled_files(&[path.to_path_buf()], source)?;
    Ok(data)
}

/// Reads every record of several files, one file after the other, as [`read_labelled`] reads one: the classes are those of all files
/// together. Returns the report of each file, too.
///
/// # Errors
/// As [`read_labelled`]; [`TrainError::DataFormat`] if the files have their labels in other columns.
pub(crate) fn read_labelled_files(
    paths: &[PathBuf],
    source: &LabelledSource,
) -> Result<(LabelledData, Vec<ReadReport>), TrainError> {
    let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
    match source.layout {
        LabelledLayout::Words(columns) => {
            columns.validate_words()?;
            let (adapter, unlabelled) = (source.adapter, source.unlabelled);
            let classes = Classes::new(source.labels);
            words::read(paths, source.format, columns, adapter, classes, unlabelled)
        }
        LabelledLayout::Own { columns, kind } => {
            columns.validate_labelled()?;
            let known = source.labels;
            let labels = |names: Vec<String>| match kind {
                LabelKind::Classes => LabelReader::Classes(Classes::new(known)),
                LabelKind::MultiLabel => LabelReader::Sets(Sets::new(known, names)),
                LabelKind::Score => LabelReader::Scores(Scores::new(known, names)),
            };
            let read = read_texts(paths, source, labels, &|_| None, |table| {
                columns.row_layout(table, *kind, known, source.unlabelled)
            })?;
            let is_pair = |record: &Record| matches!(record.content, Content::Pair { .. });
            match &columns.pair {
                Some(pair) if !read.0.records.iter().any(is_pair) => {
                    let message = format!("no record has the second text of a pair in `{pair}`");
                    Err(TrainError::data_format(path, message))
                }
                _ => Ok(read),
            }
        }
        LabelledLayout::Glue(task) => {
            let mapping = source.labels.map(|model| task.class_mapping(model));
            let mapping = mapping.transpose()?;
            let own = task.labels();
            let labels = |_| match &own {
                Some(labels) => LabelReader::Classes(Classes::new(Some(labels))),
                None => LabelReader::Stsb,
            };
            let headerless = |row: &[String]| task.headerless(row);
            let (mut data, reports) = read_texts(paths, source, labels, &headerless, |table| {
                task.row_layout(table, source.unlabelled)
            })?;
            if let Some(mapping) = mapping {
                map_classes(&mut data.records, &mapping);
                data.labels = source.labels.cloned();
            }
            Ok((data, reports))
        }
    }
}

/// Reads texts or pairs from tables.
fn read_texts<'a>(
    paths: &[PathBuf],
    source: &LabelledSource<'a>,
    new_labels: impl FnOnce(Vec<String>) -> LabelReader<'a>,
    headerless: Headerless,
    row_layout: impl Fn(&mut Table) -> Result<RowLayout<'a>, TrainError>,
) -> Result<(LabelledData, Vec<ReadReport>), TrainError> {
    // The first file tells the columns of several labels.
    let mut new_labels = Some(new_labels);
    let mut labels: Option<(LabelReader, Vec<String>)> = None;
    let mut records = Vec::new();
    let mut reports = Vec::with_capacity(paths.len());
    for path in paths {
        let format = source.format.resolve_table(path)?;
        let Some(mut table) = Table::open(path, format, headerless)? else {
            return Err(TrainError::data_empty(path, "it has no record"));
        };
        let layout = row_layout(&mut table)?;
        let names = layout.labels.iter().map(|(name, _)| name.to_string());
        let names: Vec<String> = names.collect();
        if let Some(new) = new_labels.take() {
            labels = Some((new(names.clone()), names.clone()));
        }
        let Some((labels, columns)) = &mut labels else {
            continue;
        };
        if *columns != names {
            let message = format!(
                "its labels are in the columns {}, and those of {} in {}; give files with the same columns",
                listed(&names),
                paths[0].display(),
                listed(columns)
            );
            return Err(TrainError::data_format(path, message));
        }
        let adapter = table.optional(source.adapter)?;
        let mut report = ReadReport::default();
        let before = records.len();
        while let Some(mut row) = table.next_row()? {
            let origin = row.origin.clone();
            let refuse = |message: String| origin.error(message);
            let adapter = row.take_name(adapter).map_err(refuse)?;
            let record = record(row, &layout, labels, &mut report, source.unlabelled);
            let record = record.map_err(refuse)?;
            records.extend(record.map(|record| record.with_adapter(adapter)));
        }
        report.records = records.len() - before;
        report.malformed += table.skipped();
        if report.records == 0 {
            let message = format!("of {} rows, no record is left", report.rows());
            return Err(TrainError::data_empty(path, message));
        }
        reports.push(report);
    }
    let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let mut outputs = Vec::new();
    let labels = match labels.map(|(labels, _)| labels) {
        Some(LabelReader::Classes(classes)) => {
            let (labels, mapping) = classes.finish(path)?;
            if let Some(mapping) = mapping {
                map_classes(&mut records, &mapping);
            }
            labels
        }
        Some(LabelReader::Sets(sets)) => sets.finish(path, &mut records)?,
        Some(LabelReader::Scores(scores)) => {
            outputs = scores.finish(path, &mut records)?;
            None
        }
        Some(LabelReader::Stsb) | None => None,
    };
    let data = LabelledData {
        records,
        labels,
        outputs,
        report: ReadReport::of_all(&reports),
    };
    Ok((data, reports))
}

/// Reads the record of a row; `None` if the row is left out.
fn record(
    mut row: Row,
    layout: &RowLayout,
    labels: &mut LabelReader,
    report: &mut ReadReport,
    unlabelled: Unlabelled,
) -> Result<Option<Record>, String> {
    let value = layout.label.and_then(|column| row.take(column));
    let label = match labels {
        LabelReader::Sets(sets) => {
            let origin = row.origin.clone();
            sets.label(values(&mut row, layout, value), &origin)?
        }
        LabelReader::Scores(scores) => scores.label(values(&mut row, layout, value))?,
        _ => {
            let raw = raw_label(value)?;
            if raw.is_some() && raw.as_deref() == layout.undecided {
                report.undecided += 1;
                return Ok(None);
            }
            if raw.is_none() && layout.skip_without_label {
                report.malformed += 1;
                return Ok(None);
            }
            let label = raw.map(|raw| labels.label(&raw, &row.origin));
            label.transpose()?.flatten()
        }
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

    let first = row.take_text(layout.first)?;
    let second = match layout.second {
        Some(second) if layout.needs_second => Some(row.take_text(second)?),
        second => row.take_optional_text(second)?,
    };
    report.blank += usize::from(is_blank(&first) || second.as_deref().is_some_and(is_blank));
    Ok(Some(Record {
        label,
        id: id(layout.id.and_then(|column| row.take(column)))?,
        ..Record::new(Content::from_texts(first, second), row.origin)
    }))
}

/// Returns the values of several labels: a list, or one of each column.
fn values(row: &mut Row, layout: &RowLayout, list: Option<Value>) -> Vec<Option<Value>> {
    if layout.labels.is_empty() {
        return vec![list];
    }
    let columns = layout.labels.iter();
    columns.map(|(_, column)| row.take(*column)).collect()
}

/// Returns the name of a record: a string or a number.
fn id(value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok((!is_blank(&id)).then_some(id)),
        Some(Value::Number(id)) => Ok(Some(id.to_string())),
        Some(other) => {
            let kind = jsonl::kind(&other);
            Err(format!("the id is {kind}, expected a string or a number"))
        }
    }
}

impl LabelReader<'_> {
    /// Returns the meaning of a label in the file; `None` if it stands for no label. A class is final after
    /// [`Classes::finish`].
    fn label(&mut self, raw: &str, origin: &Origin) -> Result<Option<Label>, String> {
        match self {
            Self::Classes(classes) if raw == "-1" && classes.minus_one_is_none() => Ok(None),
            Self::Classes(classes) => Ok(Some(Label::Class(classes.class(raw, origin)?))),
            // Several labels have a reader of their own.
            Self::Sets(_) | Self::Scores(_) => Ok(None),
            Self::Stsb => match score(raw)? {
                -1.0 => Ok(None),
                score if (0.0..=5.0).contains(&score) => Ok(Some(Label::Score(score))),
                _ => Err(format!("the score {raw} is out of range; STS-B has 0 to 5")),
            },
        }
    }
}
