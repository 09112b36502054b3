//! The program `lora`: LoRA fine-tuning of GPT-2, BERT, RoBERTa and DeBERTa on Burn.
#![recursion_limit = "256"]

mod bench;
mod diff;
mod eval;
mod generate;
mod inspect;
mod merge;
mod plan;
mod predict;
mod train;

use clap::{Parser, Subcommand};
use lora_train::TrainError;
use std::process::ExitCode;

/// Counts what is allocated, for `lora plan`.
#[global_allocator]
static COUNTING: lora_train::memory::Counting = lora_train::memory::Counting;

/// Fine-tune GPT-2, BERT, RoBERTa and DeBERTa models with LoRA, and use the result.
///
/// Exit codes: 0 done, 1 failed, 2 bad usage.
#[derive(Parser)]
#[command(name = "lora", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train an adapter, or with --full the whole model.
    Train(Box<train::Train>),
    /// Measure a model on data: a classifier by the task's scores, a language model by loss, perplexity and accuracy, and with --generate by BLEU and ROUGE-L.
    Eval(lora_train::jobs::EvalOptions),
    /// Classify, score or tag texts.
    Predict(lora_train::jobs::PredictOptions),
    /// Continue prompts.
    Generate(lora_train::jobs::GenerateOptions),
    /// Write a model with an adapter merged into it.
    Merge(lora_train::jobs::MergeOptions),
    /// Make one adapter of several.
    Combine(lora_train::tools::CombineArgs),
    /// Convert an adapter from or to loralib or mlx-lm.
    Convert(lora_train::tools::ConvertOptions),
    /// Describe an adapter, a model or a file of weights, and what is unusual about it.
    Inspect(lora_train::tools::InspectOptions),
    /// Measure what training steps, an epoch, inference or loading cost on this machine.
    Bench(Box<bench::Bench>),
    /// Say what a training run will take before it runs: memory by what it is for, the largest batch, seconds.
    Plan(lora_train::tools::PlanOptions),
    /// Compare two adapters, or two models' weights. Exit codes: 0 the same, 1 different, 2 failed.
    Diff(lora_train::tools::DiffOptions),
}

/// A report as one line of JSON.
fn json(report: &impl serde::Serialize) -> Result<String, TrainError> {
    serde_json::to_string(report).map_err(|error| TrainError::config("json", error.to_string()))
}

fn main() -> ExitCode {
    lora_train::memory::keep_freed_memory();
    let result = match Cli::parse().command {
        Command::Train(command) => command.run(),
        Command::Eval(options) => eval::run(&options),
        Command::Predict(options) => predict::run(&options),
        Command::Generate(options) => generate::run(&options),
        Command::Merge(options) => merge::run(&options),
        Command::Combine(args) => lora_train::tools::combine(&args).map(|text| println!("{text}")),
        Command::Convert(options) => {
            lora_train::tools::convert(&options).map(|text| println!("{text}"))
        }
        Command::Inspect(options) => inspect::run(&options),
        Command::Bench(command) => command.run(),
        Command::Plan(options) => plan::run(&options),
        Command::Diff(options) => return diff::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error {
                TrainError::Config { .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
