//! Prediction for texts, and the files that GLUE's server scores.

use super::data::{encode, label_set, read_for, shortest};
use super::evaluator::{Evaluator, Rows, best, probabilities};
use super::heads::{labels_in_use, load_options, open, outline};
use super::thresholds::{Thresholds, sigmoid};
use crate::TrainError;
use crate::data::{
    ClassWeights, Content, DataDigest, Example, Lines, Origin, Predictions, Record, Unlabelled,
    glue_submission, write_glue_submission,
};
use crate::device::{self, DeviceName};
use crate::jobs::adapters::AdapterOptions;
use crate::jobs::batches::{EvalBatches, pad_multiple};
use crate::jobs::evaluation::agree_on;
use crate::jobs::inputs::Inputs;
use crate::jobs::results::{OutputOptions, ResultFile};
use crate::jobs::run_key::RunKey;
use crate::jobs::sources::Sources;
use crate::options::{Precision, ReadingOptions};
use crate::progress::Screen;
use crate::task::TaskName;
use crate::trainer::ranks::{Alone, Ranks};
use clap::Args;
use lora_core::files::{Overwrite, check_dir};
use lora_core::ops::with_mixed_precision;
use lora_core::{BaseDType, Quantization};
use lora_models::encoder::Labels;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Options of `lora predict`.
#[derive(Args, Clone, Debug, Default)]
pub struct PredictOptions {
    /// Directory of the model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Adapters on it.
    #[command(flatten)]
    pub adapters: AdapterOptions,
    /// Named adapter for texts that name none [default: the model alone].
    #[arg(long = "use", value_name = "NAME")]
    pub use_adapter: Option<String>,
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: not quantized].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// Float type of the frozen weights in memory: f32, f16, bf16, or auto for that of the checkpoint, or int8 for embeddings and output layers alone; everything is computed in f32 [default: f32].
    #[arg(long, value_name = "TYPE")]
    pub base_dtype: Option<BaseDType>,
    /// Precision of products with frozen weights: f32, or mixed on GPUs [default: f32].
    #[arg(long, value_name = "PRECISION")]
    pub precision: Option<Precision>,
    /// Task: classification, multi-label-classification, regression, token-classification, or glue/NAME [default: from the model and adapter].
    #[arg(long, value_name = "TASK")]
    pub task: Option<TaskName>,
    /// Text to classify; may be given several times. A tab separates the texts of a pair.
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// File with a text on each line, or `-` for standard input [default: standard input, unless --text or --data is given].
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub texts: Option<PathBuf>,
    /// Data file instead of texts: JSON Lines, CSV or TSV with columns, or a file of GLUE; labels are not needed.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Directory for the file that GLUE's server scores, with a task of GLUE and --data.
    #[arg(long, value_name = "DIR", requires = "data", conflicts_with = "output")]
    pub submission: Option<PathBuf>,
    /// File of the results; `overwrite` counts for the submission too.
    #[command(flatten)]
    pub output: OutputOptions,
    /// Print one JSON object per text: `prediction`, and `scores` by label.
    #[arg(long)]
    pub json: bool,
    /// Number of texts in a forward pass.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Pad batches to a multiple of N tokens, at most the maximum length [default: 64 on GPUs, 16 on software adapters, 1 on CPUs].
    #[arg(long, value_name = "N")]
    pub pad_to_multiple_of: Option<usize>,
    /// Maximum length of a text in tokens [default: 512, at most the model's].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Names of the classes, in the order of the head's outputs, for a head without names of its own [default: the model's or the adapter's].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub labels: Option<Vec<String>>,
    /// For multi-label-classification: probability above which a class is predicted, one number or one per class [default: 0.5].
    #[arg(long, value_name = "P,P", value_delimiter = ',')]
    pub threshold: Option<Vec<f64>>,
    /// Options for reading the data.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
}

