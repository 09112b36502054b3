//! Progress of a run: a bar on a terminal, plain lines elsewhere, and `metrics.jsonl`.
//!
//! | file | contents |
//! | --- | --- |
//! | `training` | progress of training |
//! | `waiting` | elapsed seconds while a GPU backend compiles kernels |
//! | `metrics_file` | `metrics.jsonl` |
//! | `tensorboard` | event files for TensorBoard |
//! | `standard`, `escape`, `coloring` | standard output and standard error; text that a terminal only shows; colours |

mod coloring;
mod escape;
mod metrics_file;
mod standard;
mod tensorboard;
mod training;
mod waiting;

pub use coloring::{Coloring, Piece, print_pieces};
pub(crate) use escape::Escaped;
pub(crate) use metrics_file::AFTER;
pub use metrics_file::MetricsFile;
pub use standard::{
    is_closed_pipe, print, print_json, print_line, print_message, print_piece, print_prompt,
    print_row, print_text,
};
pub use tensorboard::TensorBoard;
pub use training::TrainingProgress;

use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use lora_core::ops::is_on_host;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use waiting::Waiting;

/// Interval between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// True if no screen of this process shows anything.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Lets every later [`Screen`] of this process show nothing: no progress, notes or warnings.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Progress output on standard error; standard output is for results.
#[derive(Clone, Debug, Default)]
pub struct Screen {
    terminal: bool,
    quiet: bool,
}

impl Screen {
    /// Shows bars if standard error is a terminal, and plain lines otherwise; nothing after [`silence`].
    pub fn detect() -> Self {
        if SILENT.load(Ordering::Relaxed) {
            return Self::quiet();
        }
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
            print_message(text);
        }
    }

    /// Creates a progress bar, or plain lines, for `total` items.
    pub fn bar(&self, label: &str, total: usize) -> Bar {
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new(total as u64);
            bar.set_style(style("{msg:14} {bar:30} {pos}/{len} {eta}"));
            bar.set_message(Escaped::line(label).to_string());
            bar
        });
        Bar {
            bar,
            screen: self.clone(),
            label: label.into(),
            total,
            last: Instant::now(),
            waiting: None,
        }
    }

    /// Creates an observer that shows a training run.
    pub fn observer(&self) -> TrainingProgress {
        TrainingProgress::new(self.clone())
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
    waiting: Option<Waiting>,
}

impl Bar {
    /// On a GPU, shows that kernels are compiled, until the first items are finished.
    pub fn for_device(mut self, device: &Device) -> Self {
        if !is_on_host(device) {
            let (bar, screen, label) = (self.bar.clone(), self.screen.clone(), self.label.clone());
            self.waiting = Some(Waiting::start(bar.is_some(), move |seconds| match &bar {
                Some(bar) => bar.set_message(format!("compiling {seconds} s")),
                None => screen.line(&format!("{label}: compiling kernels, {seconds} s")),
            }));
        }
        self
    }

    /// Sets the number of finished items.
    pub fn set(&mut self, done: usize) {
        if let (Some(_), Some(bar)) = (self.waiting.take(), &self.bar) {
            bar.set_message(Escaped::line(&self.label).to_string());
        }
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
        drop(self.waiting);
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
