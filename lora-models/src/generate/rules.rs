//! Rules on the choice of tokens, applied to a row of scores.

use super::ngram::banned;
use crate::ModelError;

/// Rules on the choice of tokens beside [`no_repeat_ngram_size`](super::GenerationConfig::no_repeat_ngram_size), as
/// transformers' processors of logits have them.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenRules {
    /// Divisor of the scores of tokens that came before, prompt included; above 1 they become less likely (Keskar et al. 2019,
    /// arXiv 1909.05858). A negative score is multiplied instead. Default: 1.
    pub repetition_penalty: f64,
    /// Sequences of tokens that do not occur. A single stop token among them counts as absent. Default: none.
    pub bad_words: Vec<Vec<u32>>,
    /// Length of prompt and continuation together before which no stop token is chosen. Default: 0.
    pub min_length: usize,
    /// Number of generated tokens before which no stop token is chosen. Default: 0.
    pub min_new_tokens: usize,
    /// Token that follows a prompt of one token. Default: none.
    pub forced_first: Option<u32>,
    /// Tokens, one of which is the last at the maximum length. Default: none.
    pub forced_last: Vec<u32>,
    /// Tokens that are never chosen. Default: none.
    pub suppressed: Vec<u32>,
    /// Tokens that are not chosen at the start of a continuation. Default: none.
    pub suppressed_first: Vec<u32>,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            bad_words: Vec::new(),
            min_length: 0,
            min_new_tokens: 0,
            forced_first: None,
            forced_last: Vec::new(),
            suppressed: Vec::new(),
            suppressed_first: Vec::new(),
        }
    }
}

impl TokenRules {
    pub(super) fn validate(&self) -> Result<(), ModelError> {
        let penalty = self.repetition_penalty;
        ensure(penalty.is_finite() && penalty > 0.0, || {
            format!("repetition_penalty is {penalty}, expected a number above 0")
        })?;
        ensure(self.bad_words.iter().all(|word| !word.is_empty()), || {
            "bad_words has a sequence without tokens".into()
        })
    }
}

/// All rules of a row: those of the options, with the length of its prompt.
#[derive(Clone, Copy)]
pub(super) struct RowRules<'a> {
    pub(super) rules: &'a TokenRules,
    pub(super) no_repeat_ngram_size: usize,
    pub(super) stop_tokens: &'a [u32],
    /// Length of the prompt in tokens.
    pub(super) prompt: usize,
    /// Maximum number of tokens after the prompt.
    pub(super) room: usize,
}

impl RowRules<'_> {
    /// Returns true if no rule changes a score.
    pub(super) fn are_none(&self) -> bool {
        self.no_repeat_ngram_size == 0 && *self.rules == TokenRules::default()
    }

    /// Changes the scores of the token after `history`, which are logits or log-probabilities. The rules apply in
    /// transformers' order.
    pub(super) fn apply(&self, history: &[u32], scores: &mut [f32]) {
        let rules = self.rules;
        if rules.repetition_penalty != 1.0 {
            let mut seen: Vec<u32> = history.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                if let Some(score) = scores.get_mut(token as usize) {
                    let penalty = rules.repetition_penalty as f32;
                    *score = if *score < 0.0 {
                        *score * penalty
                    } else {
                        *score / penalty
                    };
                }
            }
        }
        ban(scores, &banned(history, self.no_repeat_ngram_size));
        for word in &rules.bad_words {
            let Some((last, start)) = word.split_last() else {
                continue;
            };
            let is_stop = start.is_empty() && self.stop_tokens.contains(last);
            if !is_stop && history.ends_with(start) {
                ban(scores, &[*last]);
            }
        }
        let new = history.len() - self.prompt;
        if history.len() < rules.min_length || new < rules.min_new_tokens {
            ban(scores, self.stop_tokens);
        }
        if let (Some(first), 1) = (rules.forced_first, history.len()) {
            force(scores, &[first]);
        }
        if !rules.forced_last.is_empty() && new + 1 == self.room {
            force(scores, &rules.forced_last);
        }
        ban(scores, &rules.suppressed);
        let forced = usize::from(self.prompt <= 1 && rules.forced_first.is_some());
        if new == forced {
            ban(scores, &rules.suppressed_first);
        }
    }
}

/// Returns [`ModelError::Generation`] with this message unless the condition holds.
pub(super) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), ModelError> {
    if holds {
        return Ok(());
    }
    let message = message();
    Err(ModelError::Generation { message })
}

/// Makes tokens impossible.
fn ban(scores: &mut [f32], tokens: &[u32]) {
    for &token in tokens {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Makes all other tokens impossible.
fn force(scores: &mut [f32], tokens: &[u32]) {
    scores.fill(f32::NEG_INFINITY);
    for &token in tokens {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f32 = f32::NEG_INFINITY;

    fn scores(rules: &TokenRules, history: &[u32], prompt: usize) -> Vec<f32> {
        let mut scores = vec![-1.0, 2.0, 3.0, -4.0];
        let row = RowRules {
            rules,
            no_repeat_ngram_size: 0,
            stop_tokens: &[0],
            prompt,
            room: 3,
        };
        row.apply(history, &mut scores);
        scores
    }

    #[test]
    fn tokens_that_came_before_are_less_likely_once() {
        let rules = TokenRules {
            repetition_penalty: 2.0,
            ..TokenRules::default()
        };
        assert_eq!(scores(&rules, &[3, 1, 1], 1), [-1.0, 1.0, 3.0, -8.0]);
    }

    #[test]
    fn a_bad_word_is_banned_where_it_would_be_complete() {
        let rules = TokenRules {
            bad_words: vec![vec![3], vec![1, 2], vec![0]],
            ..TokenRules::default()
        };
        assert_eq!(scores(&rules, &[1], 1), [-1.0, 2.0, NONE, NONE]);
        assert_eq!(scores(&rules, &[2], 1), [-1.0, 2.0, 3.0, NONE]);
    }

    #[test]
    fn short_texts_do_not_stop() {
        let least = |min_length, min_new_tokens| TokenRules {
            min_length,
            min_new_tokens,
            ..TokenRules::default()
        };
        assert_eq!(scores(&least(4, 0), &[1, 1, 1], 2)[0], NONE);
        assert_eq!(scores(&least(3, 1), &[1, 1, 1], 2)[0], -1.0);
        assert_eq!(scores(&least(0, 2), &[1, 1, 1], 2)[0], NONE);
    }

    #[test]
    fn forced_tokens_are_the_only_ones_at_their_place() {
        let rules = TokenRules {
            forced_first: Some(3),
            forced_last: vec![1, 2],
            suppressed_first: vec![1],
            ..TokenRules::default()
        };
        assert_eq!(scores(&rules, &[1], 1), [NONE, NONE, NONE, 0.0]);
        assert_eq!(scores(&rules, &[1, 3], 1), [-1.0, NONE, 3.0, -4.0]);
        assert_eq!(scores(&rules, &[1, 3, 2], 1), [NONE, 0.0, 0.0, NONE]);
        assert_eq!(scores(&rules, &[1, 1], 2), [-1.0, NONE, 3.0, -4.0]);
    }
}
