//! Evaluating a model, with or without an adapter.

use super::base::load_base;
use super::data::{max_length, read_examples};
use super::evaluator::{Evaluator, ExampleScore};
use super::judge::generation_config;
use crate::TrainError;
use crate::data::{Example, Record, group_references};
use crate::device::{self, DeviceName};
use crate::options::ReadingOptions;
use crate::progress::Screen;
use crate::task::{CausalLm, GeneratedText, generate_texts, score_texts};
use clap::Args;
use lora_core::files::{Overwrite, write_file};
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Options of `lora eval`.
#[derive(Args, Clone, Debug, Default)]
pub struct EvalOptions {
    /// Directory of the model.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// PEFT adapter on it [default: the model alone].
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Data to evaluate on.
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Write one JSON object an example, in the order of the data: mean loss over its label tokens, their number, and the prediction with --generate.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Replace the predictions file if it is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Generate for each prompt too, and score BLEU and ROUGE-L against all its completions.
    #[arg(long)]
    pub generate: bool,
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_new_tokens: usize,
    /// Beams to generate with; 1 is greedy.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub beams: usize,
    /// Examples in a forward pass.
    #[arg(long, alias = "eval-batch-size", value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Longest example in tokens [default: 512, at most the model's].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// How to read the data.
    #[command(flatten)]
    pub reading: ReadingOptions,
    /// Device to run on.
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceName,
    /// Seed; nothing in an evaluation is random, the option is there for scripts.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct EvalSummary {
    /// Metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// The score of each example, in the order of the data.
    pub scores: Vec<ExampleScore>,
    /// The generated texts, one a prompt.
    pub texts: Vec<GeneratedText>,
}

/// Evaluates.
///
/// # Errors
/// On bad data or files, or a predictions file that is there already.
pub fn eval(options: &EvalOptions, screen: &Screen) -> Result<EvalSummary, TrainError> {
    if let Some(path) = options
        .predictions
        .as_ref()
        .filter(|p| p.exists() && !options.overwrite)
    {
        return Err(TrainError::OutputExists { path: path.clone() });
    }
    let device = device::open(options.device)?;
    device.seed(options.seed);
    let loaded = load_base(&options.model, options.adapter.as_deref(), &device)?;
    screen.line(&format!("model     {}", loaded.summary));
    let base = loaded.base;
    let length = max_length(options.max_length, &base)?;
    let data = read_examples(&options.data, &options.reading, &base, length)?;
    screen.line(&format!("data      {}", data.report));
    let task = CausalLm::new(loaded.model, 0.0);

    let examples = data.examples.clone();
    let evaluator = Evaluator::new(data.examples, options.batch_size, base.pad_id())?;
    let mut bar = screen.bar("loss", evaluator.len());
    let (mut metrics, scores) = evaluator.run(&task, |done| bar.set(done))?;
    bar.finish();

    let mut texts = Vec::new();
    if options.generate {
        let groups = group_references(&data.records)?;
        let config = generation_config(&base, options.max_new_tokens, options.beams);
        let mut bar = screen.bar("texts", groups.len());
        let (model, tokenizer) = (&task.model, &base.tokenizer);
        texts = generate_texts(
            model,
            tokenizer,
            &groups,
            &config,
            options.batch_size,
            |done| {
                bar.set(done);
            },
        )?;
        bar.finish();
        metrics.extend(score_texts(&texts)?);
    }
    let summary = EvalSummary {
        metrics,
        scores,
        texts,
    };
    if let Some(path) = &options.predictions {
        let lines = summary.lines(&examples, &data.records);
        write_file(path, Overwrite::Replace, |file| {
            lines.iter().try_for_each(|line| writeln!(file, "{line}"))
        })?;
    }
    Ok(summary)
}

impl EvalSummary {
    fn lines(&self, examples: &[Example], records: &[Record]) -> Vec<serde_json::Value> {
        let texts: HashMap<&str, &str> = self
            .texts
            .iter()
            .map(|text| (text.prompt.as_str(), text.text.as_str()))
            .collect();
        // Records that had nothing to predict make no example: the line tells which is which.
        let prompts: HashMap<usize, &str> = records
            .iter()
            .filter_map(|record| Some((record.origin.line(), record.content.prompt()?)))
            .collect();
        let scored = self.scores.iter().zip(examples);
        scored
            .map(|(score, example)| {
                let mut object = json!({"loss": score.loss, "tokens": score.tokens});
                let prompt = prompts.get(&example.origin().line());
                if let Some(text) = prompt.and_then(|prompt| texts.get(prompt)) {
                    object["prediction"] = json!(text);
                }
                object
            })
            .collect()
    }
}
