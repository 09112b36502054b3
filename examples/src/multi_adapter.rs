//! Several adapters on one base: trained, activated by name, mixed in one batch, and merged in turn.

use crate::fine_tune::folder;
use burn::tensor::Device;
use lora_core::files::Overwrite;
use lora_models::generate::{GenerationConfig, Generator};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::tokenizer::Tokenizer;
use lora_models::{LoadOptions, LoraModel, ModelAdapters, Pretrained};
use lora_train::TrainError;
use lora_train::jobs::{TrainPlan, train};
use lora_train::options::{TargetNames, TrainOptions};
use lora_train::progress::Screen;
use std::path::{Path, PathBuf};

/// Generated texts of each adapter.
#[derive(Debug)]
pub struct Outcome {
    /// Names of the adapters.
    pub names: Vec<String>,
    /// Texts of the base alone, then of each adapter while it is active, for the same prompt.
    pub one_by_one: Vec<String>,
    /// The same texts, generated in one batch.
    pub mixed: Vec<String>,
    /// Texts of each adapter merged into the weights in turn.
    pub merged: Vec<String>,
    /// Text of the base alone after all other steps.
    pub base_again: String,
    /// Directory where all adapters were saved together.
    pub tree: PathBuf,
}

/// Trains an adapter of the shipped model for `steps` steps.
fn train_adapter(
    name: &str,
    data: &str,
    output: &Path,
    steps: usize,
) -> Result<PathBuf, TrainError> {
    let is_table = data.ends_with(".jsonl");
    let mut options = TrainOptions {
        model: Some(folder().join("models/wiki-gpt2")),
        data: vec![folder().join(data)],
        output: Some(output.join(name)),
        rank: Some(if is_table { 2 } else { 4 }),
        alpha: Some(16.0),
        targets: Some(TargetNames::Text(
            if is_table {
                "c_attn,mlp.c_fc"
            } else {
                "c_attn[q,v]"
            }
            .into(),
        )),
        lr: Some(5e-3),
        batch_size: Some(4),
        max_length: Some(64),
        max_steps: Some(steps),
        overwrite: true,
        ..TrainOptions::default()
    };
    options.reading.text_column = is_table.then(|| "text".into());
    let summary = train(
        TrainPlan::new(options)?,
        burn_train::Interrupter::new(),
        &mut Screen::quiet(),
    )?;
    Ok(summary.weights)
}

/// Trains two adapters and uses them.
///
/// # Errors
/// Fails if a file is missing or malformed.
pub fn run(output: &Path, steps: usize) -> Result<Outcome, TrainError> {
    // One learns to describe a restaurant from its data, the other only the style of such descriptions.
    let restaurant = train_adapter("restaurant", "data/e2e/train.txt", output, steps)?;
    let review = train_adapter("review", "data/family/train.jsonl", output, steps)?;

    let device = Device::flex();
    let folder = folder().join("models/wiki-gpt2");
    let tokenizer = Tokenizer::from_dir(&folder)?;
    let (base, _) = Gpt2LmHead::load(&folder, &LoadOptions::default(), &device)?;
    let mut adapters = base.named_adapters()?;
    adapters.load("restaurant", &restaurant)?;
    adapters.load("review", &review)?;
    let names: Vec<String> = adapters.names().map(String::from).collect();

    let prompt = tokenizer.encode("name : Aromi | eatType : coffee shop||")?;
    let config = GenerationConfig::new(12).with_stop_tokens(tokenizer.eos_id());
    let continue_prompt = |model: &Gpt2LmHead| -> Result<String, TrainError> {
        let written = Generator::new(model, config.clone(), &device)
            .generate(std::slice::from_ref(&prompt))?;
        Ok(tokenizer.decode(&written[0].tokens, true)?)
    };

    // One after the other: activation is a single store.
    let mut one_by_one = vec![continue_prompt(adapters.model())?];
    for name in &names {
        adapters.activate(name)?;
        one_by_one.push(continue_prompt(adapters.model())?);
    }
    adapters.disable();

    // All of them in one batch.
    let each: Vec<Option<&str>> = std::iter::once(None)
        .chain(names.iter().map(|name| Some(name.as_str())))
        .collect();
    let prompts = vec![prompt.clone(); each.len()];
    let model = adapters.for_prompts(&each)?;
    let written = Generator::new(&model, config.clone(), &device).generate(&prompts)?;
    let mixed = written
        .iter()
        .map(|text| tokenizer.decode(&text.tokens, true));
    let mixed = mixed.collect::<Result<Vec<_>, _>>()?;

    // Merged into the weights, each replacing the other.
    let mut merged = adapters.merge(&names[0])?;
    let mut merged_texts = Vec::new();
    for name in &names {
        merged.switch(name)?;
        merged_texts.push(continue_prompt(merged.module())?);
    }
    drop(merged);

    let tree = output.join("all");
    adapters.save_tree(&tree, Overwrite::Replace)?;
    Ok(Outcome {
        base_again: continue_prompt(adapters.model())?,
        names,
        one_by_one,
        mixed,
        merged: merged_texts,
        tree,
    })
}
