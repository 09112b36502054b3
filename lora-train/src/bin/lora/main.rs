//! The program `lora`: LoRA fine-tuning of GPT-2, BERT, RoBERTa and DeBERTa on Burn.
#![recursion_limit = "256"]

mod analyze;
mod bench;
mod chat;
mod diff;
mod doctor;
mod eval;
mod generate;
mod interrupt;
mod manual;
mod predict;
mod preview;
mod ranks;
mod sweep;
mod train;

use clap::{Parser, Subcommand};
use lora_core::ops::Tuning;
use lora_models::checkpoint::set_mapping;
use lora_train::TrainError;
use lora_train::progress::{is_closed_pipe, print, print_json, print_line, print_message};
use lora_train::tools::Build;
use std::ffi::OsString;
use std::process::ExitCode;

/// Counting allocator, for `lora plan`.
#[global_allocator]
static COUNTING: lora_train::memory::Counting = lora_train::memory::Counting;

/// Fine-tune GPT-2, BERT, RoBERTa and DeBERTa models with LoRA, and use the result.
///
/// Exit codes: 0 success, 1 failure, 2 bad usage.
#[derive(Parser)]
#[command(name = "lora", version, long_version = Build::long_version(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Search for the fastest kernels of a GPU: off, few or full [default: off on a software adapter, few on a GPU].
    #[arg(long, global = true, value_name = "SEARCH")]
    autotune: Option<Tuning>,
    /// Read the weights of a base model into memory in place of mapping their files: for file systems that are slow with maps, and for bases that others may change.
    #[arg(long, global = true)]
    no_mmap: bool,
    /// Print results and errors only: no progress, notes or warnings.
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Train an adapter, or the full model with --full.
    Train(Box<train::Train>),
    /// Show the examples of a training run as the model reads them: their tokens, what is learned of them, and what is cut off. Takes the options of `train`.
    Preview(Box<lora_train::jobs::PreviewOptions>),
    /// Evaluate a model on data: a classifier by the task's metrics, a language model by loss, perplexity and accuracy, and with --generate by the scores of its texts.
    Eval(lora_train::jobs::EvalOptions),
    /// Classify, score or tag texts.
    Predict(lora_train::jobs::PredictOptions),
    /// Continue prompts.
    Generate(lora_train::jobs::GenerateOptions),
    /// Talk with a model, message by message: answers come as they are generated.
    Chat(Box<lora_train::jobs::ChatOptions>),
    /// Score the texts of a file by the references of the data, without a model.
    Score(lora_train::jobs::ScoreOptions),
    /// Write a model with an adapter merged into it.
    Merge(lora_train::jobs::MergeOptions),
    /// Combine several adapters into one.
    Combine(lora_train::tools::CombineArgs),
    /// Convert an adapter from or to loralib or mlx-lm, or to llama.cpp.
    Convert(lora_train::tools::ConvertOptions),
    /// Upload an adapter to the Hugging Face Hub, with its card and tokenizer; needs a build with the feature `hub`.
    Push(lora_train::tools::PushOptions),
    /// Describe an adapter, a model or a file of weights, and report anything unusual.
    Inspect(lora_train::tools::InspectOptions),
    /// Measure training steps, an epoch, inference or loading on this machine.
    Bench(Box<bench::Bench>),
    /// Estimate a training run: memory by purpose, the largest batch size, and time.
    Plan(lora_train::tools::PlanOptions),
    /// Compare two adapters, or two models' weights. Exit codes: 0 same, 1 different, 2 failed.
    Diff(lora_train::tools::DiffOptions),
    /// Analyze the updates of an adapter as section 7 of the LoRA paper does: the subspaces that two adapters share, and updates against the weights of the base.
    Analyze(Box<lora_train::tools::AnalyzeOptions>),
    /// Train over a grid of options and several seeds, and print mean and deviation of the scores. Exit codes: 0 all runs are complete, 1 some are not, 2 bad usage.
    Sweep(Box<lora_train::tools::SweepOptions>),
    /// Write training runs as one HTML page: settings, curves, scores, texts, time and memory.
    Report(lora_train::tools::ReportOptions),
    /// Show where GPU backends keep compiled kernels, and their size, or remove them.
    Cache(lora_train::tools::CacheOptions),
    /// Examine a device: compare operations and training steps with the CPU, and list limits and speeds. Exit codes: 0 right, 1 wrong or unusable, 2 failed.
    Doctor(lora_train::tools::doctor::DoctorOptions),
    /// Describe this build and a device, for a bug report: version, commit, backends and limits.
    Env(lora_train::tools::EnvironmentOptions),
    /// Print the completions of a shell, to be stored where it looks for them.
    Completions(manual::Completions),
    /// Print a manual page, or write the pages of all commands.
    Man(manual::Manual),
}

