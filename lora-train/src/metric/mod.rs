//! Metrics: what a generation is worth, and how a model does on the tokens it is asked to predict.
//!
//! | metric | equal to |
//! | --- | --- |
//! | [`corpus_bleu`] | `sacrebleu.corpus_bleu`, default settings (`c:mixed\|e:no\|tok:13a\|s:exp`) |
//! | [`corpus_rouge_l`] | the mean of `rouge_score`'s `rougeL`, `score_multi`, no stemmer |
//! | [`RunningLoss`] | token-weighted mean loss, perplexity and token accuracy |
//!
//! The first two take text and compare it with one or more references each; they are tested against
//! the Python packages' own numbers.

mod bleu;
mod rouge;
mod running;
mod tokenizer_13a;

pub use bleu::{Bleu, corpus_bleu};
pub use rouge::{RougeL, corpus_rouge_l, rouge_l};
pub use running::RunningLoss;

use crate::error::TrainError;

/// Refuses a corpus that is empty, whose halves are of different lengths, or that has a hypothesis
/// without a reference.
fn check_corpus<H, R>(
    metric: &'static str,
    hypotheses: &[H],
    references: &[Vec<R>],
) -> Result<(), TrainError> {
    let error = |message: String| Err(TrainError::Metric { metric, message });
    if hypotheses.len() != references.len() {
        return error(format!(
            "{} hypotheses and {} lists of references; expected one list for each hypothesis",
            hypotheses.len(),
            references.len()
        ));
    }
    if hypotheses.is_empty() {
        return error("no hypothesis to score; expected at least one".to_string());
    }
    match references.iter().position(Vec::is_empty) {
        Some(at) => error(format!(
            "hypothesis {at}, counted from 0, has no reference; expected at least one"
        )),
        None => Ok(()),
    }
}
