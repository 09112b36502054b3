//! Choice of a token from a row of logits.

use super::config::Sampling;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Returns the index of the largest value, the first among equals.
pub(super) fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, value) in logits.iter().enumerate() {
        if *value > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// Random draws of tokens for one prompt.
pub(super) struct Sampler {
    options: Sampling,
    rng: StdRng,
}

impl Sampler {
    /// Creates the draws of the prompt at `index`.
    pub(super) fn new(options: Sampling, index: usize) -> Self {
        // Neighboring indices give unrelated draws: the generator's seeding mixes the bits.
        let offset = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            options,
            rng: StdRng::seed_from_u64(options.seed ^ offset),
        }
    }

    /// Draws a token. Tokens with a logit of -∞ are never drawn, unless all have one.
    ///
    /// The filters apply in transformers' order: temperature, top-k, top-p, min-p, typical-p, ε, η.
    pub(super) fn draw(&mut self, logits: &[f32]) -> u32 {
        let temperature = self.options.temperature;
        let mut candidates: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(token, &logit)| (token as u32, f64::from(logit) / temperature))
            .collect();
        self.keep_top_k(&mut candidates);
        to_probabilities(&mut candidates);
        self.keep_top_p(&mut candidates);
        self.keep_min_p(&mut candidates);
        self.keep_typical(&mut candidates);
        self.keep_above_cutoffs(&mut candidates);

        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = self.rng.random::<f64>() * total;
        let mut chosen = most_likely(logits);
        for &(token, weight) in &candidates {
            chosen = token;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        chosen
    }

    fn keep_top_k(&self, candidates: &mut Vec<(u32, f64)>) {
        let Some(k) = self.options.top_k.filter(|&k| k < candidates.len()) else {
            return;
        };
        let mut logits: Vec<f64> = candidates.iter().map(|(_, logit)| *logit).collect();
        let (_, least, _) = logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let least = *least;
        candidates.retain(|(_, logit)| *logit >= least);
    }

    /// Drops the least likely tokens while their total probability is at most 1 - `top_p`; one token stays.
    fn keep_top_p(&self, candidates: &mut Vec<(u32, f64)>) {
        if self.options.top_p >= 1.0 {
            return;
        }
        candidates.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut sum = 0.0;
        let droppable = candidates.len().saturating_sub(1);
        let dropped = candidates[..droppable]
            .iter()
            .take_while(|(_, probability)| {
                sum += probability;
                sum <= 1.0 - self.options.top_p
            });
        let dropped = dropped.count();
        candidates.drain(..dropped);
    }

    /// Drops the tokens that are less likely than this share of the most likely one.
    fn keep_min_p(&self, candidates: &mut Vec<(u32, f64)>) {
        if self.options.min_p > 0.0 {
            let least = self.options.min_p * most_probable(candidates);
            candidates.retain(|(_, p)| *p >= least);
        }
    }

    /// Keeps the tokens whose surprise is closest to the entropy, until they have the probability `typical_p` together.
    fn keep_typical(&self, candidates: &mut Vec<(u32, f64)>) {
        if self.options.typical_p >= 1.0 {
            return;
        }
        normalize(candidates);
        let entropy = entropy(candidates);
        let distance = |p: f64| (-p.ln() - entropy).abs();
        candidates.sort_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
        let mut sum = 0.0;
        let below = candidates.iter().take_while(|(_, p)| {
            sum += p;
            sum < self.options.typical_p
        });
        let last = below.count().min(candidates.len().saturating_sub(1));
        let Some(farthest) = candidates.get(last).map(|(_, p)| distance(*p)) else {
            return;
        };
        candidates.retain(|(_, p)| distance(*p) <= farthest);
    }

    /// Drops the tokens below `epsilon_cutoff`, then those below the limit of `eta_cutoff`; the most likely one stays.
    fn keep_above_cutoffs(&self, candidates: &mut Vec<(u32, f64)>) {
        let (epsilon, eta) = (self.options.epsilon_cutoff, self.options.eta_cutoff);
        if epsilon > 0.0 {
            normalize(candidates);
            keep_likely(candidates, epsilon);
        }
        if eta > 0.0 {
            normalize(candidates);
            let least = eta.min(eta.sqrt() * (-entropy(candidates)).exp());
            keep_likely(candidates, least);
        }
    }
}

/// Keeps the tokens that are at least as likely as `least` or as the most likely of them.
fn keep_likely(candidates: &mut Vec<(u32, f64)>, least: f64) {
    let most = most_probable(candidates);
    candidates.retain(|(_, p)| *p >= least.min(most));
}

/// Returns the probability of the most likely token.
fn most_probable(candidates: &[(u32, f64)]) -> f64 {
    candidates.iter().fold(0.0, |most, (_, p)| p.max(most))
}

/// Divides the probabilities by their sum.
fn normalize(candidates: &mut [(u32, f64)]) {
    let sum: f64 = candidates.iter().map(|(_, p)| p).sum();
    for (_, p) in candidates {
        *p /= sum;
    }
}

/// Computes the entropy of the probabilities in nats.
fn entropy(candidates: &[(u32, f64)]) -> f64 {
    let terms = candidates.iter().filter(|(_, p)| *p > 0.0);
    terms.map(|(_, p)| -p * p.ln()).sum()
}

