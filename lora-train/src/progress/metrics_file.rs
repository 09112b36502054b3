//! `metrics.jsonl`: losses and evaluations of a run, and what was measured before and after it.

use crate::TrainError;
use crate::trainer::{Event, Observer};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Key of the last line of a complete run.
pub(crate) const AFTER: &str = "after";

/// `metrics.jsonl`: one object per step and per evaluation, and one each for what is measured before and after the run.
///
/// | line | keys |
/// | --- | --- |
/// | before the first step | `before`, and `step` 0 |
/// | step | `loss`, `step` and more |
/// | evaluation | `eval`, `step` and more |
/// | last line of a complete run | `after`, `step` and more |
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file to continue after `step`. Lines of later steps, which an interrupted run wrote, are
    /// removed: those steps run again. So is the last line of a complete run.
    ///
    /// # Errors
    /// Fails if the file cannot be read or written.
    pub fn open(path: &Path, step: usize) -> Result<Self, TrainError> {
        if path.exists() {
            let lines = lines_until(path, step)?;
            lora_core::files::write_file(path, lora_core::files::Overwrite::Replace, |file| {
                lines.iter().try_for_each(|line| writeln!(file, "{line}"))
            })?;
        }
        Self::append(path)
    }

    /// Opens the file to add lines to it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(crate) fn append(path: &Path) -> Result<Self, TrainError> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(TrainError::io(path))?;
        Ok(Self {
            path: path.into(),
            file,
        })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(crate) fn write(&mut self, value: &impl serde::Serialize) -> Result<(), TrainError> {
        let write = |file: &mut File| -> std::io::Result<()> {
            let mut line = serde_json::to_vec(value)?;
            line.push(b'\n');
            // One call per line: an interrupted run leaves complete lines.
            file.write_all(&line)
        };
        write(&mut self.file).map_err(TrainError::io(&self.path))
    }
}

fn lines_until(path: &Path, step: usize) -> Result<Vec<String>, TrainError> {
    let file = File::open(path).map_err(TrainError::io(path))?;
    let mut lines = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(TrainError::io(path))?;
        let object: Option<Value> = serde_json::from_str(&line).ok();
        let line_step = object
            .as_ref()
            .and_then(|object| object.get("step")?.as_u64());
        let is_last = object.as_ref().is_some_and(|o| o.get(AFTER).is_some());
        if line_step.is_some_and(|line_step| line_step <= step as u64) && !is_last {
            lines.push(line);
        }
    }
    Ok(lines)
}

impl Observer for MetricsFile {
    fn observe(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::Step(step) => self.write(step),
            Event::Eval(eval) => self.write(eval),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::StepEvent;

    fn step(step: usize) -> Event {
        Event::Step(StepEvent {
            step,
            epoch: 0.5,
            loss: 1.25,
            lr: 1e-3,
            grad_norm: 0.5,
            tokens: 7,
            skipped: false,
            seconds: 0.1,
        })
    }

    #[test]
    fn a_resumed_run_takes_out_what_lies_beyond_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut file = MetricsFile::open(&path, 0).unwrap();
        for i in 1..=5 {
            file.observe(&step(i)).unwrap();
        }
        let line = serde_json::json!({"step": 3, AFTER: {"loss": 1.0}});
        file.write(&line).unwrap();
        drop(file);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"st")
            .unwrap();
        let mut file = MetricsFile::open(&path, 3).unwrap();
        file.observe(&step(4)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<u64> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["step"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }

    #[test]
    fn a_step_is_one_object_with_the_documented_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        MetricsFile::open(&path, 0)
            .unwrap()
            .observe(&step(1))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let object: Value = serde_json::from_str(text.trim()).unwrap();
        let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "step",
                "epoch",
                "loss",
                "lr",
                "grad_norm",
                "tokens",
                "seconds"
            ]
        );
    }
}
