//! Files of a training run, read from its output directory.
//!
//! They may come from somebody else: sizes are bounded, and an unknown key or kind of line is passed over.

use crate::TrainError;
use crate::jobs::output::{METRICS, RECIPE};
use crate::progress::AFTER;
use lora_core::files::{open_regular, read_bounded};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Largest `metrics.jsonl` in bytes: millions of steps.
const METRICS_LIMIT: u64 = 1 << 30;
/// Largest line in bytes: texts and a confusion matrix.
const LINE_LIMIT: u64 = 64 << 20;
/// Largest recipe in bytes.
const RECIPE_LIMIT: u64 = 1 << 20;

/// Metrics by name; one that was not finite is `None`.
pub(super) type Scores = BTreeMap<String, Option<f64>>;

/// Training run.
#[derive(Clone, Debug, Default)]
pub(super) struct RunFiles {
    /// Output directory.
    pub dir: PathBuf,
    /// Options, as `recipe.toml` has them.
    pub recipe: toml::Table,
    /// Steps, in their order.
    pub steps: Vec<Step>,
    /// Evaluations, in their order.
    pub evaluations: Vec<Evaluation>,
    /// Measurements before the first step.
    pub before: Option<Before>,
    /// Measurements after the last step; `None` for a run that has not ended, and for those of earlier releases.
    pub after: Option<After>,
}

/// Step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    pub step: u64,
    pub epoch: Option<f64>,
    pub loss: Option<f64>,
    pub lr: Option<f64>,
    pub grad_norm: Option<f64>,
    pub tokens: Option<u64>,
    pub seconds: Option<f64>,
}

/// Evaluation among the steps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Evaluation {
    pub step: u64,
    pub eval: Scores,
    pub best: bool,
    pub eval_seconds: Option<f64>,
}

/// Measurements before the first step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Before {
    pub before: Scores,
    pub metric: Option<String>,
    pub texts: Vec<Text>,
}

/// Measurements after the last step.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct After {
    pub step: u64,
    pub after: Scores,
    pub metric: Option<String>,
    pub trainable: Option<u64>,
    pub parameters: Option<u64>,
    pub phases: BTreeMap<String, Option<f64>>,
    pub memory_mib: BTreeMap<String, Option<f64>>,
    pub device: Option<String>,
    pub on_host: bool,
    pub stopped: Option<String>,
    pub confusion: Option<Confusion>,
    pub texts: Vec<Text>,
}

/// Generated text.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Text {
    pub prompt: String,
    pub text: String,
    pub references: Vec<String>,
}

/// Number of examples by label (rows) and predicted class.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Confusion {
    pub names: Vec<String>,
    pub counts: Vec<Vec<u64>>,
}

impl RunFiles {
    /// Returns true if a directory holds a run.
    pub fn is_run(dir: &Path) -> bool {
        dir.join(METRICS).is_file()
    }

    /// Reads a run.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a directory without a run; [`TrainError::DataLine`] for a line that is no object, other than the
    /// unfinished last one of a killed run.
    pub fn read(dir: &Path) -> Result<Self, TrainError> {
        if !Self::is_run(dir) {
            let message = format!(
                "{} is no output of `lora train` or `lora sweep`: it has no {METRICS}",
                dir.display()
            );
            return Err(TrainError::config("output", message));
        }
        let mut run = Self {
            dir: dir.into(),
            recipe: recipe(&dir.join(RECIPE))?,
            ..Self::default()
        };
        let path = dir.join(METRICS);
        let (file, length) = open_regular(&path)?;
        if length > METRICS_LIMIT {
            let message = format!("it has {length} bytes; at most {METRICS_LIMIT} are read");
            return Err(TrainError::DataFormat { path, message });
        }
        let mut lines = BufReader::new(file);
        for line in 1.. {
            let mut bytes = Vec::new();
            let mut limited = std::io::Read::take(&mut lines, LINE_LIMIT);
            let read = limited.read_until(b'\n', &mut bytes);
            if read.map_err(TrainError::io(&path))? == 0 {
                break;
            }
            let is_complete = bytes.last() == Some(&b'\n');
            let refuse = |message: String| TrainError::DataLine {
                path: path.clone(),
                line,
                message,
            };
            if !is_complete && bytes.len() as u64 == LINE_LIMIT {
                return Err(refuse(format!("it has more than {LINE_LIMIT} bytes")));
            }
            match serde_json::from_slice(&bytes) {
                Ok(value) => run.add(value).map_err(|error| refuse(error.to_string()))?,
                Err(_) if !is_complete || bytes.trim_ascii().is_empty() => {}
                Err(error) => return Err(refuse(format!("expected a JSON object: {error}"))),
            }
        }
        Ok(run)
    }

    /// Adds a line. A value of another type than expected is an error.
    fn add(&mut self, line: Value) -> Result<(), serde_json::Error> {
        if line.get("loss").is_some() {
            self.steps.push(serde_json::from_value(line)?);
        } else if line.get("eval").is_some() {
            self.evaluations.push(serde_json::from_value(line)?);
        } else if line.get("before").is_some() {
            self.before = Some(serde_json::from_value(line)?);
        } else if line.get(AFTER).is_some() {
            self.after = Some(serde_json::from_value(line)?);
        }
        Ok(())
    }

    /// Returns the seconds of all evaluations among the steps.
    pub fn evaluation_seconds(&self) -> f64 {
        let evaluations = self.evaluations.iter();
        evaluations.filter_map(|e| e.eval_seconds).sum()
    }
}

/// Reads a recipe; a run of the library may have none.
fn recipe(path: &Path) -> Result<toml::Table, TrainError> {
    if !path.exists() {
        return Ok(toml::Table::new());
    }
    let bytes = read_bounded(path, RECIPE_LIMIT)?;
    let refuse = |message: String| TrainError::DataFormat {
        path: path.into(),
        message,
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| refuse(error.to_string()))?;
    text.parse()
        .map_err(|error: toml::de::Error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn run(metrics: &str) -> Result<RunFiles, TrainError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(METRICS), metrics).unwrap();
        RunFiles::read(dir.path())
    }

    #[test]
    fn lines_are_told_apart_by_their_keys() {
        let found = run(concat!(
            r#"{"step":0,"before":{"loss":3.0,"new":null}}"#,
            "\n",
            r#"{"step":1,"loss":null,"later":{}}"#,
            "\n\n",
            r#"{"step":1,"eval":{"loss":2.0},"best":true,"eval_seconds":0.5}"#,
            "\n",
            r#"{"of":"a later release"}"#,
            "\n",
            r#"{"step":1,"after":{"loss":2.0},"confusion":{"names":["a"],"counts":[[3]]}}"#,
            "\n",
            r#"{"step":2,"lo"#,
        ))
        .unwrap();
        assert_eq!(found.before.unwrap().before["new"], None);
        assert_eq!((found.steps.len(), found.steps[0].loss), (1, None));
        assert_eq!(found.evaluations[0].eval_seconds, Some(0.5));
        assert_eq!(found.after.unwrap().confusion.unwrap().counts, [[3]]);
    }

    #[test]
    fn a_broken_line_is_named() {
        for broken in [
            "{\"step\":1,\"loss\":1}\n{\"st\n",
            "{\"step\":1,\"loss\":1}\n{\"loss\":\"x\"}\n",
        ] {
            let error = run(broken).unwrap_err().to_string();
            assert!(error.contains("metrics.jsonl, line 2"), "{error}");
        }
        let error = RunFiles::read(Path::new("nowhere"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("metrics.jsonl"), "{error}");
    }
}
