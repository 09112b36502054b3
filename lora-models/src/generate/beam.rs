//! Beams of one prompt, running and complete.
//!
//! The search is `_beam_search` of transformers 5 without its tensors, which hold missing beams with a score of -10⁹.

use super::config::{BeamSearch, EarlyStopping, GenerationConfig};
use super::rules::RowRules;

/// Running beam.
#[derive(Clone, Debug)]
pub(super) struct Beam {
    /// Generated tokens.
    pub(super) tokens: Vec<u32>,
    /// Sum of the tokens' log-probabilities.
    pub(super) log_probability: f64,
    /// Index of the continued row among this prompt's rows of the step before.
    pub(super) parent: usize,
}

/// Complete continuation.
#[derive(Clone, Debug)]
pub(super) struct Complete {
    pub(super) tokens: Vec<u32>,
    /// Log-probability over length to the power of the length penalty.
    pub(super) score: f64,
    /// True if the continuation ended with a stop token, false if it reached the maximum length.
    pub(super) stopped: bool,
}

/// Options of a search, for every prompt.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) search: BeamSearch,
    pub(super) config: &'a GenerationConfig,
}

impl Rules<'_> {
    /// Returns the number of continuations that a step considers: enough that `beams` of them do not end, even if they
    /// include every stop token of every beam.
    fn candidates(&self) -> usize {
        let each = (1 + self.config.stop_tokens.len()).max(2);
        self.search.beams.saturating_mul(each)
    }

    fn score(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / (length as f64).powf(self.search.length_penalty)
    }
}

/// Search for one prompt.
pub(super) struct Beams {
    /// Running beams, best first. Before the first step, one without tokens.
    pub(super) running: Vec<Beam>,
    /// Complete continuations, best first, at most as many as beams.
    complete: Vec<Complete>,
}

struct Candidate {
    beam: usize,
    token: u32,
    log_probability: f64,
}

impl Beams {
    pub(super) fn new() -> Self {
        Self {
            running: vec![Beam {
                tokens: Vec::new(),
                log_probability: 0.0,
                parent: 0,
            }],
            complete: Vec::new(),
        }
    }

    /// Extends every running beam by a token, and returns true if the search continues.
    ///
    /// `logits` holds a row `[vocab]` for each running beam; `prompt` is part of the history that rules look at.
    pub(super) fn advance(&mut self, prompt: &[u32], logits: &[Vec<f32>], rules: &Rules) -> bool {
        let length = self.running.first().map_or(0, |beam| beam.tokens.len()) + 1;
        let room = rules.config.room(prompt.len());
        let is_last = length >= room;
        let beams = rules.search.beams;
        let mut running = Vec::with_capacity(beams);
        for (rank, candidate) in self.best(prompt, logits, rules).into_iter().enumerate() {
            let parent = candidate.beam;
            let mut tokens = self.running[parent].tokens.clone();
            tokens.push(candidate.token);
            let stopped = rules.config.stop_tokens.contains(&candidate.token);
            if stopped || is_last {
                // Candidates ranked after the beams may only be extended, not complete.
                if rank < beams {
                    self.complete.push(Complete {
                        score: rules.score(candidate.log_probability, length),
                        tokens,
                        stopped,
                    });
                }
            } else if running.len() < beams {
                running.push(Beam {
                    tokens,
                    log_probability: candidate.log_probability,
                    parent,
                });
            }
        }
        // The sort is stable: among equals, the first to complete stays first.
        self.complete.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.complete.truncate(beams);
        if running.is_empty() && self.complete.is_empty() {
            return false; // No token may follow: the tokens so far are the result.
        }
        self.running = running;
        !is_last && self.can_improve(length, room, rules)
    }

    /// Returns the best complete continuation, or else the best running beam as it is.
    pub(super) fn finish(self, rules: &Rules) -> Option<Complete> {
        let running = self.running.into_iter().map(|beam| Complete {
            score: rules.score(beam.log_probability, beam.tokens.len().max(1)),
            tokens: beam.tokens,
            stopped: false,
        });
        self.complete.into_iter().chain(running).next()
    }

