//! Settings for text generation by the keys of `generation_config.json`, as options of a generator.

use super::config::{BeamSearch, EarlyStopping, GenerationConfig, Sampling, Strategy};
use super::rules::TokenRules;
use crate::ModelError;
use serde_json::{Value, json};

/// Settings for text generation, by the keys of `generation_config.json`; `None` and empty lists if they are not said.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the keys of transformers")]
pub struct GenerationSettings {
    pub max_length: Option<usize>,
    pub max_new_tokens: Option<usize>,
    pub do_sample: Option<bool>,
    pub num_beams: Option<usize>,
    pub early_stopping: Option<EarlyStopping>,
    pub length_penalty: Option<f64>,
    pub temperature: Option<f64>,
    /// Number of most likely tokens to sample from; 0 stands for all.
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub typical_p: Option<f64>,
    pub epsilon_cutoff: Option<f64>,
    pub eta_cutoff: Option<f64>,
    pub no_repeat_ngram_size: Option<usize>,
    pub repetition_penalty: Option<f64>,
    pub bad_words_ids: Vec<Vec<u32>>,
    pub min_length: Option<usize>,
    pub min_new_tokens: Option<usize>,
    pub forced_bos_token_id: Option<u32>,
    pub forced_eos_token_id: Vec<u32>,
    pub suppress_tokens: Vec<u32>,
    pub begin_suppress_tokens: Vec<u32>,
    pub eos_token_id: Option<Vec<u32>>,
}

impl GenerationSettings {
    /// Returns the options of a generator: at most `usual` new tokens unless a length is said, draws by `seed`, and the stop
    /// tokens of the settings.
    ///
    /// # Errors
    /// [`ModelError::Generation`] for sampling with several beams, and for an option out of its range.
    pub fn config(&self, usual: usize, seed: u64) -> Result<GenerationConfig, ModelError> {
        let sampling = Sampling::default();
        let search = BeamSearch::default();
        let strategy = match (self.samples(), self.beams()) {
            (true, 2..) => {
                let message = "do_sample and num_beams: sampling with several beams is not supported; choose one";
                return Err(ModelError::Generation {
                    message: message.into(),
                });
            }
            (true, _) => Strategy::Sample(Sampling {
                temperature: self.temperature.unwrap_or(sampling.temperature),
                top_k: self.top_k.filter(|&k| k > 0),
                top_p: self.top_p.unwrap_or(sampling.top_p),
                min_p: self.min_p.unwrap_or(sampling.min_p),
                typical_p: self.typical_p.unwrap_or(sampling.typical_p),
                epsilon_cutoff: self.epsilon_cutoff.unwrap_or(sampling.epsilon_cutoff),
                eta_cutoff: self.eta_cutoff.unwrap_or(sampling.eta_cutoff),
                seed,
            }),
            (false, 2..) => Strategy::Beam(BeamSearch {
                beams: self.beams(),
                length_penalty: self.length_penalty.unwrap_or(search.length_penalty),
                early_stopping: self.early_stopping.unwrap_or(search.early_stopping),
            }),
            (false, 1) => Strategy::Greedy,
            (false, 0) => {
                return Err(ModelError::Generation {
                    message: "num_beams is 0, expected at least 1".into(),
                });
            }
        };
        let rules = TokenRules {
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            bad_words: self.bad_words_ids.clone(),
            min_length: match self.min_new_tokens {
                Some(_) => 0,
                None => self.min_length.unwrap_or(0),
            },
            min_new_tokens: self.min_new_tokens.unwrap_or(0),
            forced_first: self.forced_bos_token_id,
            forced_last: self.forced_eos_token_id.clone(),
            suppressed: self.suppress_tokens.clone(),
            suppressed_first: self.begin_suppress_tokens.clone(),
        };
        let (new, length) = match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => (new, None),
            (None, Some(length)) => (length, Some(length)),
            (None, None) => (usual, None),
        };
        let config = GenerationConfig::new(new)
            .with_max_length(length)
            .with_strategy(strategy)
            .with_no_repeat_ngram_size(self.no_repeat_ngram_size.unwrap_or(0))
            .with_rules(rules)
            .with_stop_tokens(self.eos_token_id.iter().flatten().copied());
        config.validate()?;
        Ok(config)
    }

    /// Returns the settings with an effect, by key.
    pub fn entries(&self) -> Vec<(&'static str, Value)> {
        let number = |value: Option<f64>, neutral: f64| match value {
            Some(value) if value != neutral => json!(value),
            _ => Value::Null,
        };
        let count = |value: Option<usize>| json!(value.filter(|&count| count > 0));
        let list = |ids: &[u32]| match ids {
            [] => Value::Null,
            ids => json!(ids),
        };
        let mut entries = vec![];
        if self.samples() {
            entries.extend([
                ("do_sample", json!(true)),
                ("temperature", number(self.temperature, 1.0)),
                ("top_k", count(self.top_k)),
                ("top_p", number(self.top_p, 1.0)),
                ("min_p", number(self.min_p, 0.0)),
                ("typical_p", number(self.typical_p, 1.0)),
                ("epsilon_cutoff", number(self.epsilon_cutoff, 0.0)),
                ("eta_cutoff", number(self.eta_cutoff, 0.0)),
            ]);
        } else if self.beams() > 1 {
            let early_stopping = match self.early_stopping {
                Some(EarlyStopping::WhenFull) => json!(true),
                Some(EarlyStopping::WhenImpossible) => json!("never"),
                _ => Value::Null,
            };
            entries.extend([
                ("num_beams", json!(self.beams())),
                ("length_penalty", number(self.length_penalty, 1.0)),
                ("early_stopping", early_stopping),
            ]);
        }
        let max_length = self.max_length.filter(|_| self.max_new_tokens.is_none());
        let min_length = self.min_length.filter(|_| self.min_new_tokens.is_none());
        let bad_words = match &self.bad_words_ids[..] {
            [] => Value::Null,
            words => json!(words),
        };
        entries.extend([
            ("max_new_tokens", json!(self.max_new_tokens)),
            ("max_length", json!(max_length)),
            ("min_new_tokens", count(self.min_new_tokens)),
            ("min_length", count(min_length)),
            ("no_repeat_ngram_size", count(self.no_repeat_ngram_size)),
            ("repetition_penalty", number(self.repetition_penalty, 1.0)),
            ("bad_words_ids", bad_words),
            ("forced_bos_token_id", json!(self.forced_bos_token_id)),
            ("forced_eos_token_id", list(&self.forced_eos_token_id)),
            ("suppress_tokens", list(&self.suppress_tokens)),
            ("begin_suppress_tokens", list(&self.begin_suppress_tokens)),
            ("eos_token_id", json!(self.eos_token_id)),
        ]);
        entries.retain(|(_, value)| !value.is_null());
        entries
    }

    fn samples(&self) -> bool {
        self.do_sample == Some(true)
    }

    fn beams(&self) -> usize {
        self.num_beams.unwrap_or(1)
    }
}
