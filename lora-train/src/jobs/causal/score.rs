//! Scores of the texts of a file, without a model.

use super::data::source_options;
use crate::TrainError;
use crate::data::{Lines, Origin, ReferenceGroup, group_references, read_records};
use crate::options::ReadingOptions;
use crate::task::{GeneratedText, TextScores};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};

/// Options of `lora score`.
#[derive(Args, Clone, Debug)]
pub struct ScoreOptions {
    /// File of texts: JSON Lines with `text` and its `prompt`, as `lora generate --output` writes them, where texts of the same prompt have the order of the data; or plain text, with one text a line for each prompt of the data, in its order.
    #[arg(value_name = "TEXTS")]
    pub texts: PathBuf,
    /// Data with the references.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Options for reading the data.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Print the outcome as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Scores by name.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreReport {
    /// Number of texts.
    pub texts: usize,
    /// Number of their references.
    pub references: usize,
    /// Scores by name; see [`TextScores`].
    pub scores: BTreeMap<String, f64>,
}

impl fmt::Display for ScoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} texts, {} references", self.texts, self.references)?;
        let mut scores = self.scores.iter();
        scores.try_for_each(|(name, score)| write!(f, "\n{name:20} {score:.4}"))?;
        writeln!(f)
    }
}

/// Line of a file of texts.
#[derive(Deserialize)]
struct TextLine {
    prompt: String,
    text: String,
}

/// Scores the texts of a file by the references of the data, each prompt with all its references.
///
/// # Errors
/// If a file is malformed, or there is not one text for each prompt of the data.
pub fn score(options: &ScoreOptions) -> Result<ScoreReport, TrainError> {
    let mut source = source_options(&options.reading, None);
    source.format = source.format_of(&options.data)?;
    let scores = TextScores::of_data(&options.data, source.format)?;
    let groups = group_references(&read_records(&options.data, &source)?)?;
    let extension = options.texts.extension().and_then(|end| end.to_str());
    let texts = if matches!(extension, Some("jsonl" | "ndjson")) {
        by_prompt(&options.texts, &groups)?
    } else {
        by_line(&options.texts, &groups)?
    };
    let texts: Vec<_> = groups
        .into_iter()
        .zip(texts)
        .map(|(group, text)| GeneratedText {
            prompt: group.prompt,
            text: text.trim().to_string(),
            references: group.references,
            id: group.id,
        })
        .collect();
    Ok(ScoreReport {
        texts: texts.len(),
        references: texts.iter().map(|text| text.references.len()).sum(),
        scores: scores.score(&texts)?,
    })
}

/// Reads a text for each prompt from JSON Lines.
fn by_prompt(path: &Path, groups: &[ReferenceGroup]) -> Result<Vec<String>, TrainError> {
    // Several groups of one prompt differ in their ids; their texts stand in the order of the groups.
    let mut expected: HashMap<&str, usize> = HashMap::new();
    for group in groups {
        *expected.entry(&*group.prompt).or_insert(0) += 1;
    }
    let mut found: HashMap<String, VecDeque<(String, Origin)>> = HashMap::new();
    let mut lines = Lines::open(path)?;
    while let Some((line, origin)) = lines.next_text()? {
        let line: TextLine = serde_json::from_str(&line).map_err(|error| {
            origin.error(format!(
                "expected an object with `prompt` and `text`: {error}"
            ))
        })?;
        let Some(&count) = expected.get(line.prompt.as_str()) else {
            return Err(origin.error(
                "this prompt is not in the data; the options that read it (`template`) may differ",
            ));
        };
        let texts = found.entry(line.prompt).or_default();
        if texts.len() == count {
            let first = texts[0].1.line();
            let message = if count == 1 {
                format!("a second text for the prompt of line {first}")
            } else {
                format!("one more text for the prompt of line {first} than the {count} of the data")
            };
            return Err(origin.error(message));
        }
        texts.push_back((line.text, origin));
    }
    let text =
        |group: &ReferenceGroup| match found.get_mut(&group.prompt).and_then(VecDeque::pop_front) {
            Some((text, _)) => Ok(text),
            None => Err(group.origin.error(format!(
                "{} has no text for this prompt; expected one for each",
                path.display()
            ))),
        };
    groups.iter().map(text).collect()
}

/// Reads a text for each prompt from the lines of a file. An empty line is an empty text.
fn by_line(path: &Path, groups: &[ReferenceGroup]) -> Result<Vec<String>, TrainError> {
    let mut texts = Vec::with_capacity(groups.len());
    let mut lines = Lines::open(path)?;
    while let Some((line, origin)) = lines.next_line()? {
        if texts.len() == groups.len() {
            let message = format!(
                "the data has {} prompts, and this is one more text",
                groups.len()
            );
            return Err(origin.error(message));
        }
        texts.push(line.to_string());
    }
    if texts.len() < groups.len() {
        let message = format!(
            "{} texts for the {} prompts of the data; expected one line for each",
            texts.len(),
            groups.len()
        );
        return Err(TrainError::data_format(path, message));
    }
    Ok(texts)
}
