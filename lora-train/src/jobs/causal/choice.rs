//! Choice of tokens in text generation: options of the command, and settings that come with the model.

use crate::TrainError;
use crate::jobs::session::Base;
use crate::options::{DecodingOptions, unescape};
use crate::progress::Screen;
use clap::Args;
use lora_models::generate::{GenerationConfig, GenerationSettings};
use serde_json::Value;

/// Maximum number of tokens to generate, where neither options nor model say one.
pub(super) const NEW_TOKENS: usize = 64;
/// Maximum number of tokens of an answer in a conversation, where neither options nor model say one.
pub(super) const ANSWER_TOKENS: usize = 512;

/// Options for the choice of tokens. They win over the settings that come with the model.
#[derive(Args, Clone, Debug, Default)]
pub struct SamplingOptions {
    /// Choose the most likely token, whatever the model's settings for generation say.
    #[arg(long, conflicts_with_all = ["beams", "temperature", "top_k", "top_p", "min_p"])]
    pub greedy: bool,
    /// Draw tokens at random, with probabilities sharpened (below 1) or flattened (above 1) [default: the model's, else the most likely token].
    #[arg(long, value_name = "X", conflicts_with = "beams")]
    pub temperature: Option<f64>,
    /// Draw only from this many most likely tokens; 0 stands for all.
    #[arg(long, value_name = "N", conflicts_with = "beams")]
    pub top_k: Option<usize>,
    /// Draw only from the most likely tokens that have this probability together, in (0, 1].
    #[arg(long, value_name = "P", conflicts_with = "beams")]
    pub top_p: Option<f64>,
    /// Draw only from the tokens with at least this share of the probability of the most likely one, in [0, 1].
    #[arg(long, value_name = "P", conflicts_with = "beams")]
    pub min_p: Option<f64>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Number of beams of a beam search; 1 is greedy.
    #[arg(long, value_name = "N")]
    pub beams: Option<usize>,
    /// Exponent of the length by which a beam's score is divided.
    #[arg(long, value_name = "X", requires = "beams")]
    pub length_penalty: Option<f64>,
    /// Length of the n-grams that may not repeat; 0 allows any repetition [default: the model's, else 0].
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram: Option<usize>,
    /// Divisor of the scores of tokens that came before; above 1 they become less likely [default: the model's, else 1].
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f64>,
    /// Number of tokens before which no stop token is chosen [default: the model's, else 0].
    #[arg(long, value_name = "N")]
    pub min_new_tokens: Option<usize>,
    /// Token that ends a text, too, by its text, such as `\n\n`; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    pub stop_token: Vec<String>,
    /// Take only the stop tokens from the settings for generation that come with the model.
    #[arg(long)]
    pub ignore_generation_config: bool,
}

/// Reaction to a setting of the model without support.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsupported {
    /// An error.
    Refuse,
    /// A warning; only the stop tokens are taken then.
    Warn,
}

impl SamplingOptions {
    /// Creates the options of the texts of an evaluation.
    pub(super) fn of_evaluation(
        beams: Option<usize>,
        decoding: &DecodingOptions,
        seed: u64,
    ) -> Self {
        Self {
            beams,
            length_penalty: decoding.length_penalty,
            no_repeat_ngram: decoding.no_repeat_ngram,
            stop_token: decoding.stop_token.clone().unwrap_or_default(),
            seed,
            ..Self::default()
        }
    }

    /// Returns the ids of the stop tokens that the options name.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a text that is not one token.
    pub(super) fn stop_ids(&self, base: &Base) -> Result<Vec<u32>, TrainError> {
        let id = |text: &String| match base.tokenizer.encode(text)?[..] {
            [id] => Ok(id),
            ref ids => {
                let message = format!(
                    "{text:?} is {} tokens of this tokenizer, and only a single token can end a text",
                    ids.len()
                );
                Err(TrainError::config("stop_token", message))
            }
        };
        self.stop_token.iter().map(id).collect()
    }

