//! Classifying lines, and the files that GLUE's server scores.

use super::data::{Reader, label_set};
use super::evaluator::{Evaluator, Rows, best, probabilities};
use super::head_kind;
use super::heads::{labels_in_use, open};
use crate::TrainError;
use crate::data::{
    ClassWeights, LabelSet, LabelledExample, LabelledRecord, Lines, Origin, Predictions, Target,
    TokenRecord, Unlabelled, is_blank, write_glue_submission,
};
use crate::device::{self, DeviceName};
use crate::jobs::adapters::{AdapterOptions, Uses, Wanted};
use crate::jobs::labelled::data::Records;
use crate::jobs::open::{model_directory, quantize_config};
use crate::jobs::plan::default_task;
use crate::options::ReadingOptions;
use crate::progress::Screen;
use crate::task::{Classify, TaskName};
use clap::Args;
use lora_core::Quantization;
use lora_core::files::Overwrite;
use lora_models::classifier::{Classifier, ClassifierOptions};
use serde::Serialize;
use std::collections::BTreeMap;
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
    /// With named adapters: the one for texts that name none [default: the model alone].
    #[arg(long = "use", value_name = "NAME")]
    pub use_adapter: Option<String>,
    /// Keep the frozen weights of the model in 4 or 8 bits: nf4 or int8 [default: in floats].
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantization>,
    /// What the model does: classification, regression, token-classification, or glue/NAME [default: by the model and adapter].
    #[arg(long, value_name = "TASK")]
    pub task: Option<TaskName>,
    /// Text to classify; may be given several times. A tab separates the texts of a pair.
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// File with a text on each line, or `-` for standard input [default: standard input, unless --text or --data is given].
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub texts: Option<PathBuf>,
    /// Data file instead: JSON Lines, CSV or TSV with columns, or a file of GLUE; labels are not needed.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// With a task of GLUE and --data: directory that receives the file that GLUE's server scores.
    #[arg(long, value_name = "DIR", requires = "data")]
    pub submission: Option<PathBuf>,
    /// Replace the submission if it is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Print one JSON object a text: `prediction`, and `scores` by label.
    #[arg(long)]
    pub json: bool,
    /// Texts in a forward pass.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Longest text in tokens [default: 512, at most the model's].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// How to read the data.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
}

/// What a model says of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Predicted {
    /// A class.
    Class {
        /// Its name.
        prediction: String,
        /// The probability of each class, by name, in the order of the classes.
        scores: Vec<(String, f64)>,
    },
    /// A number.
    Score {
        /// The number.
        prediction: f32,
    },
    /// A class for each word.
    Tags {
        /// The words.
        words: Vec<String>,
        /// The name of each word's class; `None` for a word that the model did not read, because it was cut
        /// off or has no token.
        prediction: Vec<Option<String>>,
    },
}

/// Predicts. With a submission, the path of the file that was written comes too.
///
/// # Errors
/// On bad files, nothing to classify, or a submission that is there already.
pub fn predict(
    options: &PredictOptions,
    screen: &Screen,
) -> Result<(Vec<Predicted>, Option<PathBuf>), TrainError> {
    let model = model_directory(&options.model)?;
    let wanted = options
        .adapters
        .wanted_with(options.use_adapter.as_deref())?;
    let task = match options.task {
        Some(task) => task,
        None => default_task(&model, wanted.first())?,
    };
    if task == TaskName::CausalLm {
        return Err(TrainError::config(
            "task",
            "is causal-lm: a language model goes on with texts, see `lora generate`",
        ));
    }
    options.reading.check(task)?;
    let labels = labels_in_use(&model, &wanted, task)?;
    let set = label_set(&labels)?;
    let records = records(options, task, set.as_ref())?;
    let device = device::open(options.device)?;
    let how = ClassifierOptions {
        head: head_kind(task),
        labels: Some(labels),
        quantize: quantize_config(options.quantize, &wanted.dirs(), &[])?,
        ..ClassifierOptions::default()
    };
    let loaded = open(&model, &wanted, &how, &device)?;
    options
        .adapters
        .check_base(wanted.one(), loaded.adapter.as_ref(), screen)?;
    let base = loaded.base;
    let length = base.max_length(options.max_length, records.least())?;
    let weights = ClassWeights::default();
    let (examples, _) = records.encode(&base.tokenizer, length, &weights)?;
    let evaluator = Evaluator::new(
        task,
        set.clone(),
        examples,
        options.batch_size,
        base.pad_id(),
    )?;
    let (model, uses) = match &wanted {
        Wanted::Named(adapters) => {
            let uses = uses(options, loaded.model, adapters, &evaluator, screen)?;
            (uses.model().clone(), Some(uses))
        }
        _ => (loaded.model, None),
    };
    let task_model = Classify::new(model, 0.0, weights);
    let mut bar = screen.bar("predict", evaluator.len());
    let outputs = evaluator.outputs(&task_model, uses.as_ref(), &mut |done| bar.set(done))?;
    bar.finish();

    let mut submission = None;
    if let Some(folder) = &options.submission {
        let rows = outputs.iter().map(|rows| rows[0].as_slice()).collect();
        submission = Some(submit(options, task, folder, &records, rows, set.as_ref())?);
    }
    let predicted = match (&records, &set) {
        (Records::Texts(_), Some(set)) => {
            let rows = outputs.iter().map(|rows| class(&rows[0], set));
            rows.collect()
        }
        (Records::Texts(_), None) => {
            let rows = outputs.iter().map(|rows| Predicted::Score {
                prediction: rows[0][0],
            });
            rows.collect()
        }
        (Records::Words(records), set) => {
            let pairs = records.iter().zip(evaluator.examples());
            let rows = pairs.zip(&outputs);
            rows.map(|((record, example), rows)| {
                let mut prediction = tags(example, rows, set.as_ref());
                prediction.resize(record.words.len(), None);
                Predicted::Tags {
                    words: record.words.clone(),
                    prediction,
                }
            })
            .collect()
        }
    };
    Ok((predicted, submission))
}