/// Prediction for a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Predicted {
    /// A class.
    Class {
        /// Name of the class.
        prediction: String,
        /// Probability of each class, by name, in the order of the classes.
        scores: Vec<(String, f64)>,
    },
    /// Any number of classes.
    Set {
        /// Names of the classes whose probability is above their threshold.
        prediction: Vec<String>,
        /// Probability of each class, by name, in the order of the classes.
        scores: Vec<(String, f64)>,
    },
    /// A number.
    Score {
        /// Predicted number.
        prediction: f32,
    },
    /// Several numbers.
    Scores {
        /// Predicted numbers, in the order of the outputs.
        prediction: Vec<f32>,
        /// Predicted numbers by name.
        scores: Vec<(String, f32)>,
    },
    /// A class for each word.
    Tags {
        /// Words.
        words: Vec<String>,
        /// Name of each word's class; `None` for a word that the model did not read, because it was cut
        /// off or has no token.
        prediction: Vec<Option<String>>,
    },
}

/// Predicts for each text, and hands each prediction to `result` in the order of the texts, as soon as it is there: those of
/// `--output` are written to the file instead, and with `--submission` there is one file of all, whose path is returned.
///
/// # Errors
/// If a file is malformed, there is no text to classify, or the submission exists; those of `result`.
pub fn predict(
    options: &PredictOptions,
    screen: &Screen,
    result: &mut dyn FnMut(Predicted) -> Result<(), TrainError>,
) -> Result<Option<PathBuf>, TrainError> {
    predict_with(&Alone, options, screen, result)
}

