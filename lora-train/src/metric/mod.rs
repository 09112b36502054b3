//! Metrics of generated text, of language models, and of classification and regression.
//!
//! | metric | file | equal to |
//! | --- | --- | --- |
//! | [`corpus_bleu`] | `bleu`, `tokenizer_13a` | `sacrebleu.corpus_bleu`, default settings (`c:mixed\|e:no\|tok:13a\|s:exp`) |
//! | [`corpus_nist`] | `nist`, `tokenizer_13a` | `mteval-v13a.pl`, and `NISTScore` of the E2E challenge's `pymteval` on texts of five words or more |
//! | [`corpus_rouge_l`], [`Rouge`] | `rouge`, `porter` | the mean of `rouge_score`'s `rougeL` and `rouge1` to `rouge9`, `score_multi`, with NLTK's stemmer or none |
//! | [`corpus_rouge_l_coco`] | `rouge`, `tokenizer_ptb` | `pycocoevalcap.rouge.Rouge`, but for words that the tokenizers split otherwise |
//! | [`corpus_cider`] | `cider`, `tokenizer_ptb` | `pycocoevalcap.cider.Cider`, but for words that the tokenizers split otherwise |
//! | [`corpus_ter`] | `ter` | `sacrebleu.metrics.TER`, default settings |
//! | [`RunningLoss`] | `running` | token-weighted mean loss, perplexity and token accuracy |
//! | [`accuracy`], [`f1`], [`class_scores`], [`matthews`], [`ConfusionMatrix`] | `classification`, `confusion` | scikit-learn, `zero_division=0` |
//! | [`multi_label`] | `multi_label` | scikit-learn on an indicator matrix, `zero_division=0` |
//! | [`pearson`], [`spearman`] | `correlation` | `scipy.stats`; `None` instead of NaN |
//! | [`mean_squared_error`], [`mean_absolute_error`] | `correlation` | scikit-learn |
//! | [`token_classification`] | `entity` | scikit-learn over tokens, seqeval's default over entities |
//! | [`SqlScorer`] | `sql`, `sql_database` | `evaluate.py` of `WikiSQL` |
//! | [`TaskMetric`] | `task` | GLUE: the metrics of a task and its primary score |
//!
//! The first six compare texts with one or more references each. All metrics except the running loss are tested against
//! results of the Python packages.
//!
//! METEOR is left out: its matches need `WordNet`, a table of paraphrases of 60 MB and weights that its authors tuned, and only
//! their program in Java gives the published numbers. Score the texts of `lora generate --output` with it.

mod bleu;
mod cider;
mod classification;
mod confusion;
mod correlation;
mod entity;
mod multi_label;
mod nist;
mod porter;
mod rouge;
mod running;
mod sql;
#[cfg(feature = "wikisql")]
mod sql_database;
mod task;
mod ter;
mod tokenizer_13a;
mod tokenizer_ptb;

pub use bleu::{Bleu, corpus_bleu};
pub use cider::corpus_cider;
pub use classification::{Average, ClassScore, accuracy, class_scores, f1, matthews};
pub use confusion::ConfusionMatrix;
pub use correlation::{mean_absolute_error, mean_squared_error, pearson, spearman};
pub use entity::{Entity, TOKEN_METRICS, are_entity_tags, entities, token_classification};
pub use multi_label::{MULTI_LABEL_METRICS, multi_label};
pub use nist::corpus_nist;
pub use rouge::{Rouge, RougeScore, corpus_rouge_l, corpus_rouge_l_coco, rouge_l};
pub use running::RunningLoss;
pub use sql::SqlScorer;
pub use task::TaskMetric;
pub use ter::{Ter, corpus_ter};

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
