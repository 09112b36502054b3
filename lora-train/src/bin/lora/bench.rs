//! `lora bench`.

use clap::{Args, Subcommand};
use lora_train::TrainError;
use lora_train::options::RunOptions;
use lora_train::progress::Screen;
use lora_train::tools::bench::{
    InferenceOptions, LoadOptions, StepOptions, bench_epoch, bench_inference, bench_latency,
    bench_load, bench_step_with,
};
use lora_train::trainer::ranks::Ranks;
use std::sync::Arc;

#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    target: Target,
    /// Print the result as a JSON object on the last line: `median_s`, `min_s`, `peak_mib`, `trainable` and more.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Target {
    /// Time training steps of one shape, on random weights and tokens.
    Step(StepOptions),
    /// Time training on data, with its real lengths. The trained weights are discarded, without an evaluation.
    Epoch(Box<RunOptions>),
    /// Time inference of the base, of a merged model and of one with an active adapter; with --method, the latency of a forward pass by batch and length, as in the paper's table 1.
    Inference(InferenceOptions),
    /// Time reading a checkpoint.
    Load(LoadOptions),
}

impl Bench {
    /// Returns true if the ranks of a launcher are measured.
    pub fn is_of_ranks(&self) -> bool {
        matches!(&self.target, Target::Step(options) if options.ranks)
    }

    pub fn run(self, ranks: &Arc<dyn Ranks>) -> Result<(), TrainError> {
        let report = match &self.target {
            Target::Step(options) => bench_step_with(ranks, options),
            Target::Epoch(options) => bench_epoch(options, &mut Screen::detect()),
            Target::Inference(options) if options.is_by_size() => {
                return super::print_report(&bench_latency(options)?, self.json);
            }
            Target::Inference(options) => bench_inference(options),
            Target::Load(options) => bench_load(options),
        }?;
        if !ranks.is_first() {
            return Ok(());
        }
        super::print_report(&report, self.json)
    }
}
