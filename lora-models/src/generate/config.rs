//! Options of text generation.

use super::CausalModel;
use super::rules::{TokenRules, ensure};
use crate::ModelError;

/// Choice of the next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The most likely token.
    Greedy,
    /// A random token, drawn by its probability.
    Sample(Sampling),
    /// The most likely sequence that a search of limited width finds.
    Beam(BeamSearch),
}

/// Options of sampling; the filters apply in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits, above 0; below 1 the choice is less random. Default: 1.
    pub temperature: f64,
    /// Number of most likely tokens that are kept, and those as likely as the last of them. Default: all.
    pub top_k: Option<usize>,
    /// Probability in (0, 1] that the most likely tokens which are kept have together (Holtzman et al. 2020,
    /// arXiv 1904.09751). Default: 1, all tokens.
    pub top_p: f64,
    /// Probability, as a share of that of the most likely token, below which tokens are dropped (Nguyen et al. 2024,
    /// arXiv 2407.01082). Default: 0, no token.
    pub min_p: f64,
    /// Probability in (0, 1] of the tokens that are kept because their surprise is closest to the expected one (Meister et al.
    /// 2022, arXiv 2202.00666). Default: 1, all tokens.
    pub typical_p: f64,
    /// Probability below which tokens are dropped (Hewitt et al. 2022, arXiv 2210.15191). Default: 0, no token.
    pub epsilon_cutoff: f64,
    /// Like `epsilon_cutoff`, with a limit that falls with the entropy. Default: 0, no token.
    pub eta_cutoff: f64,
    /// Seed of the draws, which depend only on it and on the prompt's index. Default: 0.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            seed: 0,
        }
    }
}

/// Options of beam search, as in transformers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamSearch {
    /// Number of beams, from 1 to [`MOST`](Self::MOST). Default: 4.
    pub beams: usize,
    /// Exponent of the length in tokens that a continuation's log-probability is divided by: above 0 it favors long
    /// continuations, below 0 short ones. Default: 1.
    pub length_penalty: f64,
    /// Condition that ends the search.
    pub early_stopping: EarlyStopping,
}

impl Default for BeamSearch {
    fn default() -> Self {
        Self {
            beams: 4,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::WhenUnlikely,
        }
    }
}

/// Condition that ends a beam search before the maximum length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyStopping {
    /// As many complete continuations as beams: `early_stopping=True`.
    WhenFull,
    /// Moreover, the best beam would not beat the worst of them if it ended now: `early_stopping=False`.
    WhenUnlikely,
    /// Moreover, the best beam would not beat the worst of them at the length that favors it most:
    /// `early_stopping="never"`.
    WhenImpossible,
}

/// Options of text generation: strategy, length and stop tokens.
///
/// # Example
/// ```
/// use lora_models::generate::{BeamSearch, GenerationConfig, Strategy};
///
/// // The E2E decoding of Hu et al. 2021.
/// let config = GenerationConfig::new(64)
///     .with_strategy(Strategy::Beam(BeamSearch { beams: 10, length_penalty: 0.9, ..BeamSearch::default() }))
///     .with_no_repeat_ngram_size(4)
///     .with_stop_tokens([50256]);
/// assert_eq!(config.max_new_tokens, 64);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Maximum number of tokens after the prompt, at least 1.
    pub max_new_tokens: usize,
    /// Maximum number of tokens of prompt and continuation together; `None` if only `max_new_tokens` counts. Default: none.
    pub max_length: Option<usize>,
    /// Choice of the next token. Default: greedy.
    pub strategy: Strategy,
    /// Length of the n-grams that may not repeat, prompt included; 0 allows any repetition. Default: 0.
    pub no_repeat_ngram_size: usize,
    /// Other rules on the choice of tokens. Default: none.
    pub rules: TokenRules,
    /// Tokens that end a text. Default: none.
    pub stop_tokens: Vec<u32>,
    /// Padding token of short prompts in a batch; it is masked. Default: 0.
    pub pad_id: u32,
    /// Multiple of tokens to which the prompts of a batch are padded, where the model has the positions. Default: 1.
    pub pad_to_multiple_of: usize,
}

