//! `lora train`.

use clap::Args;
use lora_train::TrainError;
use lora_train::jobs::{INTERRUPTED, TrainPlan, TrainSummary, train_with};
use lora_train::memory::peak_mib;
use lora_train::options::RunOptions;
use lora_train::progress::{Screen, print_json, print_line, print_row};
use lora_train::trainer::ranks::Ranks;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Number of generated texts shown at the end.
const SHOWN: usize = 3;

#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    run: RunOptions,
    /// Print the result as a JSON object on the last line: `version`, `before` and `after` (metrics by name), `steps`, `seconds`, `trainable`, `peak_mib`, `saved`.
    #[arg(long)]
    json: bool,
}

impl Train {
    pub fn run(self, ranks: &Arc<dyn Ranks>) -> Result<(), TrainError> {
        let plan = TrainPlan::new(self.run.resolve()?)?;
        let interrupter = super::interrupt::interrupter()?;
        let mut screen = Screen::detect();
        let summary = train_with(ranks.clone(), plan, interrupter, &mut screen)?;
        if !ranks.is_first() {
            Ok(())
        } else if self.json {
            print_json(as_json(&summary))
        } else {
            show(&summary)
        }
    }
}

fn as_json(summary: &TrainSummary) -> serde_json::Value {
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "before": summary.before,
        "after": summary.after,
        "steps": summary.steps,
        "seconds": summary.seconds,
        "trainable": summary.trainable,
        "peak_mib": peak_mib(),
        "saved": summary.weights,
        "merged": summary.merged,
        "stopped": summary.stopped,
    })
}

fn show(summary: &TrainSummary) -> Result<(), TrainError> {
    if !summary.after.is_empty() {
        print_line(format_args!("{:12} {:>10} {:>10}", "", "before", "after"))?;
        let names: BTreeSet<&String> = summary.before.keys().chain(summary.after.keys()).collect();
        for name in names {
            let values = [&summary.before, &summary.after].map(|metrics| metrics.get(name));
            let [before, after] = values.map(|v| v.map_or("-".into(), |v| format!("{v:.3}")));
            print_row(format_args!("{name:12} {before:>10} {after:>10}"))?;
        }
    }
    let step = (summary.texts.len() / SHOWN).max(1);
    for text in summary.texts.iter().step_by(step).take(SHOWN) {
        print_line(format_args!("\nprompt     {}", text.prompt.trim()))?;
        print_line(format_args!("generated  {}", text.text))?;
        for reference in text.references.iter().take(2) {
            print_line(format_args!("reference  {reference}"))?;
        }
    }
    let (steps, seconds) = (summary.steps, summary.seconds);
    print_line(format_args!("\n{steps} steps in {seconds:.0} s"))?;
    match summary.stopped.as_deref() {
        Some(INTERRUPTED) => print_line("interrupted: continue with --resume")?,
        Some(reason) => print_line(format_args!("stopped early: {reason}"))?,
        None => {}
    }
    print_line(format_args!("saved {}", summary.weights.display()))?;
    if let Some(merged) = &summary.merged {
        print_line(format_args!("saved {}", merged.display()))?;
    }
    Ok(())
}