    /// Replaces the settings that the options name.
    fn override_in(&self, settings: &mut GenerationSettings) {
        let draws = self.temperature.or(self.top_p).or(self.min_p).is_some();
        if draws || self.top_k.is_some() {
            if settings.do_sample != Some(true) && settings.top_k.is_none() {
                settings.top_k = Some(0);
            }
            (settings.do_sample, settings.num_beams) = (Some(true), None);
        }
        if self.greedy || self.beams.is_some() {
            (settings.do_sample, settings.num_beams) = (None, self.beams);
        }
        fn set<T: Copy>(slot: &mut Option<T>, option: Option<T>) {
            *slot = option.or(*slot);
        }
        set(&mut settings.temperature, self.temperature);
        set(&mut settings.top_k, self.top_k);
        set(&mut settings.top_p, self.top_p);
        set(&mut settings.min_p, self.min_p);
        set(&mut settings.length_penalty, self.length_penalty);
        set(&mut settings.no_repeat_ngram_size, self.no_repeat_ngram);
        set(&mut settings.repetition_penalty, self.repetition_penalty);
        set(&mut settings.min_new_tokens, self.min_new_tokens);
    }
}

/// Returns the options of a generator: those of the command, else the settings that come with the model, of which a line
/// tells.
pub(super) fn generation_config(
    base: &Base,
    options: &SamplingOptions,
    max_new_tokens: Option<usize>,
    unsupported: Unsupported,
    screen: &Screen,
) -> Result<GenerationConfig, TrainError> {
    let new = (max_new_tokens, NEW_TOKENS);
    generation_config_for(base, options, new, unsupported, screen)
}

/// Returns the options of a generator, as [`generation_config`], with another usual number of tokens beside the asked one.
pub(super) fn generation_config_for(
    base: &Base,
    options: &SamplingOptions,
    (max_new_tokens, usual_new_tokens): (Option<usize>, usize),
    unsupported: Unsupported,
    screen: &Screen,
) -> Result<GenerationConfig, TrainError> {
    let file = base.generation.as_ref();
    let stop_tokens = || file.map(|file| file.stop_tokens()).transpose();
    let own = if options.ignore_generation_config {
        stop_tokens()?
    } else {
        match file.map(|file| file.settings()).transpose() {
            Err(error) if unsupported == Unsupported::Warn => {
                screen.line(&format!("warning: {error}"));
                stop_tokens()?
            }
            settings => settings?,
        }
    };
    let mut own = own.unwrap_or_default();
    let usual: Vec<u32> = base.eos_id().into_iter().collect();
    let stop_tokens = own.eos_token_id.get_or_insert_with(|| usual.clone());
    let misses = usual.iter().find(|id| !stop_tokens.contains(id));
    let misses = misses.map(|&id| base.tokenizer.id_to_token(id).unwrap_or_default());
    let mut settings = own.clone();
    options.override_in(&mut settings);
    let stop_ids = options.stop_ids(base)?;
    let stops = settings.eos_token_id.get_or_insert_default();
    stops.extend(stop_ids);
    if max_new_tokens.is_some() {
        settings.max_new_tokens = max_new_tokens;
    }
    let used = settings.entries();
    let mut taken = own.entries();
    taken.retain(|entry| {
        let is_usual = entry.0 == "eos_token_id" && own.eos_token_id.as_ref() == Some(&usual);
        used.contains(entry) && !is_usual
    });
    if let (Some(file), false) = (file, taken.is_empty()) {
        let of_stops = file.name_of_stop_tokens()?;
        let named = |(key, value): &(&str, Value)| {
            let other = *key == "eos_token_id" && of_stops != file.name();
            let from = if other {
                format!(" ({of_stops})")
            } else {
                String::new()
            };
            format!("{key} {value}{from}")
        };
        let taken: Vec<String> = taken.iter().map(named).collect();
        let misses = misses
            .map(|token| format!("; {token} does not end a text, although training puts it there"));
        screen.line(&format!(
            "generation {}: {}{}",
            file.name(),
            taken.join(", "),
            misses.unwrap_or_default()
        ));
    }
    Ok(settings
        .config(usual_new_tokens, options.seed)?
        .with_pad_id(base.pad_id())
        .with_pad_to_multiple_of(base.pad_to_multiple_of))
}
