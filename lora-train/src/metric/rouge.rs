//! ROUGE-L, as the package `rouge_score` computes it without a stemmer.
//!
//! Lin, *ROUGE: a Package for Automatic Evaluation of Summaries*, 2004, section 3.

use super::check_corpus;
use super::classification::{harmonic_mean, ratio};
use crate::error::TrainError;

/// Precision, recall and F1 of the longest common subsequence of words, each from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeL {
    /// Share of the hypothesis' words that are in the subsequence.
    pub precision: f64,
    /// Share of the reference's words that are in the subsequence.
    pub recall: f64,
    /// Harmonic mean of both, the number usually reported as ROUGE-L.
    pub f1: f64,
}

/// Computes the ROUGE-L of a hypothesis against the reference with the highest F1, as
/// `RougeScorer(["rougeL"]).score_multi` does; all zero without a reference.
///
/// Words are runs of `a` to `z` and `0` to `9` after lower-casing; other scripts are ignored.
///
/// # Examples
/// ```
/// use lora_train::metric::rouge_l;
///
/// let rouge = rouge_l("The Mill is near the river.", &["The Mill lies by the river."]);
/// // "the mill … the river": 4 of 6 words on both sides.
/// assert!((rouge.f1 - 4.0 / 6.0).abs() < 1e-12);
/// ```
pub fn rouge_l<R: AsRef<str>>(hypothesis: &str, references: &[R]) -> RougeL {
    let hypothesis = words(hypothesis);
    let mut best: Option<RougeL> = None;
    for reference in references {
        let score = score(&hypothesis, &words(reference.as_ref()));
        // The first one wins a tie, as in `rouge_score`.
        if best.is_none_or(|best| score.f1 > best.f1) {
            best = Some(score);
        }
    }
    best.unwrap_or_default()
}

/// Computes the mean of [`rouge_l`] over a corpus. `references[i]` holds the references of hypothesis
/// `i`.
///
/// # Errors
/// Returns [`TrainError::Metric`] if the lengths differ, the corpus is empty, or a hypothesis has no reference.
pub fn corpus_rouge_l<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<RougeL, TrainError>
where
    H: AsRef<str>,
    R: AsRef<str>,
{
    check_corpus("ROUGE-L", hypotheses, references)?;
    let mut sum = RougeL::default();
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let score = rouge_l(hypothesis.as_ref(), references);
        sum.precision += score.precision;
        sum.recall += score.recall;
        sum.f1 += score.f1;
    }
    let count = hypotheses.len() as f64;
    Ok(RougeL {
        precision: sum.precision / count,
        recall: sum.recall / count,
        f1: sum.f1 / count,
    })
}

/// Splits lower-cased text into runs of `a` to `z` and `0` to `9`.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_string).collect()
}

fn score(hypothesis: &[String], reference: &[String]) -> RougeL {
    let common = longest_common_subsequence(hypothesis, reference);
    let (precision, recall) = (
        ratio(common, hypothesis.len()),
        ratio(common, reference.len()),
    );
    RougeL {
        precision,
        recall,
        f1: harmonic_mean(precision, recall),
    }
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
    fn empty_texts_score_0() {
        for (hypothesis, reference) in [("", "a"), ("a", ""), ("", ""), ("...", "a")] {
            assert_eq!(rouge_l(hypothesis, &[reference]), RougeL::default());
        }
        assert_eq!(rouge_l("a", &Vec::<&str>::new()), RougeL::default());
    }

    #[test]
    fn a_corpus_is_the_mean_of_its_items() {
        let references = [vec!["a b"], vec!["x"]];
        let rouge = corpus_rouge_l(&["a b", "y"], &references).unwrap();
        assert_eq!((rouge.precision, rouge.recall, rouge.f1), (0.5, 0.5, 0.5));
        assert!(corpus_rouge_l(&["a"], &references).is_err());
    }
}