/// Predicts for each text together with other ranks, which share the batches. The first rank alone gets the predictions, once all are
/// there, and writes the files.
///
/// # Errors
/// As [`predict`], and [`TrainError::Rank`] if another rank differs or has ended.
pub fn predict_with(
    ranks: &dyn Ranks,
    options: &PredictOptions,
    screen: &Screen,
    result: &mut dyn FnMut(Predicted) -> Result<(), TrainError>,
) -> Result<Option<PathBuf>, TrainError> {
    let quiet = &Screen::quiet();
    let screen = if ranks.is_first() { screen } else { quiet };
    let default = options.use_adapter.as_deref();
    let selection = options.adapters.selection_with(default)?;
    let data = [options.texts.as_ref(), options.data.as_ref()];
    let inputs = Inputs::new(&options.model, &options.adapters, data);
    if ranks.is_first() {
        options.output.check(&inputs)?;
    }
    let sources = &Sources::open_for(&options.model, &selection, options.task)?;
    let task = match options.task {
        Some(task) => task,
        None => sources.task()?,
    };
    if task == TaskName::CausalLm {
        let message = "is causal-lm; to continue texts with a language model, use `lora generate`";
        return Err(TrainError::config("task", message));
    }
    options.check(task)?;
    if let (Some(folder), TaskName::Glue(glue)) = (&options.submission, task)
        && ranks.is_first()
    {
        let path = folder.join(glue.submission_file());
        inputs.refuse_file("submission", &path)?;
        if path.exists() && !options.output.overwrite {
            return Err(TrainError::OutputExists { path });
        }
        check_dir(folder, Overwrite::Replace)?;
    }
    let head = labels_in_use(sources, task, options.labels.as_deref())?;
    let thresholds = Thresholds::new(options.threshold.as_deref(), &head)?;
    let records = records(options, task, &head)?;
    if let (Some(_), TaskName::Glue(glue)) = (&options.submission, task) {
        // The ids of the records and the classes of the head are checked by predictions of nothing.
        let nothing = vec![0.0; head.outputs()];
        let rows = vec![nothing.as_slice(); records.len()];
        submission(&records, rows, &head, |ids, predictions| {
            glue_submission(glue, ids, predictions)
        })?;
    }
    let device = device::open(options.device)?;
    let narrow = (options.quantize, options.base_dtype);
    let mixed = options.precision.unwrap_or_default().half_on(&device)?;
    let load = load_options(sources, task, head.clone(), narrow, mixed)?;
    let adapters = &options.adapters;
    let mut base = outline(sources, &load, &device)?;
    base.pad_to_multiple_of = pad_multiple(options.pad_to_multiple_of, &device)?;
    let length = base.max_length(options.max_length, shortest(&records))?;
    let weights = ClassWeights::default();
    let (reading, tokenizer) = (&options.reading, &base.tokenizer);
    let (examples, _) = encode(&records, task, reading, tokenizer, length, &weights)?;
    if let (Some(path), None) = (&options.data, default) {
        adapters.check_named(path, &records)?;
    }
    let loaded = open(sources, &load, &device)?;
    sources.check_base(loaded.adapter.as_ref(), adapters.strict_base, screen)?;
    let model = adapters.assign(loaded.model, sources, &examples, default, screen)?;
    let size = ("batch_size", options.batch_size);
    let batches = EvalBatches::in_windows(examples, size, &base, length)?;
    let mut evaluator = Evaluator::new(task, (head.clone(), thresholds.clone()), batches);
    let examples = evaluator.examples();
    agree_on(ranks, &loaded.base.weight_files, examples, head.names())?;
    let key = || {
        let adapters: Vec<_> = records.iter().map(|record| &record.adapter).collect();
        let key = RunKey::new(sources)?
            .with("device", &device::describe(&device))
            .with("quantize", &options.quantize)
            .with("base_dtype", &options.base_dtype.unwrap_or_default())
            .with("precision", &mixed)
            .with("batch_size", &(options.batch_size, base.pad_to_multiple_of));
        Ok(key
            .with("adapters", &(&options.use_adapter, adapters))
            .with("task", &(task, &head, &thresholds))
            .with("max_length", &length)
            .with("data", &DataDigest::new(evaluator.examples(), head.names())))
    };
    let results: Vec<Value> = records.iter().map(input).collect();
    let (mut file, done) = ResultFile::open_at(ranks, &options.output, "input", &results, key)?;
    evaluator.leave_out(done);
    let predicted = |index: usize, rows: &Rows| match (&records[index].content, &head) {
        (Content::Words { words }, head) => Predicted::Tags {
            words: words.clone(),
            prediction: tags(words.len(), &evaluator.examples()[index], rows, head),
        },
        (_, Labels::Classes(names)) => Predicted::Class {
            prediction: names[best(&rows[0])].clone(),
            scores: named_values(names, probabilities(&rows[0]).into_iter()),
        },
        (_, Labels::MultiLabel(names)) => Predicted::Set {
            prediction: named(names, &thresholds.predicted(&rows[0])),
            scores: named_values(names, rows[0].iter().map(|&logit| sigmoid(logit))),
        },
        (_, Labels::Score) => Predicted::Score {
            prediction: rows[0][0],
        },
        (_, Labels::Scores(names)) => Predicted::Scores {
            prediction: rows[0].clone(),
            scores: named_values(names, rows[0].iter().copied()),
        },
    };
    let mut each = |index: usize, rows: &Rows| match &mut file {
        _ if options.submission.is_some() => Ok(()),
        None => result(predicted(index, rows)),
        Some(file) => file.add(index, predicted(index, rows).object()),
    };
    let outputs = with_mixed_precision(mixed, || {
        if ranks.is_alone() {
            return evaluator.run(model, ranks, screen, &mut each);
        }
        let outputs = evaluator.run(model, ranks, screen, &mut |_, _| Ok(()))?;
        let mut of_all = (done..).zip(&outputs[done..]);
        if ranks.is_first() {
            of_all.try_for_each(|(index, rows)| each(index, rows))?;
        }
        Ok(outputs)
    })?;
    if !ranks.is_first() {
        return Ok(None);
    }
    if let Some(file) = &file {
        let (done, path) = (file.done(), file.path().display());
        screen.line(&format!("{path}: {done} predictions"));
    }
    let (Some(folder), TaskName::Glue(glue)) = (&options.submission, task) else {
        return Ok(None);
    };
    let rows = outputs.iter().map(|rows| rows[0].as_slice()).collect();
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    submission(&records, rows, &head, |ids, predictions| {
        let overwrite = options.output.overwrite.into();
        write_glue_submission(folder, overwrite, glue, ids, predictions)
    })
    .map(Some)
}

impl Predicted {
    /// Returns the object of a line of JSON Lines: `prediction`, and `scores` by name or `words`.
    pub fn object(&self) -> Map<String, Value> {
        let entries = match self {
            Self::Class { prediction, scores } => {
                vec![
                    ("prediction", json!(prediction)),
                    ("scores", by_name(scores)),
                ]
            }
            Self::Set { prediction, scores } => {
                vec![
                    ("prediction", json!(prediction)),
                    ("scores", by_name(scores)),
                ]
            }
            Self::Scores { prediction, scores } => {
                vec![
                    ("prediction", json!(prediction)),
                    ("scores", by_name(scores)),
                ]
            }
            Self::Score { prediction } => vec![("prediction", json!(prediction))],
            Self::Tags { words, prediction } => {
                vec![("words", json!(words)), ("prediction", json!(prediction))]
            }
        };
        let entries = entries.into_iter();
        entries.map(|(key, value)| (key.into(), value)).collect()
    }
}

