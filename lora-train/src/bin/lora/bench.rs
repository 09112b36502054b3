//! `lora bench`.

use clap::{Args, Subcommand};
use lora_train::TrainError;
use lora_train::progress::Screen;
use lora_train::tools::bench::{
    EpochOptions, InferenceOptions, LoadOptions, StepOptions, bench_epoch, bench_inference,
    bench_load, bench_step,
};

#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
    /// Print the outcome as one JSON object on the last line: `median_s`, `min_s`, `peak_mib`, `trainable`, and more.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Training steps at one shape, on random weights and tokens.
    Step(StepOptions),
    /// Training on data with its real lengths.
    Epoch(Box<EpochOptions>),
    /// The base, a merged model and one with an active adapter, in turn.
    Inference(InferenceOptions),
    /// Reading a checkpoint.
    Load(LoadOptions),
}

impl Bench {
    pub fn run(self) -> Result<(), TrainError> {
        let report = match &self.what {
            What::Step(options) => bench_step(options),
            What::Epoch(options) => bench_epoch(options, &mut Screen::detect()),
            What::Inference(options) => bench_inference(options),
            What::Load(options) => bench_load(options),
        }?;
        match self.json {
            true => println!("{}", super::json(&report)?),
            false => print!("{report}"),
        }
        Ok(())
    }
}
