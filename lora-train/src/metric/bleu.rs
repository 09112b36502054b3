//! Corpus BLEU, as sacrebleu computes it by default.
//!
//! Papineni et al., *BLEU: a Method for Automatic Evaluation of Machine Translation*, 2002; Post, *A
//! Call for Clarity in Reporting BLEU Scores*, 2018 (arXiv 1804.08771).

use std::collections::HashMap;
use std::fmt;

use super::check_corpus;
use super::tokenizer_13a::tokenize;
use crate::error::TrainError;

/// Largest n-gram order.
const MAX_ORDER: usize = 4;

/// Corpus BLEU and its components.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bleu {
    /// Score, from 0 to 100.
    pub score: f64,
    /// Smoothed precisions of 1-grams to 4-grams, from 0 to 100.
    pub precisions: [f64; MAX_ORDER],
    /// Brevity penalty: factor below 1 on the score if the hypotheses are shorter than the references.
    pub brevity_penalty: f64,
    /// Number of words in all hypotheses.
    pub hypothesis_length: usize,
    /// Number of words in the references, counting for each hypothesis the reference closest in length.
    pub reference_length: usize,
}

impl fmt::Display for Bleu {
    /// Formats the score as sacrebleu does: `BLEU = 70.4 90.1/76.2/63.0/51.8 (BP = 1.000 …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, two, three, four] = self.precisions;
        let ratio = if self.reference_length == 0 {
            0.0
        } else {
            self.hypothesis_length as f64 / self.reference_length as f64
        };
        write!(
            f,
            "BLEU = {:.1} {one:.1}/{two:.1}/{three:.1}/{four:.1} (BP = {:.3} ratio = {ratio:.3} \
             hyp_len = {} ref_len = {})",
            self.score, self.brevity_penalty, self.hypothesis_length, self.reference_length
        )
    }
}

/// Computes the BLEU of `hypotheses` as one corpus. `references[i]` holds the references of hypothesis
/// `i`; their number may vary.
///
/// Equal to sacrebleu's `corpus_bleu` at its defaults: case-sensitive, tokenizer `13a`, exponential
/// smoothing of orders without a match, the closest reference length (the shorter one on a tie), and
/// all four orders even if no hypothesis is that long (the score is then 0). sacrebleu expects the
/// transpose of `references`.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ, the corpus is empty, or a hypothesis has no reference.
///
/// # Examples
/// ```
/// use lora_train::metric::corpus_bleu;
///
/// # fn main() -> Result<(), lora_train::error::TrainError> {
/// let references = [vec![
///     "The Mill is a cheap pub by the river.",
///     "By the river there is a cheap pub, The Mill.",
/// ]];
/// let bleu = corpus_bleu(&["The Mill is a cheap pub near the river."], &references)?;
/// // sacrebleu 2.6.0 prints 65.8.
/// assert!((bleu.score - 65.8037).abs() < 1e-4);
/// assert_eq!((bleu.hypothesis_length, bleu.reference_length), (10, 10));
/// # Ok(())
/// # }
/// ```
pub fn corpus_bleu<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<Bleu, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    check_corpus("BLEU", hypotheses, references)?;
    let mut counts = Counts::default();
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        counts.add(hypothesis.as_ref(), references);
    }
    Ok(counts.score())
}

/// Counts, summed over the corpus.
#[derive(Default)]
struct Counts {
    hypothesis_length: usize,
    reference_length: usize,
    matches: [usize; MAX_ORDER],
    totals: [usize; MAX_ORDER],
}

impl Counts {
    fn add<R: AsRef<str>>(&mut self, hypothesis: &str, references: &[R]) {
        let hypothesis = tokenize(hypothesis);
        let references: Vec<Vec<String>> =
            references.iter().map(|r| tokenize(r.as_ref())).collect();

        // Clipped counts: an n-gram matches at most as often as in the reference that has it most.
        let mut allowed: HashMap<&[String], usize> = HashMap::new();
        for reference in &references {
            for (ngram, count) in ngrams(reference) {
                let most = allowed.entry(ngram).or_insert(0);
                *most = count.max(*most);
            }
        }
        for (ngram, count) in ngrams(&hypothesis) {
            let order = ngram.len() - 1;
            self.totals[order] += count;
            self.matches[order] += count.min(allowed.get(ngram).copied().unwrap_or(0));
        }

        let length = hypothesis.len();
        let closest = references
            .iter()
            .map(Vec::len)
            .min_by_key(|&reference| (reference.abs_diff(length), reference));
        self.hypothesis_length += length;
        self.reference_length += closest.unwrap_or(0);
    }

