//! Progress of training.

use super::waiting::Waiting;
use super::{Escaped, LINE_INTERVAL, Screen, style};
use crate::TrainError;
use crate::trainer::{Event, Observer, StepEvent};
use burn::tensor::Device;
use indicatif::ProgressBar;
use lora_core::ops::is_on_host;
use std::time::Instant;

/// Progress of training: step, loss, learning rate, tokens per second and remaining time.
#[derive(Default)]
pub struct TrainingProgress {
    screen: Screen,
    /// True if the first step compiles kernels.
    compiles: bool,
    waiting: Option<Waiting>,
    bar: Option<ProgressBar>,
    total: usize,
    /// Step and seconds of the first step in this session, from which its speed is computed.
    first: Option<(usize, f64)>,
    last_line: Option<Instant>,
    tokens: usize,
}

impl TrainingProgress {
    /// Creates the progress of a run on a screen.
    pub(super) fn new(screen: Screen) -> Self {
        Self {
            screen,
            ..Self::default()
        }
    }

    /// On a GPU, shows that kernels are compiled while the first step lasts.
    pub fn for_device(mut self, device: &Device) -> Self {
        self.compiles = !is_on_host(device);
        self
    }

    fn wait_for_kernels(&mut self) {
        let (bar, screen) = (self.bar.clone(), self.screen.clone());
        self.waiting = Some(Waiting::start(bar.is_some(), move |seconds| {
            let text = format!("compiling kernels for the first step, {seconds} s");
            match &bar {
                Some(bar) => bar.set_message(text),
                None => screen.line(&text),
            }
        }));
    }

    fn step(&mut self, step: &StepEvent) {
        self.waiting = None;
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
        let skipped = if step.skipped { "  skipped" } else { "" };
        let text = format!("loss {:.4}{skipped}  lr {:.2e}{speed}", step.loss, step.lr);
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
            Some(bar) => bar.println(Escaped::message(text).to_string()),
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
                if self.compiles {
                    self.wait_for_kernels();
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
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Stopped(reason) => self.line(&format!("stopped: {reason}")),
            Event::End => {
                self.waiting = None;
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    }
}