/// Prints a report as text, or as one line of JSON.
fn print_report(
    report: &(impl serde::Serialize + std::fmt::Display),
    json: bool,
) -> Result<(), TrainError> {
    if json {
        let line = serde_json::to_string(report)
            .map_err(|error| TrainError::config("json", error.to_string()))?;
        print_json(line)
    } else {
        print(report)
    }
}

/// Returns the exit code of an error: bad usage, or any other failure.
fn exit_code(error: &TrainError) -> u8 {
    match error {
        TrainError::Config { .. } => 2,
        _ => 1,
    }
}

/// Reports an error and returns its exit code. A reader of the output that has read enough is no error.
fn failed(error: &TrainError, code: u8) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    print_message(format_args!("error: {error}"));
    ExitCode::from(code)
}

/// Returns true if a text has characters that may act on a terminal.
fn has_controls(text: &str) -> bool {
    text.contains(|character: char| character.is_control() && !"\n\t".contains(character))
}

/// Lets panics print their messages as the other messages, if these would act on a terminal: code of others panics with the names
/// that it read, such as a tokenizer's.
fn escape_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        if has_controls(&text) {
            print_message(text);
        } else {
            usual(panic);
        }
    }));
}

/// Prints the help, the version or what is wrong with the arguments, and returns the exit code.
fn usage(error: &clap::Error) -> ExitCode {
    // A shell's pattern makes arguments of the names of files; clap prints them as they are.
    let acts = |argument: OsString| has_controls(&argument.to_string_lossy());
    if error.use_stderr() && std::env::args_os().any(acts) {
        print_message(error.render().to_string().trim_end());
        return ExitCode::from(2);
    }
    if let Err(unprinted) = error.print()
        && !error.use_stderr()
    {
        return failed(&TrainError::io("standard output")(unprinted), 1);
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn main() -> ExitCode {
    lora_train::memory::keep_freed_memory();
    escape_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if let Some(tuning) = cli.autotune {
        lora_train::device::set_tuning(tuning);
    }
    set_mapping(!cli.no_mmap);
    if cli.quiet {
        lora_train::progress::silence();
    }
    let result = match cli.command {
        Command::Train(command) => return ranks::run(|ranks| command.run(ranks)),
        Command::Preview(options) => preview::run(&options),
        Command::Eval(options) => return ranks::run(|ranks| eval::run(&options, &**ranks)),
        Command::Predict(options) => return ranks::run(|ranks| predict::run(&options, &**ranks)),
        Command::Generate(options) => return ranks::run(|ranks| generate::run(&options, &**ranks)),
        Command::Chat(options) => chat::run(&options),
        Command::Score(options) => {
            lora_train::jobs::score(&options).and_then(|report| print_report(&report, options.json))
        }
        Command::Merge(options) => lora_train::jobs::merge(&options).and_then(print_line),
        Command::Combine(args) => lora_train::tools::combine(&args).and_then(print_line),
        Command::Convert(options) => lora_train::tools::convert(&options).and_then(print_line),
        Command::Push(options) => {
            lora_train::tools::push(&options, &lora_train::progress::Screen::detect())
                .and_then(|pushed| print_report(&pushed, options.json))
        }
        Command::Inspect(options) => lora_train::tools::inspect(&options)
            .and_then(|report| print_report(&report, options.json)),
        Command::Bench(command) if command.is_of_ranks() => {
            return ranks::run(|ranks| command.run(ranks));
        }
        Command::Bench(command) => command.run(&ranks::alone()),
        Command::Plan(options) => lora_train::tools::estimate(&options)
            .and_then(|forecast| print_report(&forecast, options.json)),
        Command::Diff(options) => return diff::run(&options),
        Command::Analyze(options) => analyze::run(&options),
        Command::Sweep(options) => return sweep::run(&options),
        Command::Report(options) => lora_train::tools::report(&options).and_then(print_line),
        Command::Cache(options) => lora_train::tools::cache(&options)
            .and_then(|kernels| print_report(&kernels, options.json)),
        Command::Doctor(options) => return doctor::run(&options),
        Command::Env(options) => lora_train::tools::environment(&options)
            .and_then(|facts| print_report(&facts, options.json)),
        Command::Completions(completions) => completions.run(),
        Command::Man(manual) => manual.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, exit_code(&error)),
    }
}