/// Applies softmax to the second field.
fn to_probabilities(candidates: &mut [(u32, f64)]) {
    let max = candidates
        .iter()
        .map(|(_, logit)| *logit)
        .fold(f64::NEG_INFINITY, f64::max);
    for (_, value) in candidates.iter_mut() {
        *value = (*value - max).exp();
    }
    let sum: f64 = candidates.iter().map(|(_, value)| *value).sum();
    for (_, value) in candidates.iter_mut() {
        *value /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ln of 0.1, 0.4, 0.2, 0.3.
    fn logits() -> Vec<f32> {
        [0.1f32, 0.4, 0.2, 0.3].map(f32::ln).to_vec()
    }

    /// Returns the share of each token in 20,000 draws.
    fn shares(options: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut sampler = Sampler::new(options, 0);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.draw(logits) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    fn assert_shares(options: Sampling, expected: [f64; 4]) {
        let found = shares(options, &logits());
        for (found, expected) in found.iter().zip(expected) {
            // Four standard deviations of a share of 20,000: at most 4 · √(¼ / 20,000) = 0.014.
            assert!((found - expected).abs() < 0.0142, "{found} {expected}");
            assert_eq!(*found == 0.0, expected == 0.0);
        }
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        assert_shares(Sampling::default(), [0.1, 0.4, 0.2, 0.3]);
    }

    #[test]
    fn temperature_sharpens() {
        // Squares, over their sum 0.3.
        let options = Sampling {
            temperature: 0.5,
            ..Sampling::default()
        };
        assert_shares(options, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]);
    }

    #[test]
    fn top_k_keeps_k_and_their_equals() {
        let options = Sampling {
            top_k: Some(2),
            ..Sampling::default()
        };
        assert_shares(options, [0.0, 0.4 / 0.7, 0.0, 0.3 / 0.7]);
        let options = Sampling {
            top_k: Some(1),
            ..Sampling::default()
        };
        let found = shares(options, &[0.0, 1.0, 1.0]);
        assert!(found[0] == 0.0 && found[1] > 0.4 && found[2] > 0.4);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it() {
        // 0.4 + 0.3 < 0.75: the third is needed too.
        let options = Sampling {
            top_p: 0.75,
            ..Sampling::default()
        };
        assert_shares(options, [0.0, 0.4 / 0.9, 0.2 / 0.9, 0.3 / 0.9]);
        let options = Sampling {
            top_p: 1e-9,
            ..Sampling::default()
        };
        assert_shares(options, [0.0, 1.0, 0.0, 0.0]);
        // Of what top-k has left: 0.4 / 0.7 is already enough.
        let options = Sampling {
            top_k: Some(2),
            top_p: 0.55,
            ..Sampling::default()
        };
        assert_shares(options, [0.0, 1.0, 0.0, 0.0]);
    }

    /// Expected shares by transformers' `MinPLogitsWarper`, `TypicalLogitsWarper`, `EpsilonLogitsWarper` and
    /// `EtaLogitsWarper` on these logits.
    #[test]
    fn the_other_filters_keep_what_those_of_transformers_keep() {
        let standard = Sampling::default();
        let min_p = Sampling {
            min_p: 0.6,
            ..standard
        };
        assert_shares(min_p, [0.0, 0.4 / 0.7, 0.0, 0.3 / 0.7]);
        // The entropy is 1.28: the surprises of 0.3 and 0.2 are closest.
        let typical_p = Sampling {
            typical_p: 0.4,
            ..standard
        };
        assert_shares(typical_p, [0.0, 0.0, 0.4, 0.6]);
        let epsilon_cutoff = Sampling {
            epsilon_cutoff: 0.15,
            ..standard
        };
        assert_shares(epsilon_cutoff, [0.0, 0.4 / 0.9, 0.2 / 0.9, 0.3 / 0.9]);
        // √0.9 · exp(-1.28) = 0.264.
        let eta_cutoff = Sampling {
            eta_cutoff: 0.9,
            ..standard
        };
        assert_shares(eta_cutoff, [0.0, 0.4 / 0.7, 0.0, 0.3 / 0.7]);
        let most_likely = Sampling {
            epsilon_cutoff: 0.99,
            ..standard
        };
        assert_shares(most_likely, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn banned_tokens_are_not_drawn_and_streams_depend_on_seed_and_index() {
        let mut logits = logits();
        logits[1] = f32::NEG_INFINITY;
        assert_eq!(shares(Sampling::default(), &logits)[1], 0.0);

        let stream = |seed, index| {
            let mut sampler = Sampler::new(
                Sampling {
                    seed,
                    ..Sampling::default()
                },
                index,
            );
            (0..32).map(|_| sampler.draw(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(stream(1, 2), stream(1, 2));
        assert_ne!(stream(1, 2), stream(1, 3));
        assert_ne!(stream(1, 2), stream(2, 2));
    }

    #[test]
    fn the_first_of_the_largest_is_the_most_likely() {
        assert_eq!(most_likely(&[1.0, 3.0, 3.0, 2.0]), 1);
    }
}
