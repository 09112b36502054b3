//! The program `lora`: LoRA fine-tuning of GPT-2, BERT, RoBERTa and DeBERTa on Burn.
#![recursion_limit = "256"]

mod bench;
mod diff;
mod doctor;
mod eval;
mod generate;
mod predict;
mod train;

use clap::{Parser, Subcommand};
use lora_core::ops::Tuning;
use lora_train::TrainError;
use std::process::ExitCode;

/// Counting allocator, for `lora plan`.
#[global_allocator]
static COUNTING: lora_train::memory::Counting = lora_train::memory::Counting;

/// Fine-tune GPT-2, BERT, RoBERTa and DeBERTa models with LoRA, and use the result.
///
/// Exit codes: 0 success, 1 failure, 2 bad usage.
#[derive(Parser)]
#[command(name = "lora", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Search for the fastest kernels of a GPU: off, few or full [default: off on a software adapter, few on a GPU].
    #[arg(long, global = true, value_name = "SEARCH")]
    autotune: Option<Tuning>,
}

#[derive(Subcommand)]
enum Command {
    /// Train an adapter, or the full model with --full.
    Train(Box<train::Train>),
    /// Evaluate a model on data: a classifier by the task's metrics, a language model by loss, perplexity and accuracy, and with --generate by BLEU and ROUGE-L.
    Eval(lora_train::jobs::EvalOptions),
    /// Classify, score or tag texts.
    Predict(lora_train::jobs::PredictOptions),
    /// Continue prompts.
    Generate(lora_train::jobs::GenerateOptions),
    /// Write a model with an adapter merged into it.
    Merge(lora_train::jobs::MergeOptions),
    /// Combine several adapters into one.
    Combine(lora_train::tools::CombineArgs),
    /// Convert an adapter from or to loralib or mlx-lm.
    Convert(lora_train::tools::ConvertOptions),
    /// Describe an adapter, a model or a file of weights, and report anything unusual.
    Inspect(lora_train::tools::InspectOptions),
    /// Measure training steps, an epoch, inference or loading on this machine.
    Bench(Box<bench::Bench>),
    /// Estimate a training run: memory by purpose, the largest batch size, and time.
    Plan(lora_train::tools::PlanOptions),
    /// Compare two adapters, or two models' weights. Exit codes: 0 same, 1 different, 2 failed.
    Diff(lora_train::tools::DiffOptions),
    /// Show where GPU backends keep compiled kernels, and their size, or remove them.
    Cache(lora_train::tools::CacheOptions),
    /// Examine a device: compare operations and training steps with the CPU, and list limits and speeds. Exit codes: 0 right, 1 wrong or unusable, 2 failed.
    Doctor(lora_train::tools::doctor::DoctorOptions),
}

/// Prints a report as text, or as one line of JSON.
fn print_report(
    report: &(impl serde::Serialize + std::fmt::Display),
    json: bool,
) -> Result<(), TrainError> {
    if json {
        let line = serde_json::to_string(report)
            .map_err(|error| TrainError::config("json", error.to_string()))?;
        println!("{line}");
    } else {
        print!("{report}");
    }
    Ok(())
}

fn main() -> ExitCode {
    lora_train::memory::keep_freed_memory();
    let cli = Cli::parse();
    if let Some(tuning) = cli.autotune {
        lora_train::device::set_tuning(tuning);
    }
    let result = match cli.command {
        Command::Train(command) => command.run(),
        Command::Eval(options) => eval::run(&options),
        Command::Predict(options) => predict::run(&options),
        Command::Generate(options) => generate::run(&options),
        Command::Merge(options) => {
            lora_train::jobs::merge(&options).map(|report| println!("{report}"))
        }
        Command::Combine(args) => lora_train::tools::combine(&args).map(|text| println!("{text}")),
        Command::Convert(options) => {
            lora_train::tools::convert(&options).map(|text| println!("{text}"))
        }
        Command::Inspect(options) => lora_train::tools::inspect(&options)
            .and_then(|report| print_report(&report, options.json)),
        Command::Bench(command) => command.run(),
        Command::Plan(options) => lora_train::tools::estimate(&options)
            .and_then(|forecast| print_report(&forecast, options.json)),
        Command::Diff(options) => return diff::run(&options),
        Command::Cache(options) => lora_train::tools::cache(&options)
            .and_then(|kernels| print_report(&kernels, options.json)),
        Command::Doctor(options) => return doctor::run(&options),
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
