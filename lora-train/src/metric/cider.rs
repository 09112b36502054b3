//! `CIDEr` as the package `pycocoevalcap`, and so the E2E challenge's `e2e-metrics`, computes it.
//!
//! Vedantam et al., *`CIDEr`: Consensus-based Image Description Evaluation*, 2015 (arXiv 1411.5726).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::check_corpus;
use super::tokenizer_ptb::tokenize;
use crate::error::TrainError;

/// Largest n-gram order.
const MAX_ORDER: usize = 4;
/// Standard deviation of the penalty for other lengths, in bigrams.
const SIGMA: f64 = 6.0;

/// Computes the `CIDEr` of `hypotheses` as one corpus, from 0 to 10: the similarity of the n-grams of a hypothesis to those of its
/// references, where n-grams of few other references weigh more. `references[i]` holds the references of hypothesis `i`.
///
/// The variant is the one of `pycocoevalcap.cider`, which other places call `CIDEr-D`: counts are clipped, other lengths are
/// penalized, and words are not stemmed. Its `PTBTokenizer` is Stanford's in Java; the words here are those of `tokenizer_ptb`, which
/// follows it on nearly all texts of the data sets.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ, the corpus is empty, or a hypothesis has no reference.
///
/// # Examples
/// ```
/// use lora_train::metric::corpus_cider;
///
/// let references = [vec!["a cheap pub by the river"], vec!["a family restaurant in town"]];
/// let same = corpus_cider(&["A cheap pub by the river.", "A family restaurant in town."], &references)?;
/// assert!((same - 10.0).abs() < 1e-12);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn corpus_cider<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<f64, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    check_corpus("CIDEr", hypotheses, references)?;
    let tokenized: Vec<Vec<Vec<String>>> = references
        .iter()
        .map(|list| list.iter().map(|text| tokenize(text.as_ref())).collect())
        .collect();
    let mut frequencies = HashMap::new();
    for references in &tokenized {
        let own: HashSet<&[String]> = references.iter().flat_map(|words| ngrams(words)).collect();
        for ngram in own {
            *frequencies.entry(ngram).or_insert(0usize) += 1;
        }
    }
    let corpus = Corpus {
        frequencies,
        log_size: (hypotheses.len() as f64).ln(),
    };
    let mut sum = 0.0;
    for (hypothesis, references) in hypotheses.iter().zip(&tokenized) {
        let words = tokenize(hypothesis.as_ref());
        let hypothesis = corpus.vector(&words);
        let references_sum: f64 = references
            .iter()
            .map(|words| hypothesis.similarity(&corpus.vector(words)))
            .sum();
        sum += 10.0 * references_sum / references.len() as f64;
    }
    Ok(sum / hypotheses.len() as f64)
}

/// Frequencies of n-grams in the references.
struct Corpus<'a> {
    /// Number of hypotheses with the n-gram in a reference.
    frequencies: HashMap<&'a [String], usize>,
    /// Logarithm of the number of hypotheses.
    log_size: f64,
}

/// Weights of the n-grams of a text.
struct Vector<'a> {
    /// By n-gram. Sums over it have one order, and so the same last digits in every run.
    weights: BTreeMap<&'a [String], f64>,
    /// Length of the vector of each order.
    norms: [f64; MAX_ORDER],
    /// Number of bigrams, by which lengths are compared.
    length: usize,
}

impl Corpus<'_> {
    fn vector<'b>(&self, words: &'b [String]) -> Vector<'b> {
        let mut counts: BTreeMap<&[String], usize> = BTreeMap::new();
        for ngram in ngrams(words) {
            *counts.entry(ngram).or_insert(0) += 1;
        }
        let mut norms = [0.0; MAX_ORDER];
        let weigh = |(ngram, count): (&'b [String], usize)| {
            let frequency = self.frequencies.get(ngram).copied().unwrap_or(0).max(1);
            let weight = count as f64 * (self.log_size - (frequency as f64).ln());
            norms[ngram.len() - 1] += weight * weight;
            (ngram, weight)
        };
        let weights = counts.into_iter().map(weigh).collect();
        Vector {
            weights,
            norms: norms.map(f64::sqrt),
            length: words.len().saturating_sub(1),
        }
    }
}

impl Vector<'_> {
    /// Returns the mean over the orders of the clipped cosine similarity, times the penalty for another length.
    fn similarity(&self, reference: &Vector) -> f64 {
        let mut products = [0.0; MAX_ORDER];
        for (ngram, &weight) in &self.weights {
            if let Some(&other) = reference.weights.get(ngram) {
                products[ngram.len() - 1] += weight.min(other) * other;
            }
        }
        let norms = self.norms.iter().zip(&reference.norms);
        let cosines = products.iter().zip(norms).map(|(product, (own, other))| {
            if *own == 0.0 || *other == 0.0 {
                0.0
            } else {
                product / (own * other)
            }
        });
        let mean = cosines.sum::<f64>() / MAX_ORDER as f64;
        let difference = self.length as f64 - reference.length as f64;
        mean * (-(difference * difference) / (2.0 * SIGMA * SIGMA)).exp()
    }
}

/// Returns the n-grams of all orders.
fn ngrams(words: &[String]) -> impl Iterator<Item = &[String]> {
    (1..=MAX_ORDER).flat_map(|order| words.windows(order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_references_have_in_common_tells_nothing() {
        let references = [vec!["a b c d"], vec!["a b c d"]];
        assert_eq!(corpus_cider(&["a b c d", "x"], &references).unwrap(), 0.0);
        assert!(corpus_cider(&["a"], &references).is_err());
    }

    #[test]
    fn a_text_without_words_scores_0() {
        let references = [vec!["a b c d"], vec!["", "."]];
        let score = corpus_cider(&["a b c d", "..."], &references).unwrap();
        assert!((score - 5.0).abs() < 1e-12, "{score}");
    }
}