impl GenerationConfig {
    /// Creates options for greedy generation of at most `max_new_tokens`, without stop tokens.
    pub fn new(max_new_tokens: usize) -> Self {
        Self {
            max_new_tokens,
            max_length: None,
            strategy: Strategy::Greedy,
            no_repeat_ngram_size: 0,
            rules: TokenRules::default(),
            stop_tokens: Vec::new(),
            pad_id: 0,
            pad_to_multiple_of: 1,
        }
    }

    /// Sets the choice of the next token.
    pub fn with_strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets the length of the n-grams that may not repeat.
    pub fn with_no_repeat_ngram_size(mut self, size: usize) -> Self {
        self.no_repeat_ngram_size = size;
        self
    }

    /// Sets the maximum number of tokens of prompt and continuation together.
    pub fn with_max_length(mut self, length: Option<usize>) -> Self {
        self.max_length = length;
        self
    }

    /// Sets the other rules on the choice of tokens.
    pub fn with_rules(mut self, rules: TokenRules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets the tokens that end a text.
    pub fn with_stop_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.stop_tokens = tokens.into_iter().collect();
        self
    }

    /// Sets the padding token.
    pub fn with_pad_id(mut self, token: u32) -> Self {
        self.pad_id = token;
        self
    }

    /// Sets the multiple of tokens to which the prompts of a batch are padded.
    pub fn with_pad_to_multiple_of(mut self, multiple: usize) -> Self {
        self.pad_to_multiple_of = multiple;
        self
    }

    /// Returns the number of rows that a prompt has in a batch: its beams, or one.
    pub fn rows(&self) -> usize {
        match self.strategy {
            Strategy::Beam(search) => search.beams,
            _ => 1,
        }
    }

    /// Returns the maximum number of tokens after a prompt of this length.
    pub fn room(&self, prompt: usize) -> usize {
        let room = self.max_length.map(|length| length.saturating_sub(prompt));
        room.map_or(self.max_new_tokens, |room| room.min(self.max_new_tokens))
    }

    /// Checks the options' ranges.
    ///
    /// # Errors
    /// [`ModelError::Generation`] that names the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        ensure(self.max_new_tokens > 0, || {
            "max_new_tokens is 0, expected at least 1".into()
        })?;
        ensure(self.pad_to_multiple_of > 0, || {
            "pad_to_multiple_of is 0, expected at least 1".into()
        })?;
        self.rules.validate()?;
        match self.strategy {
            Strategy::Greedy => Ok(()),
            Strategy::Sample(sampling) => sampling.validate(),
            Strategy::Beam(search) => search.validate(),
        }
    }

    /// Checks options and prompts against a model.
    pub(super) fn validate_for<M: CausalModel>(
        &self,
        model: &M,
        prompts: &[Vec<u32>],
    ) -> Result<(), ModelError> {
        self.validate()?;
        let (found, expected) = (prompts.len(), model.prompts().unwrap_or(prompts.len()));
        ensure(found == expected, || {
            format!("there are {found} prompts and {expected} adapters for them")
        })?;
        for (index, prompt) in prompts.iter().enumerate() {
            self.check_prompt(model, prompt)
                .map_err(|message| ModelError::Generation {
                    message: format!("prompt {index} {message}"),
                })?;
        }
        let vocab = model.vocab_size();
        let pad_id = self.pad_id;
        ensure((pad_id as usize) < vocab, || {
            format!("pad_id {pad_id} is not below the vocabulary's size, {vocab}")
        })
    }

    /// Checks a prompt against a model.
    ///
    /// # Errors
    /// A predicate of which the prompt is the subject, such as `is empty`: the prompt has no token or one that the model does
    /// not know, or leaves no room.
    pub fn check_prompt<M: CausalModel>(&self, model: &M, prompt: &[u32]) -> Result<(), String> {
        let vocab = model.vocab_size();
        if prompt.is_empty() {
            return Err(
                "is empty; begin with the model's first token, such as <|endoftext|>".into(),
            );
        }
        if let Some(token) = prompt.iter().find(|&&token| token as usize >= vocab) {
            return Err(format!(
                "holds token {token}, which is not below the vocabulary's size, {vocab}"
            ));
        }
        let (length, positions) = (prompt.len(), model.max_positions());
        let (new, max) = (self.room(length), self.max_length.unwrap_or(usize::MAX));
        if new == 0 {
            return Err(format!(
                "has {length} tokens, and max_length {max} leaves no room after it; give max_new_tokens"
            ));
        }
        if length.saturating_add(new) <= positions {
            return Ok(());
        }
        let beside_prefix = match model.virtual_tokens() {
            0 => String::new(),
            tokens => format!(" that its prefix of {tokens} virtual tokens leaves"),
        };
        Err(format!(
            "has {length} tokens, which with max_new_tokens {new} are more than the model's {positions} \
             positions{beside_prefix}"
        ))
    }
}

