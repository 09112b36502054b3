//! ROUGE-N and ROUGE-L, as the package `rouge_score` computes them, with and without its stemmer; and ROUGE-L of `pycocoevalcap`.
//!
//! Lin, *ROUGE: a Package for Automatic Evaluation of Summaries*, 2004, section 3.

use std::collections::HashMap;

use super::check_corpus;
use super::classification::{harmonic_mean, ratio};
use super::porter::stem;
use super::tokenizer_ptb::tokenize;
use crate::error::TrainError;

/// Precision, recall and F1 of what two texts have in common, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScore {
    /// Share of the hypothesis that is in the reference.
    pub precision: f64,
    /// Share of the reference that is in the hypothesis.
    pub recall: f64,
    /// Harmonic mean of both, the number usually reported.
    pub f1: f64,
}

/// Part of texts that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Groups of this many words.
    Ngrams(usize),
    /// Longest common subsequence of words.
    Subsequence,
}

/// Kind of ROUGE, and its treatment of words.
///
/// Words are runs of `a` to `z` and `0` to `9` after lower-casing; other scripts are ignored.
///
/// # Examples
/// ```
/// use lora_train::metric::Rouge;
///
/// // "seen" is the same; with stems, "horses" and "horse" are, too.
/// let score = Rouge::n(1).score("horses were seen", &["a horse was seen"]);
/// assert_eq!((score.precision, score.recall), (1.0 / 3.0, 0.25));
/// let score = Rouge::n(1).with_stemmer().score("horses were seen", &["a horse was seen"]);
/// assert_eq!((score.precision, score.recall), (2.0 / 3.0, 0.5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rouge {
    kind: Kind,
    stems: bool,
}

impl Rouge {
    /// Creates ROUGE-N: groups of `n` words, at least 1.
    pub fn n(n: usize) -> Self {
        Self {
            kind: Kind::Ngrams(n.max(1)),
            stems: false,
        }
    }

    /// Creates ROUGE-L: the longest common subsequence of words.
    pub fn l() -> Self {
        Self {
            kind: Kind::Subsequence,
            stems: false,
        }
    }

    /// Compares the stems of words of more than three letters, as `RougeScorer` does with `use_stemmer=True`.
    #[must_use]
    pub fn with_stemmer(mut self) -> Self {
        self.stems = true;
        self
    }

    /// Computes the score of a hypothesis against the reference with the highest F1, as `RougeScorer.score_multi` does;
    /// all zero without a reference.
    pub fn score<R: AsRef<str>>(self, hypothesis: &str, references: &[R]) -> RougeScore {
        let hypothesis = self.words(hypothesis);
        let mut best: Option<RougeScore> = None;
        for reference in references {
            let score = self.compare(&hypothesis, &self.words(reference.as_ref()));
            // The first one wins a tie, as in `rouge_score`.
            if best.is_none_or(|best| score.f1 > best.f1) {
                best = Some(score);
            }
        }
        best.unwrap_or_default()
    }

    /// Computes the mean of [`score`](Self::score) over a corpus. `references[i]` holds the references of hypothesis `i`.
    ///
    /// # Errors
    /// Returns [`TrainError::Metric`] if the lengths differ, the corpus is empty, or a hypothesis has no reference.
    pub fn corpus<H, R>(
        self,
        hypotheses: &[H],
        references: &[Vec<R>],
    ) -> Result<RougeScore, TrainError>
    where
        H: AsRef<str>,
        R: AsRef<str>,
    {
        check_corpus("ROUGE", hypotheses, references)?;
        let mut sum = RougeScore::default();
        for (hypothesis, references) in hypotheses.iter().zip(references) {
            let score = self.score(hypothesis.as_ref(), references);
            sum.precision += score.precision;
            sum.recall += score.recall;
            sum.f1 += score.f1;
        }
        let count = hypotheses.len() as f64;
        Ok(RougeScore {
            precision: sum.precision / count,
            recall: sum.recall / count,
            f1: sum.f1 / count,
        })
    }

    fn words(self, text: &str) -> Vec<String> {
        let mut words = words(text);
        for word in words.iter_mut().filter(|word| self.stems && word.len() > 3) {
            *word = stem(word);
        }
        words
    }

    fn compare(self, hypothesis: &[String], reference: &[String]) -> RougeScore {
        let (common, own, other) = match self.kind {
            Kind::Subsequence => (
                longest_common_subsequence(hypothesis, reference),
                hypothesis.len(),
                reference.len(),
            ),
            Kind::Ngrams(n) => {
                let (own, other) = (ngrams(hypothesis, n), ngrams(reference, n));
                let matches = own.iter().map(|(ngram, &count)| {
                    let most = other.get(ngram).copied().unwrap_or(0);
                    count.min(most)
                });
                (matches.sum(), own.values().sum(), other.values().sum())
            }
        };
        let (precision, recall) = (ratio(common, own), ratio(common, other));
        RougeScore {
            precision,
            recall,
            f1: harmonic_mean(precision, recall),
        }
    }
}

/// Counts groups of `n` words.
fn ngrams(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in words.windows(n) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// Computes the [`Rouge::l`] of a hypothesis.
///
/// # Examples
/// ```
/// use lora_train::metric::rouge_l;
///
/// let rouge = rouge_l("The Mill is near the river.", &["The Mill lies by the river."]);
/// // "the mill … the river": 4 of 6 words on both sides.
/// assert!((rouge.f1 - 4.0 / 6.0).abs() < 1e-12);
/// ```
pub fn rouge_l<R: AsRef<str>>(hypothesis: &str, references: &[R]) -> RougeScore {
    Rouge::l().score(hypothesis, references)
}

/// Computes the [`Rouge::l`] of a corpus.
///
/// # Errors
/// As [`Rouge::corpus`].
pub fn corpus_rouge_l<H, R>(
    hypotheses: &[H],
    references: &[Vec<R>],
) -> Result<RougeScore, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    Rouge::l().corpus(hypotheses, references)
}

