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

/// What each of them says.
#[derive(Debug)]
pub struct Outcome {
    /// The adapters' names.
    pub names: Vec<String>,
    /// The base alone, then each adapter while it is active, on the same prompt.
    pub one_by_one: Vec<String>,
    /// The same in one batch.
    pub mixed: Vec<String>,
    /// Each adapter merged into the weights in turn.
    pub merged: Vec<String>,
    /// The base alone after all of that.
    pub base_again: String,
    /// Where all adapters were saved together.
    pub tree: PathBuf,
}

/// Trains an adapter of the shipped model for so many steps.
fn adapter(name: &str, data: &str, output: &Path, steps: usize) -> Result<PathBuf, TrainError> {
    let is_table = data.ends_with(".jsonl");
    let mut options = TrainOptions {
        model: Some(folder().join("models/wiki-gpt2")),
        data: Some(folder().join(data)),
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

/// Trains two adapters, or takes those that were trained before, and uses them.
///
/// # Errors
/// If a file is missing or malformed.
pub fn run(output: &Path, steps: usize) -> Result<Outcome, TrainError> {
    // One learns to describe a restaurant from its data, the other only how such descriptions sound.
    let restaurant = adapter("restaurant", "data/e2e/train.txt", output, steps)?;
    let review = adapter("review", "data/family/train.jsonl", output, steps)?;

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
    let say = |model: &Gpt2LmHead| -> Result<String, TrainError> {
        let written = Generator::new(model, config.clone(), &device)
            .generate(std::slice::from_ref(&prompt))?;
        Ok(tokenizer.decode(&written[0].tokens, true)?)
    };

    // One after the other: activating one is a store.
    let mut one_by_one = vec![say(adapters.model())?];
    for name in &names {
        adapters.activate(name)?;
        one_by_one.push(say(adapters.model())?);
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

    // Merged into the weights, one in place of the other.
    let mut merged = adapters.merge(&names[0])?;
    let mut said = Vec::new();
    for name in &names {
        merged.switch(name)?;
        said.push(say(merged.module())?);
    }
    drop(merged);

    let tree = output.join("all");
    adapters.save_tree(&tree, Overwrite::Replace)?;
    Ok(Outcome {
        base_again: say(adapters.model())?,
        names,
        one_by_one,
        mixed,
        merged: said,
        tree,
    })
}