    fn can_improve(&self, length: usize, room: usize, rules: &Rules) -> bool {
        let Some(best) = self.running.first() else {
            return false;
        };
        let worst = match self.complete.get(rules.search.beams - 1) {
            None => return true,
            Some(worst) => worst.score,
        };
        match rules.search.early_stopping {
            EarlyStopping::WhenFull => false,
            EarlyStopping::WhenUnlikely => rules.score(best.log_probability, length) > worst,
            EarlyStopping::WhenImpossible => {
                // A penalty above 0 favors long continuations.
                let favors_long = rules.search.length_penalty > 0.0;
                let length = if favors_long { room } else { length };
                rules.score(best.log_probability, length) > worst
            }
        }
    }

    /// Returns the best extensions by one token over all beams, best first.
    fn best(&self, prompt: &[u32], logits: &[Vec<f32>], rules: &Rules) -> Vec<Candidate> {
        // There are no more candidates than tokens, however many a model's stop tokens ask for.
        let tokens = logits.iter().map(Vec::len).sum();
        let count = rules.candidates().min(tokens).max(1);
        let mut best: Vec<Candidate> = Vec::with_capacity(count + 1);
        for (beam, (running, logits)) in self.running.iter().zip(logits).enumerate() {
            let history = [prompt, &running.tokens].concat();
            let row = RowRules {
                rules: &rules.config.rules,
                no_repeat_ngram_size: rules.config.no_repeat_ngram_size,
                stop_tokens: &rules.config.stop_tokens,
                prompt: prompt.len(),
                room: rules.config.room(prompt.len()),
            };
            let sum = log_sum_exp(logits);
            let mut scores: Vec<f32> = logits
                .iter()
                .map(|logit| (f64::from(*logit) - sum) as f32)
                .collect();
            row.apply(&history, &mut scores);
            for (token, &score) in scores.iter().enumerate() {
                let log_probability = running.log_probability + f64::from(score);
                // A full list has a worst candidate to beat; a list with room takes any possible token.
                let worst = best.get(count - 1);
                let worst = worst.map_or(f64::NEG_INFINITY, |worst| worst.log_probability);
                if log_probability.is_nan() || log_probability <= worst {
                    continue;
                }
                let token = token as u32;
                let at = best.partition_point(|c| c.log_probability >= log_probability);
                best.insert(
                    at,
                    Candidate {
                        beam,
                        token,
                        log_probability,
                    },
                );
                best.truncate(count);
            }
        }
        best
    }
}