/// The adapters by the names in the data, where it has columns, else the one that is to be used.
fn uses(
    options: &PredictOptions,
    model: Classifier,
    adapters: &[(&str, &Path)],
    evaluator: &Evaluator,
    screen: &Screen,
) -> Result<Uses<Classifier>, TrainError> {
    let mut by_line = match &options.data {
        Some(path) => {
            let format = options.reading.format.unwrap_or_default();
            let needed = options.use_adapter.is_none();
            options.adapters.names_in(path, format, needed)?
        }
        None => BTreeMap::new(),
    };
    let origins = || evaluator.examples().iter().map(|example| &example.origin);
    if let Some(name) = &options.use_adapter {
        for origin in origins() {
            by_line.entry(origin.line()).or_insert_with(|| name.clone());
        }
    }
    Uses::new(
        options.adapters.put(model, adapters, screen)?,
        &by_line,
        origins(),
    )
}

fn class(row: &[f32], set: &LabelSet) -> Predicted {
    let name = |class: usize| set.name(class).unwrap_or_default().to_string();
    let scores = probabilities(row).into_iter().enumerate();
    Predicted::Class {
        prediction: name(best(row)),
        scores: scores.map(|(class, p)| (name(class), p)).collect(),
    }
}

fn submit(
    options: &PredictOptions,
    task: TaskName,
    folder: &Path,
    records: &Records,
    rows: Vec<&[f32]>,
    set: Option<&LabelSet>,
) -> Result<PathBuf, TrainError> {
    let TaskName::Glue(glue) = task else {
        return Err(TrainError::config(
            "submission",
            format!("is for the tasks of GLUE, and the task is {task}"),
        ));
    };
    std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
    let overwrite = match options.overwrite {
        true => Overwrite::Replace,
        false => Overwrite::Refuse,
    };
    let ids = records.ids();
    match set {
        Some(set) => {
            let classes: Vec<usize> = rows.into_iter().map(best).collect();
            let predictions = Predictions::Classes(&classes, set);
            write_glue_submission(folder, overwrite, glue, ids.as_deref(), predictions)
        }
        None => {
            let scores: Vec<f64> = rows.into_iter().map(|row| f64::from(row[0])).collect();
            let predictions = Predictions::Scores(&scores);
            write_glue_submission(folder, overwrite, glue, ids.as_deref(), predictions)
        }
    }
}

/// What is to be classified: the data file, or lines.
fn records(
    options: &PredictOptions,
    task: TaskName,
    set: Option<&LabelSet>,
) -> Result<Records, TrainError> {
    if let Some(path) = &options.data {
        let reader = Reader::new(task, &options.reading);
        let records = reader.read(path, set, Unlabelled::Accept)?.records;
        return Ok(match records {
            Records::Words(records) => Records::Words(records.into_iter().map(numbered).collect()),
            texts => texts,
        });
    }
    let mut lines: Vec<(String, Origin)> = Vec::new();
    for (index, text) in options.text.iter().enumerate() {
        lines.push((text.clone(), Origin::new(Path::new("--text"), index + 1)));
    }
    match (&options.texts, options.text.is_empty()) {
        (Some(path), _) if path.as_os_str() != "-" => add_lines(Lines::open(path)?, &mut lines)?,
        (Some(_), _) | (None, true) => {
            let input = Lines::of(std::io::stdin().lock(), Path::new("standard input"));
            add_lines(input, &mut lines)?;
        }
        (None, false) => {}
    }
    if lines.is_empty() {
        return Err(TrainError::config(
            "text",
            "is missing: give --text, --texts or --data, or lines on standard input",
        ));
    }
    Ok(match task {
        TaskName::TokenClassification => Records::Words(
            lines
                .into_iter()
                .map(|(text, origin)| {
                    let words: Vec<String> = text.split_whitespace().map(String::from).collect();
                    numbered(TokenRecord {
                        words,
                        labels: None,
                        origin,
                    })
                })
                .collect(),
        ),
        _ => Records::Texts(
            lines
                .into_iter()
                .map(|(text, origin)| {
                    let (first, second) = match text.split_once('\t') {
                        Some((first, second)) => (first.to_string(), Some(second.to_string())),
                        None => (text, None),
                    };
                    LabelledRecord {
                        first,
                        second,
                        label: None,
                        id: None,
                        origin,
                    }
                })
                .collect(),
        ),
    })
}

/// With each word's place for its label: so the outputs tell which words they are of.
fn numbered(record: TokenRecord) -> TokenRecord {
    TokenRecord {
        labels: Some((0..record.words.len()).collect()),
        ..record
    }
}

/// The tag of each word; `None` for one that the model did not read, cut off or without a token.
fn tags(example: &LabelledExample, rows: &Rows, set: Option<&LabelSet>) -> Vec<Option<String>> {
    let Target::Tags(places) = &example.target else {
        return Vec::new();
    };
    let mut tags = Vec::new();
    for (row, &place) in rows.iter().zip(places.iter().flatten()) {
        let class = best(row);
        let name = set.and_then(|set| set.name(class));
        tags.resize(place, None);
        tags.push(Some(name.map_or_else(|| class.to_string(), String::from)));
    }
    tags
}

/// Adds the lines that are not blank.
fn add_lines(mut from: Lines, lines: &mut Vec<(String, Origin)>) -> Result<(), TrainError> {
    while let Some((line, origin)) = from.next_line()? {
        if !is_blank(line) {
            lines.push((line.to_string(), origin));
        }
    }
    Ok(())
}