/// Computes the mean ROUGE-L of a corpus as `pycocoevalcap`, and so the E2E challenge's `e2e-metrics`, computes it, from 0 to 1.
///
/// Differs from [`corpus_rouge_l`] in three points: the words are those of the Penn Treebank, without punctuation; precision and
/// recall are each the best over the references; and recall weighs more (`beta` 1.2).
///
/// # Errors
/// As [`Rouge::corpus`].
///
/// # Examples
/// ```
/// use lora_train::metric::{corpus_rouge_l, corpus_rouge_l_coco};
///
/// // The first reference has the better recall, the second the better precision.
/// let references = [vec!["a mill", "a quiet mill by a river"]];
/// let score = corpus_rouge_l_coco(&["a mill by a river"], &references)?;
/// assert_eq!(score, 1.0);
/// assert!(corpus_rouge_l(&["a mill by a river"], &references)?.f1 < 0.92);
/// # Ok::<(), lora_train::TrainError>(())
/// ```
pub fn corpus_rouge_l_coco<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<f64, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    /// Weight of recall.
    const BETA: f64 = 1.2;
    check_corpus("ROUGE-L", hypotheses, references)?;
    // As Python splits an empty text: into one empty word.
    let words = |text: &str| match tokenize(text) {
        words if words.is_empty() => vec![String::new()],
        words => words,
    };
    let mut sum = 0.0;
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let hypothesis = words(hypothesis.as_ref());
        let (mut precision, mut recall) = (0.0, 0.0);
        for reference in references {
            let reference = words(reference.as_ref());
            let common = longest_common_subsequence(&hypothesis, &reference);
            precision = ratio(common, hypothesis.len()).max(precision);
            recall = ratio(common, reference.len()).max(recall);
        }
        if precision > 0.0 && recall > 0.0 {
            let squared = BETA * BETA;
            sum += (1.0 + squared) * precision * recall / (recall + squared * precision);
        }
    }
    Ok(sum / hypotheses.len() as f64)
}

/// Splits lower-cased text into runs of `a` to `z` and `0` to `9`.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_string).collect()
}

/// Computes the length of the longest common subsequence, keeping one row of the usual table.
fn longest_common_subsequence(hypothesis: &[String], reference: &[String]) -> usize {
    // row[j]: the length for the hypothesis so far and the first j words of the reference.
    let mut row = vec![0; reference.len() + 1];
    for word in hypothesis {
        let mut diagonal = 0;
        let mut left = 0;
        for (cell, other) in row.iter_mut().skip(1).zip(reference) {
            let above = *cell;
            *cell = if word == other {
                diagonal + 1
            } else {
                above.max(left)
            };
            diagonal = above;
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_runs_of_ascii_letters_and_digits() {
        assert_eq!(
            words("Don't PAY £20-25, café\t2nd_floor"),
            ["don", "t", "pay", "20", "25", "caf", "2nd", "floor"]
        );
        assert!(words("…  日本").is_empty());
        // The Kelvin sign and a dotted capital I have ASCII letters in lower case, in Python too.
        assert_eq!(words("5\u{212a} \u{130}x"), ["5k", "i", "x"]);
    }

    #[test]
    fn the_subsequence_keeps_order_and_may_have_gaps() {
        let rouge = rouge_l("a b c d", &["d a x b"]);
        assert_eq!((rouge.precision, rouge.recall, rouge.f1), (0.5, 0.5, 0.5));
        let rouge = rouge_l(
            "police killed the gunman",
            &["police kill the gunman today"],
        );
        assert_eq!((rouge.precision, rouge.recall), (0.75, 0.6));
    }

    #[test]
    fn the_best_reference_counts() {
        let references = ["nothing alike", "a b", "a b c x"];
        let rouge = rouge_l("a b c", &references);
        assert_eq!((rouge.precision, rouge.recall), (1.0, 0.75));
    }

    #[test]
    fn a_repeated_group_of_words_counts_no_more_often_than_in_the_reference() {
        let score = Rouge::n(1).score("the the the cat", &["the cat sat"]);
        assert_eq!((score.precision, score.recall), (0.5, 2.0 / 3.0));
        let score = Rouge::n(2).score("a b a b", &["a b c"]);
        assert_eq!((score.precision, score.recall), (1.0 / 3.0, 0.5));
        assert_eq!(Rouge::n(3).score("a b", &["a b"]), RougeScore::default());
    }

    #[test]
    fn empty_texts_score_0() {
        for (hypothesis, reference) in [("", "a"), ("a", ""), ("", ""), ("...", "a")] {
            assert_eq!(rouge_l(hypothesis, &[reference]), RougeScore::default());
        }
        assert_eq!(rouge_l("a", &Vec::<&str>::new()), RougeScore::default());
    }

    #[test]
    fn a_corpus_is_the_mean_of_its_items() {
        let references = [vec!["a b"], vec!["x"]];
        let rouge = corpus_rouge_l(&["a b", "y"], &references).unwrap();
        assert_eq!((rouge.precision, rouge.recall, rouge.f1), (0.5, 0.5, 0.5));
        assert!(corpus_rouge_l(&["a"], &references).is_err());
    }
}
