//! Metrics of generated text, of language models, and of classification and regression.
//!
//! | metric | file | equal to |
//! | --- | --- | --- |
//! | [`corpus_bleu`] | `bleu`, `tokenizer_13a` | `sacrebleu.corpus_bleu`, default settings (`c:mixed\|e:no\|tok:13a\|s:exp`) |
//! | [`corpus_rouge_l`] | `rouge` | the mean of `rouge_score`'s `rougeL`, `score_multi`, no stemmer |
//! | [`RunningLoss`] | `running` | token-weighted mean loss, perplexity and token accuracy |
//! | [`accuracy`], [`f1`], [`class_scores`], [`matthews`], [`ConfusionMatrix`] | `classification`, `confusion` | scikit-learn, `zero_division=0` |
//! | [`multi_label`] | `multi_label` | scikit-learn on an indicator matrix, `zero_division=0` |
//! | [`pearson`], [`spearman`] | `correlation` | `scipy.stats`; `None` instead of NaN |
//! | [`mean_squared_error`], [`mean_absolute_error`] | `correlation` | scikit-learn |
//! | [`token_classification`] | `entity` | scikit-learn over tokens, seqeval's default over entities |
//! | [`TaskMetric`] | `task` | GLUE: the metrics of a task and its primary score |
//!
//! BLEU and ROUGE-L compare texts with one or more references each. All metrics except the running loss are tested against
//! results of the Python packages.

mod bleu;
mod classification;
mod confusion;
mod correlation;
mod entity;
mod multi_label;
mod rouge;
mod running;
mod task;
mod tokenizer_13a;

pub use bleu::{Bleu, corpus_bleu};
pub use classification::{Average, ClassScore, accuracy, class_scores, f1, matthews};
pub use confusion::ConfusionMatrix;
pub use correlation::{mean_absolute_error, mean_squared_error, pearson, spearman};
pub use entity::{Entity, TOKEN_METRICS, are_entity_tags, entities, token_classification};
pub use multi_label::{MULTI_LABEL_METRICS, multi_label};
pub use rouge::{RougeL, corpus_rouge_l, rouge_l};
pub use running::RunningLoss;
pub use task::TaskMetric;

use crate::error::TrainError;

/// Creates the error of a metric that cannot be computed.
fn error(metric: &'static str, message: impl Into<String>) -> TrainError {
    let message = message.into();
    TrainError::Metric { metric, message }
}

/// Checks that a corpus is not empty and that each hypothesis has at least one reference.
fn check_corpus<H, R>(
    metric: &'static str,
    hypotheses: &[H],
    references: &[Vec<R>],
) -> Result<(), TrainError> {
    let error = |message: String| Err(error(metric, message));
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

/// Checks that there are as many predictions as labels, and at least one.
fn check_pairs<T>(metric: &'static str, predictions: &[T], labels: &[T]) -> Result<(), TrainError> {
    let message = if predictions.len() != labels.len() {
        format!(
            "{} predictions and {} labels; expected one of each for every example",
            predictions.len(),
            labels.len()
        )
    } else if labels.is_empty() {
        "no predictions; expected at least one example".to_string()
    } else {
        return Ok(());
    };
    Err(error(metric, message))
}

/// Checks that every class is below `classes`.
fn check_classes(
    metric: &'static str,
    predictions: &[usize],
    labels: &[usize],
    classes: usize,
) -> Result<(), TrainError> {
    for (what, all) in [("prediction", predictions), ("label", labels)] {
        if let Some(at) = all.iter().position(|&class| class >= classes) {
            let message = format!(
                "{what} of example {at}, counted from 0, is class {}; with {classes} classes it must be below {classes}",
                all[at]
            );
            return Err(error(metric, message));
        }
    }
    Ok(())
}
