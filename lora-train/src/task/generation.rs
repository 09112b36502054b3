//! Generated texts.

use crate::TrainError;
use crate::data::ReferenceGroup;
use crate::trainer::ranks::{Ranks, gather_results};
use lora_models::generate::{GenerationConfig, Generator};
use lora_models::tokenizer::Tokenizer;
use lora_models::{CausalLm, ModelError};

/// Text that a model generated for a prompt.
#[derive(Clone, Debug)]
pub struct GeneratedText {
    /// Prompt.
    pub prompt: String,
    /// Continuation without the stop token, trimmed.
    pub text: String,
    /// Reference continuations.
    pub references: Vec<String>,
    /// Id of the record, if it has one.
    pub id: Option<String>,
}

/// Encodes the prompt of each group, and checks that it leaves room for a text. A model without values is enough.
///
/// # Errors
/// If a prompt is empty or too long.
pub(crate) fn encode_prompts<M: CausalLm>(
    model: &M,
    tokenizer: &Tokenizer,
    groups: &[ReferenceGroup],
    config: &GenerationConfig,
) -> Result<Vec<Vec<u32>>, TrainError> {
    let encode = |group: &ReferenceGroup| {
        let tokens = match &group.rendered {
            // The chat template has put the special tokens into the text.
            Some(text) => tokenizer.encode(text)?,
            None => tokenizer.encode_prompt(&group.prompt)?,
        };
        config.check_prompt(model, &tokens).map_err(|message| {
            let shown: String = group.prompt.chars().take(60).collect();
            let message = format!("the prompt `{shown}` {message}");
            TrainError::from(ModelError::Generation { message })
        })?;
        Ok(tokens)
    };
    groups.iter().map(encode).collect()
}

/// Generates a text for each group's prompt, `batch` at a time, the shortest first for little padding. Ranks share the batches, and
/// all have all texts. `progress` receives the number of finished prompts.
///
/// # Errors
/// If a prompt is empty or too long, or the device fails.
pub fn generate_texts<M: CausalLm>(
    model: &M,
    tokenizer: &Tokenizer,
    (groups, batch): (&[ReferenceGroup], usize),
    config: GenerationConfig,
    ranks: &dyn Ranks,
    mut progress: impl FnMut(usize),
) -> Result<Vec<GeneratedText>, TrainError> {
    let device = model.device();
    let prompts = encode_prompts(model, tokenizer, groups, &config)?;
    let mut prompts: Vec<_> = prompts.into_iter().enumerate().collect();
    prompts.sort_by_key(|(_, tokens)| tokens.len());
    let mut own: Vec<(usize, String)> = Vec::new();
    let mut done = 0;
    for (number, chunk) in prompts.chunks(batch.max(1)).enumerate() {
        if number % ranks.size() == ranks.rank() {
            let tokens: Vec<Vec<u32>> = chunk.iter().map(|(_, tokens)| tokens.clone()).collect();
            let mut generator = Generator::new(model, config.clone(), &device).with_first(done);
            let generated = generator.generate(&tokens)?;
            for ((index, _), output) in chunk.iter().zip(generated) {
                let text = tokenizer.decode(&output.tokens, true)?;
                own.push((*index, text.trim().to_string()));
            }
        }
        done += chunk.len();
        progress(done);
    }
    let texts = gathered(own, groups.len(), ranks)?;
    let texts = groups.iter().zip(texts).map(|(group, text)| GeneratedText {
        prompt: group.prompt.clone(),
        text,
        references: group.references.clone(),
        id: group.id.clone(),
    });
    Ok(texts.collect())
}

/// Returns the texts of all ranks in order, from the texts of this rank with their places.
fn gathered(
    own: Vec<(usize, String)>,
    texts: usize,
    ranks: &dyn Ranks,
) -> Result<Vec<String>, TrainError> {
    let mut all = vec![String::new(); texts];
    for (index, text) in gather_results(ranks, own)? {
        if let Some(place) = all.get_mut(index) {
            *place = text;
        }
    }
    Ok(all)
}