/// Computes `ln Σ exp` of a row.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from((logit - max).exp()))
        .sum();
    f64::from(max) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_new_tokens: usize) -> GenerationConfig {
        GenerationConfig::new(max_new_tokens).with_stop_tokens([0])
    }

    fn rules(beams: usize, config: &GenerationConfig, early_stopping: EarlyStopping) -> Rules<'_> {
        Rules {
            search: BeamSearch {
                beams,
                length_penalty: 1.0,
                early_stopping,
            },
            config,
        }
    }

    /// Returns logits for these probabilities.
    fn row(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() + 3.0).collect()
    }

    fn running(beams: &Beams) -> Vec<&[u32]> {
        beams
            .running
            .iter()
            .map(|beam| beam.tokens.as_slice())
            .collect()
    }

    #[test]
    fn the_first_step_spreads_and_the_next_compares_all_beams() {
        let config = config(3);
        let rules = rules(2, &config, EarlyStopping::WhenUnlikely);
        let mut beams = Beams::new();
        assert!(beams.advance(&[], &[row(&[0.1, 0.5, 0.4])], &rules));
        assert_eq!(running(&beams), [&[1], &[2]]);
        // 0.4 · 0.9 = 0.36 beats 0.5 · 0.5 = 0.25.
        let logits = [row(&[0.0, 0.5, 0.5]), row(&[0.0, 0.9, 0.1])];
        assert!(beams.advance(&[], &logits, &rules));
        assert_eq!(running(&beams), [&[2, 1], &[1, 1]]);
        assert_eq!(beams.running[0].parent, 1);
        assert!((beams.running[0].log_probability - 0.36f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn a_stop_token_completes_only_among_the_best() {
        let config = config(9);
        let rules = rules(2, &config, EarlyStopping::WhenUnlikely);
        let mut beams = Beams::new();
        // The stop token is third: it is not complete, and not followed up.
        beams.advance(&[], &[row(&[0.2, 0.5, 0.3])], &rules);
        assert!(beams.complete.is_empty());
        assert_eq!(running(&beams), [&[1], &[2]]);
        // Now it is first of one beam, and the other two fill up.
        beams.advance(
            &[],
            &[row(&[0.9, 0.06, 0.04]), row(&[0.0, 0.6, 0.4])],
            &rules,
        );
        assert_eq!(beams.complete[0].tokens, [1, 0]);
        assert!((beams.complete[0].score - 0.45f64.ln() / 2.0).abs() < 1e-6);
        assert_eq!(running(&beams), [&[2, 1], &[2, 2]]);
    }

    #[test]
    fn a_full_search_ends_at_once_or_when_it_cannot_improve() {
        let first = [row(&[0.6, 0.4, 0.0])];
        let config = config(9);
        let mut full = Beams::new();
        assert!(!full.advance(&[], &first, &rules(1, &config, EarlyStopping::WhenFull)));
        // Complete with ln 0.6; ln 0.4 is worse, so this one does not go on either.
        let mut unlikely = Beams::new();
        assert!(!unlikely.advance(&[], &first, &rules(1, &config, EarlyStopping::WhenUnlikely)));
        // Nothing is complete where the stop token is not among the best.
        let second = [row(&[0.4, 0.6, 0.0])];
        let rules = rules(1, &config, EarlyStopping::WhenFull);
        let mut open = Beams::new();
        assert!(open.advance(&[], &second, &rules));
        assert_eq!(open.finish(&rules).unwrap().tokens, [1]);
    }

    #[test]
    fn a_search_that_never_ends_early_hopes_for_the_longest_text() {
        let config = config(9);
        let search = |early_stopping| {
            let rules = rules(1, &config, early_stopping);
            let mut beams = Beams::new();
            beams.advance(&[], &[row(&[0.0, 0.9, 0.1])], &rules);
            // The stop token completes with ln 0.54 / 2; ln 0.36 / 2 is worse, but ln 0.36 / 9 would be better.
            beams.advance(&[], &[row(&[0.6, 0.4, 0.0])], &rules)
        };
        assert!(!search(EarlyStopping::WhenUnlikely));
        assert!(search(EarlyStopping::WhenImpossible));
    }

    #[test]
    fn the_last_step_completes_what_is_best() {
        let config = config(1);
        let rules = rules(2, &config, EarlyStopping::WhenUnlikely);
        let mut beams = Beams::new();
        assert!(!beams.advance(&[], &[row(&[0.1, 0.3, 0.6])], &rules));
        let best = beams.finish(&rules).unwrap();
        assert_eq!((best.tokens, best.stopped), (vec![2], false));
    }

    #[test]
    fn a_search_with_nothing_left_to_say_ends() {
        let config = config(9).with_no_repeat_ngram_size(1);
        let rules = rules(2, &config, EarlyStopping::WhenUnlikely);
        let mut beams = Beams::new();
        assert!(beams.advance(&[0, 2], &[row(&[0.1, 0.7, 0.2])], &rules));
        assert!(!beams.advance(&[0, 2], &[row(&[0.1, 0.7, 0.2])], &rules));
        assert_eq!(beams.finish(&rules).unwrap().tokens, [1]);
    }

    #[test]
    fn sequences_that_came_before_are_not_candidates() {
        let config = config(9).with_no_repeat_ngram_size(2);
        let rules = rules(1, &config, EarlyStopping::WhenUnlikely);
        let mut beams = Beams::new();
        beams.advance(&[2, 1, 2], &[row(&[0.1, 0.7, 0.2])], &rules);
        // 2 1 was there; the probability of the other is not changed by that.
        assert_eq!(running(&beams), [&[2]]);
        assert!((beams.running[0].log_probability - 0.2f64.ln()).abs() < 1e-6);
    }
}
