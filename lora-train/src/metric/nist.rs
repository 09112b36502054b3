//! Corpus NIST, as NIST's `mteval-v13a.pl` computes it. The E2E challenge's `pymteval` gives the same number where every text has
//! five words or more: of a shorter one it counts -1 n-grams and fewer, and here, as in `mteval-v13a.pl`, there are none.
//!
//! Doddington, *Automatic Evaluation of Machine Translation Quality Using N-gram Co-Occurrence Statistics*, 2002.

use std::collections::{BTreeMap, HashMap};

use super::check_corpus;
use super::tokenizer_13a::tokenize;
use crate::error::TrainError;

/// Largest n-gram order.
const MAX_ORDER: usize = 5;

/// Computes the NIST score of `hypotheses` as one corpus: the information of the n-grams that a hypothesis shares with its
/// references, per n-gram of the hypotheses, times a penalty for short hypotheses. `references[i]` holds the references of
/// hypothesis `i`.
///
/// Texts are lower-cased and split by the tokenizer `13a`. The n-grams of all references of a hypothesis count together,
/// each as often as in the reference that has it most, and the length of a reference is the mean. `nltk.translate.nist_score`
/// takes the best single reference for each order instead; with one reference each, both agree.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ, the corpus is empty, or a hypothesis has no reference.
///
/// # Examples
/// ```
/// use lora_train::metric::corpus_nist;
///
/// let nist = corpus_nist(&["a b c d e"], &[vec!["a b c d x"]])?;
/// // Four of five words, each one of five in the references: log₂ 5 bits. Longer n-grams tell nothing new.
/// assert!((nist - 4.0 / 5.0 * 5f64.log2()).abs() < 1e-12);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn corpus_nist<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<f64, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    check_corpus("NIST", hypotheses, references)?;
    let mut words = Words::default();
    let mut sums = Sums::default();
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let hypothesis = words.of(hypothesis.as_ref());
        let references: Vec<_> = references.iter().map(|r| words.of(r.as_ref())).collect();
        sums.add(&hypothesis, &references);
    }
    Ok(sums.score())
}

/// Numbers of words.
#[derive(Default)]
struct Words(HashMap<String, u32>);

impl Words {
    fn of(&mut self, text: &str) -> Vec<u32> {
        let words = tokenize(text).into_iter();
        let number = |word: String| {
            let next = self.0.len() as u32;
            *self.0.entry(word.to_lowercase()).or_insert(next)
        };
        words.map(number).collect()
    }
}

type Counts = HashMap<Vec<u32>, usize>;

/// Counts, summed over the corpus.
#[derive(Default)]
struct Sums {
    /// Occurrences of each n-gram in all references.
    references: Counts,
    /// Matches of each n-gram of the hypotheses. Sums over it have one order, and so the same last digits in every run.
    matches: BTreeMap<Vec<u32>, usize>,
    /// Number of n-grams of the hypotheses, by order.
    totals: [usize; MAX_ORDER],
    hypothesis_length: usize,
    /// Number of words in all references.
    reference_words: usize,
    /// Sum of the references' mean lengths.
    reference_length: f64,
}

impl Sums {
    fn add(&mut self, hypothesis: &[u32], references: &[Vec<u32>]) {
        let mut allowed: HashMap<&[u32], usize> = HashMap::new();
        for reference in references {
            for (ngram, count) in ngrams(reference) {
                *self.references.entry(ngram.to_vec()).or_insert(0) += count;
                let most = allowed.entry(ngram).or_insert(0);
                *most = count.max(*most);
            }
        }
        for (ngram, count) in ngrams(hypothesis) {
            let matches = count.min(allowed.get(ngram).copied().unwrap_or(0));
            if matches > 0 {
                *self.matches.entry(ngram.to_vec()).or_insert(0) += matches;
            }
        }
        for (order, total) in self.totals.iter_mut().enumerate() {
            *total += hypothesis.len().saturating_sub(order);
        }
        let words: usize = references.iter().map(Vec::len).sum();
        self.hypothesis_length += hypothesis.len();
        self.reference_words += words;
        self.reference_length += words as f64 / references.len() as f64;
    }

    /// Returns the information of an n-gram in bits: how much rarer it is than what precedes its last word.
    fn information(&self, ngram: &[u32]) -> f64 {
        let before = match &ngram[..ngram.len() - 1] {
            [] => self.reference_words,
            before => self.references[before],
        };
        (before as f64 / self.references[ngram] as f64).log2()
    }

    fn score(&self) -> f64 {
        let mut information = [0.0; MAX_ORDER];
        for (ngram, &matches) in &self.matches {
            information[ngram.len() - 1] += self.information(ngram) * matches as f64;
        }
        let orders = information.iter().zip(&self.totals);
        let orders = orders.filter(|(_, total)| **total > 0);
        let sum: f64 = orders.map(|(sum, &total)| sum / total as f64).sum();
        sum * self.length_penalty()
    }

    /// Returns the factor of short hypotheses: 1/2 where they have 2/3 of the references' words.
    fn length_penalty(&self) -> f64 {
        let ratio = self.hypothesis_length as f64 / self.reference_length;
        if ratio >= 1.0 {
            1.0
        } else if ratio > 0.0 {
            let beta = -(0.5f64.ln()) / 1.5f64.ln().powi(2);
            (-beta * ratio.ln().powi(2)).exp()
        } else {
            0.0
        }
    }
}

/// Counts the n-grams of all orders.
fn ngrams(words: &[u32]) -> HashMap<&[u32], usize> {
    let mut counts = HashMap::new();
    for order in 1..=MAX_ORDER {
        for ngram in words.windows(order) {
            *counts.entry(ngram).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_the_words_halve_the_score() {
        let whole = corpus_nist(&["a b c"], &[vec!["a b c"]]).unwrap();
        let short = corpus_nist(&["a b"], &[vec!["a b c"]]).unwrap();
        // Each word is one of three; "b" after "a", and "c" after both, are certain.
        assert!((whole - 3f64.log2()).abs() < 1e-12);
        assert!((short - 3f64.log2() / 2.0).abs() < 1e-12);
    }

    #[test]
    fn texts_without_words_score_0() {
        assert_eq!(corpus_nist(&[""], &[vec!["a b"]]).unwrap(), 0.0);
        assert_eq!(corpus_nist(&["a"], &[vec![""]]).unwrap(), 0.0);
        assert_eq!(corpus_nist(&[""], &[vec![""]]).unwrap(), 0.0);
        assert!(corpus_nist(&["a"], &[Vec::<&str>::new()]).is_err());
    }
}
