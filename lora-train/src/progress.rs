//! Progress of a run: a bar on a terminal, plain lines elsewhere, and `metrics.jsonl`.

use crate::TrainError;
use crate::trainer::{Event, Observer, StepEvent};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Interval between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Progress output on standard error; standard output is for results.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    terminal: bool,
    quiet: bool,
}

impl Screen {
    /// Shows bars if standard error is a terminal, and plain lines otherwise.
    pub fn detect() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            quiet: false,
        }
    }

    /// Shows nothing.
    pub fn quiet() -> Self {
        Self {
            terminal: false,
            quiet: true,
        }
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Creates a progress bar, or plain lines, for `total` items.
    pub fn bar(&self, label: &str, total: usize) -> Bar {
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new(total as u64);
            bar.set_style(style("{msg:14} {bar:30} {pos}/{len} {eta}"));
            bar.set_message(label.to_string());
            bar
        });
        Bar {
            bar,
            screen: self.clone(),
            label: label.into(),
            total,
            last: Instant::now(),
        }
    }

    /// Creates an observer that shows a training run.
    pub fn observer(&self) -> TrainingProgress {
        TrainingProgress {
            screen: self.clone(),
            ..TrainingProgress::default()
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Progress of anything other than training.
pub struct Bar {
    bar: Option<ProgressBar>,
    screen: Screen,
    label: String,
    total: usize,
    last: Instant,
}

impl Bar {
    /// Sets the number of finished items.
    pub fn set(&mut self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None if self.last.elapsed() >= LINE_INTERVAL => {
                self.last = Instant::now();
                self.screen
                    .line(&format!("{} {done}/{}", self.label, self.total));
            }
            None => {}
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Progress of training: step, loss, learning rate, tokens per second and remaining time.
#[derive(Default)]
pub struct TrainingProgress {
    screen: Screen,
    bar: Option<ProgressBar>,
    total: usize,
    /// Step and seconds of the first step in this session, from which its speed is computed.
    first: Option<(usize, f64)>,
    last_line: Option<Instant>,
    tokens: usize,
}

impl TrainingProgress {
    fn step(&mut self, step: &StepEvent) {
        let speed = match self.first {
            // The speed is measured from the end of the session's first step.
            None => {
                self.first = Some((step.step, step.seconds));
                String::new()
            }
            Some((first, since)) => {
                self.tokens += step.tokens;
                let seconds = (step.seconds - since).max(1e-9);
                let left = seconds / (step.step - first) as f64 * (self.total - step.step) as f64;
                let rate = self.tokens as f64 / seconds;
                format!("  {rate:.0} tokens/s  {} left", clock(left))
            }
        };
        let text = format!("loss {:.4}  lr {:.2e}{speed}", step.loss, step.lr);
        if let Some(bar) = &self.bar {
            bar.set_position(step.step as u64);
            bar.set_message(text);
            return;
        }
        let due = self
            .last_line
            .is_none_or(|last| last.elapsed() >= LINE_INTERVAL);
        if due || step.step == self.total {
            self.last_line = Some(Instant::now());
            self.screen.line(&format!(
                "step {}/{}  epoch {:.2}  {text}",
                step.step, self.total, step.epoch
            ));
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.screen.line(text),
        }
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

impl Observer for TrainingProgress {
    fn observe(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::Start {
                first_step,
                total_steps,
            } => {
                self.total = *total_steps;
                if *first_step > 1 {
                    self.line(&format!("resuming at step {first_step} of {total_steps}"));
                }
                if self.screen.terminal {
                    let bar = ProgressBar::new(*total_steps as u64);
                    bar.set_style(style("step {pos}/{len} {bar:12} {msg}"));
                    self.bar = Some(bar);
                }
            }
            Event::Step(step) => self.step(step),
            Event::Eval(eval) => {
                let values = eval.eval.iter();
                let values = values.map(|(name, value)| format!("{name} {value:.4}"));
                let values = values.collect::<Vec<_>>().join("  ");
                let best = if eval.best { "  (best so far)" } else { "" };
                let (step, epoch) = (eval.step, eval.epoch);
                self.line(&format!(
                    "evaluation at step {step}, epoch {epoch:.2}: {values}{best}"
                ));
            }
            Event::Saved(path) => {
                if self.bar.is_none() {
                    self.line(&format!("saved {}", path.display()));
                }
            }
            Event::Stopped(reason) => self.line(&format!("stopped: {reason}")),
            Event::End => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    }
}

/// `metrics.jsonl`: one object per step and per evaluation.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Opens the file to continue after `step`. Lines of later steps, which an interrupted run wrote, are
    /// removed: those steps run again.
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

    fn write(&mut self, value: &impl serde::Serialize) -> Result<(), TrainError> {
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
        if line_step.is_some_and(|line_step| line_step <= step as u64) {
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

    fn step(step: usize) -> Event {
        Event::Step(StepEvent {
            step,
            epoch: 0.5,
            loss: 1.25,
            lr: 1e-3,
            grad_norm: 0.5,
            tokens: 7,
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