    fn score(&self) -> Bleu {
        let mut bleu = Bleu {
            score: 0.0,
            precisions: [0.0; MAX_ORDER],
            brevity_penalty: self.brevity_penalty(),
            hypothesis_length: self.hypothesis_length,
            reference_length: self.reference_length,
        };
        if self.matches == [0; MAX_ORDER] {
            return bleu;
        }
        // The first order without a match counts as half a match, the next one as a quarter.
        let mut smoothing = 1.0;
        let counts = self.matches.iter().zip(&self.totals);
        for (precision, (&matches, &total)) in bleu.precisions.iter_mut().zip(counts) {
            if total == 0 {
                break;
            }
            *precision = if matches == 0 {
                smoothing *= 2.0;
                100.0 / (smoothing * total as f64)
            } else {
                100.0 * matches as f64 / total as f64
            };
        }
        // The logarithm of a precision of 0 is minus infinity, which makes the score 0.
        let logs: f64 = bleu.precisions.iter().map(|precision| precision.ln()).sum();
        bleu.score = bleu.brevity_penalty * (logs / MAX_ORDER as f64).exp();
        bleu
    }

    fn brevity_penalty(&self) -> f64 {
        let (hypothesis, reference) = (self.hypothesis_length, self.reference_length);
        if hypothesis >= reference {
            1.0
        } else if hypothesis == 0 {
            0.0
        } else {
            (1.0 - reference as f64 / hypothesis as f64).exp()
        }
    }
}

/// Counts the n-grams of orders 1 to 4.
fn ngrams(words: &[String]) -> HashMap<&[String], usize> {
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

    fn bleu(hypothesis: &str, references: &[&str]) -> Bleu {
        corpus_bleu(&[hypothesis], &[references.to_vec()]).unwrap()
    }

    #[test]
    fn a_hypothesis_equal_to_a_reference_scores_100() {
        let score = bleu("The Mill is a pub .", &["Another .", "The Mill is a pub ."]);
        assert!((score.score - 100.0).abs() < 1e-9);
        assert_eq!(score.precisions, [100.0; 4]);
        assert_eq!(
            score.to_string(),
            "BLEU = 100.0 100.0/100.0/100.0/100.0 (BP = 1.000 ratio = 1.000 hyp_len = 6 ref_len = 6)"
        );
    }

    #[test]
    fn an_order_without_a_match_is_smoothed_and_the_next_halved_again() {
        // 2 of 4 words, no pair: the precisions of sacrebleu 2.6.0.
        let score = bleu("a x b y", &["a b c d"]);
        assert_eq!(score.precisions[0], 50.0);
        assert!((score.precisions[1] - 100.0 / (2.0 * 3.0)).abs() < 1e-12);
        assert!((score.precisions[2] - 100.0 / (4.0 * 2.0)).abs() < 1e-12);
        assert!((score.precisions[3] - 100.0 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn a_corpus_shorter_than_four_words_scores_0() {
        let score = bleu("a b c", &["a b c"]);
        assert_eq!(score.score, 0.0);
        assert_eq!(score.precisions, [100.0, 100.0, 100.0, 0.0]);
    }

    #[test]
    fn an_empty_hypothesis_scores_0_without_dividing_by_it() {
        let score = bleu("", &["a b c d"]);
        assert_eq!((score.score, score.brevity_penalty), (0.0, 0.0));
        let score = bleu("", &[""]);
        assert_eq!((score.score, score.brevity_penalty), (0.0, 1.0));
    }

    #[test]
    fn of_two_references_as_close_in_length_the_shorter_counts() {
        assert_eq!(bleu("a b c", &["a b c d", "a b"]).reference_length, 2);
        assert_eq!(bleu("a b c", &["a b c d e", "a b c d"]).reference_length, 4);
    }

    #[test]
    fn a_repeated_word_counts_no_more_often_than_in_one_reference() {
        let score = bleu("the the the the", &["the cat", "the the dog"]);
        assert_eq!(score.precisions[0], 50.0);
    }

    #[test]
    fn halves_of_different_lengths_an_empty_corpus_and_no_reference_are_errors() {
        assert!(corpus_bleu(&["a"], &Vec::<Vec<&str>>::new()).is_err());
        assert!(corpus_bleu(&Vec::<&str>::new(), &Vec::<Vec<&str>>::new()).is_err());
        let error = corpus_bleu(&["a", "b"], &[vec!["a"], vec![]]).unwrap_err();
        assert!(error.to_string().contains("hypothesis 1"), "{error}");
    }
}