impl Sampling {
    fn validate(&self) -> Result<(), ModelError> {
        let Self { temperature, .. } = self;
        ensure(temperature.is_finite() && *temperature > 0.0, || {
            format!(
                "temperature is {temperature}, expected a number above 0; for the most likely token, choose greedy"
            )
        })?;
        ensure(self.top_k != Some(0), || {
            "top_k is 0, expected at least 1, or none".into()
        })?;
        for (name, p) in [("top_p", self.top_p), ("typical_p", self.typical_p)] {
            ensure(p > 0.0 && p <= 1.0, || {
                format!("{name} is {p}, expected a probability in (0, 1]")
            })?;
        }
        ensure((0.0..=1.0).contains(&self.min_p), || {
            format!("min_p is {}, expected a share in [0, 1]", self.min_p)
        })?;
        let cutoffs = [
            ("epsilon_cutoff", self.epsilon_cutoff),
            ("eta_cutoff", self.eta_cutoff),
        ];
        for (name, p) in cutoffs {
            ensure((0.0..1.0).contains(&p), || {
                format!("{name} is {p}, expected a probability in [0, 1)")
            })?;
        }
        Ok(())
    }
}

impl BeamSearch {
    /// Maximum number of beams. Each is a row of a batch, and the number may come from the file of a model.
    pub const MOST: usize = 1024;

    fn validate(&self) -> Result<(), ModelError> {
        let (beams, penalty) = (self.beams, self.length_penalty);
        ensure((1..=Self::MOST).contains(&beams), || {
            format!("beams is {beams}, expected 1 to {}", Self::MOST)
        })?;
        ensure(penalty.is_finite(), || {
            format!("length_penalty is {penalty}, expected a number")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outside_their_range_are_refused_by_name() {
        let sample = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            GenerationConfig::new(4).with_strategy(Strategy::Sample(sampling))
        };
        let beam = |change: fn(&mut BeamSearch)| {
            let mut search = BeamSearch::default();
            change(&mut search);
            GenerationConfig::new(4).with_strategy(Strategy::Beam(search))
        };
        for (config, name) in [
            (GenerationConfig::new(0), "max_new_tokens"),
            (sample(|s| s.temperature = 0.0), "temperature"),
            (sample(|s| s.temperature = f64::NAN), "temperature"),
            (sample(|s| s.top_k = Some(0)), "top_k"),
            (sample(|s| s.top_p = 0.0), "top_p"),
            (sample(|s| s.top_p = 1.5), "top_p"),
            (beam(|b| b.beams = 0), "beams"),
            (beam(|b| b.beams = usize::MAX), "beams"),
            (beam(|b| b.length_penalty = f64::INFINITY), "length_penalty"),
        ] {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
        assert!(sample(|s| s.top_k = Some(1)).validate().is_ok());
        assert!(beam(|b| b.beams = 1).validate().is_ok());
    }
}