fn by_name<T: Serialize>(scores: &[(String, T)]) -> Value {
    let mut object = Map::new();
    for (index, (name, score)) in scores.iter().enumerate() {
        // An object has one entry of a name.
        let name = if object.contains_key(name) {
            format!("{name} ({index})")
        } else {
            name.clone()
        };
        object.insert(name, json!(score));
    }
    Value::Object(object)
}

/// Returns what a record gives to the model: a text, a pair of texts, or words.
fn input(record: &Record) -> Value {
    match record.content.texts() {
        Some((first, None)) => json!(first),
        Some((first, Some(second))) => json!([first, second]),
        None => json!(record.content.words()),
    }
}

/// Returns the names of classes.
fn named(names: &[String], classes: &[usize]) -> Vec<String> {
    classes.iter().map(|&class| names[class].clone()).collect()
}

/// Returns values with the names of their outputs.
fn named_values<T>(names: &[String], values: impl Iterator<Item = T>) -> Vec<(String, T)> {
    names.iter().cloned().zip(values).collect()
}

/// Calls `work` with the records' names, if all have one, and the predictions as GLUE's server expects them.
fn submission<T>(
    records: &[Record],
    rows: Vec<&[f32]>,
    head: &Labels,
    work: impl FnOnce(Option<&[&str]>, Predictions) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let ids: Option<Vec<&str>> = records.iter().map(|record| record.id.as_deref()).collect();
    let classes: Vec<usize> = rows.iter().map(|row| best(row)).collect();
    let scores: Vec<f64> = rows.iter().map(|row| f64::from(row[0])).collect();
    match &label_set(head)? {
        Some(set) => work(ids.as_deref(), Predictions::Classes(&classes, set)),
        None => work(ids.as_deref(), Predictions::Scores(&scores)),
    }
}

/// Reads the records: those of the data file, or a record for each text.
fn records(
    options: &PredictOptions,
    task: TaskName,
    head: &Labels,
) -> Result<Vec<Record>, TrainError> {
    if let Some(path) = &options.data {
        let (reading, column) = (&options.reading, options.adapters.column());
        let accept = Unlabelled::Accept;
        return Ok(read_for(head, path, task, reading, column, accept)?.records);
    }
    let mut lines: Vec<(String, Origin)> = Vec::new();
    for (index, text) in options.text.iter().enumerate() {
        lines.push((text.clone(), Origin::new(Path::new("--text"), index + 1)));
    }
    let standard_input = lines.is_empty().then_some(Path::new("-"));
    if let Some(path) = options.texts.as_deref().or(standard_input) {
        let mut input = Lines::open_input(path)?;
        while let Some(line) = input.next_text()? {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        let message = "is missing: give --text, --texts or --data, or lines on standard input";
        return Err(TrainError::config("text", message));
    }
    let content = |text: String| match (task, text.split_once('\t')) {
        (TaskName::TokenClassification, _) => Content::Words {
            words: text.split_whitespace().map(String::from).collect(),
        },
        (_, Some((first, second))) => Content::from_texts(first.into(), Some(second.into())),
        (_, None) => Content::from_texts(text, None),
    };
    let records = lines
        .into_iter()
        .map(|(text, origin)| Record::new(content(text), origin));
    Ok(records.collect())
}

/// Names the class of each word; `None` for a word that the model did not read, because it was cut off or has no token.
fn tags(words: usize, example: &Example, rows: &Rows, head: &Labels) -> Vec<Option<String>> {
    let mut tags = vec![None; words];
    for (row, (_, word)) in rows.iter().zip(example.words()) {
        let class = best(row);
        let name = head.name(class);
        tags[word] = Some(name.map_or_else(|| class.to_string(), String::from));
    }
    tags
}
