//! Scores of generated texts, by the data set that they are for.

use super::generation::GeneratedText;
use crate::TrainError;
use crate::data::{DataFormat, ReferenceGroup, SqlTables};
use crate::metric::{
    Rouge, SqlScorer, corpus_bleu, corpus_cider, corpus_nist, corpus_rouge_l, corpus_rouge_l_coco,
    corpus_ter,
};
use std::collections::BTreeMap;
use std::path::Path;

/// Scores of generated texts.
///
/// | data | scores |
/// | --- | --- |
/// | all but the following | `bleu`, `bleu_lower`, `nist`, `rouge_l`, `rouge_l_coco`, `cider` and `ter` |
/// | `SAMSum` | `rouge_1`, `rouge_2` and `rouge_l`, of stems |
/// | `WikiSQL` | `logical_form` and, in a build with the feature `wikisql`, `execution`: shares of right queries |
/// | MNLI | `exact_match`: share of texts that are the answer |
///
/// `bleu_lower` is BLEU in lower case and `rouge_l_coco` the ROUGE-L of `pycocoevalcap`, as the E2E challenge and the LoRA paper have
/// them; `rouge_l` is that of the package `rouge_score`. The words of `rouge_l_coco` and `cider` are those of this project's
/// tokenizer, which differs from Stanford's in rare abbreviations. BLEU, ROUGE and TER are from 0 to 100, `CIDEr` is from 0 to 10,
/// and NIST has no upper end. TER is an error rate: lower is better.
#[derive(Clone, Debug, Default)]
pub enum TextScores {
    /// Scores of texts with one or more references.
    #[default]
    Texts,
    /// Scores of summaries.
    Summaries,
    /// Accuracy of queries on tables.
    Queries(Box<SqlTables>),
    /// Accuracy of answers.
    Answers,
}

impl TextScores {
    /// Returns the scores for texts that a file of data has the references of, in its resolved format.
    ///
    /// # Errors
    /// If the tables of `WikiSQL` cannot be read.
    pub fn of_data(path: &Path, format: DataFormat) -> Result<Self, TrainError> {
        Ok(match format {
            DataFormat::SamSum => Self::Summaries,
            DataFormat::WikiSql => Self::Queries(Box::new(SqlTables::beside(path)?)),
            DataFormat::Mnli => Self::Answers,
            _ => Self::Texts,
        })
    }

    /// Checks the references, before texts are generated that could not be scored by them.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a query of the data that cannot be executed.
    pub fn check(&self, groups: &[ReferenceGroup]) -> Result<(), TrainError> {
        let Self::Queries(tables) = self else {
            return Ok(());
        };
        let mut scorer = SqlScorer::new(tables)?;
        for group in groups {
            let id = group.id.as_deref().unwrap_or_default();
            for reference in &group.references {
                let checked = scorer.check(id, reference);
                checked.map_err(|error| group.origin.error(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Computes the scores, by name.
    ///
    /// # Errors
    /// If there are no texts, or a query of the data cannot be executed.
    pub fn score(&self, texts: &[GeneratedText]) -> Result<BTreeMap<String, f64>, TrainError> {
        match self {
            Self::Texts => score_texts(texts),
            Self::Summaries => summaries(texts),
            Self::Queries(tables) => queries(texts, tables),
            Self::Answers => {
                let right = texts.iter().map(|text| {
                    let references = text.references.iter();
                    references
                        .filter(|reference| **reference == text.text)
                        .count()
                });
                let all: usize = texts.iter().map(|text| text.references.len()).sum();
                let share = right.sum::<usize>() as f64 / all.max(1) as f64;
                Ok(named([("exact_match", share)]))
            }
        }
    }
}

fn named<const N: usize>(scores: [(&str, f64); N]) -> BTreeMap<String, f64> {
    let scores = scores.into_iter();
    scores.map(|(name, score)| (name.into(), score)).collect()
}

fn corpus(texts: &[GeneratedText]) -> (Vec<&str>, Vec<Vec<&str>>) {
    let hypotheses = texts.iter().map(|text| text.text.as_str()).collect();
    let references = texts.iter();
    let references = references.map(|text| text.references.iter().map(String::as_str).collect());
    (hypotheses, references.collect())
}

/// Computes BLEU, NIST, both kinds of ROUGE-L, `CIDEr` and TER of generated texts, by name.
///
/// # Errors
/// If there are no texts.
pub fn score_texts(texts: &[GeneratedText]) -> Result<BTreeMap<String, f64>, TrainError> {
    let (hypotheses, references) = corpus(texts);
    let lower: Vec<String> = hypotheses.iter().map(|text| text.to_lowercase()).collect();
    let lower_references = references.iter();
    let lower_references: Vec<Vec<String>> = lower_references
        .map(|list| list.iter().map(|text| text.to_lowercase()).collect())
        .collect();
    Ok(named([
        ("bleu", corpus_bleu(&hypotheses, &references)?.score),
        ("bleu_lower", corpus_bleu(&lower, &lower_references)?.score),
        ("nist", corpus_nist(&hypotheses, &references)?),
        (
            "rouge_l",
            corpus_rouge_l(&hypotheses, &references)?.f1 * 100.0,
        ),
        (
            "rouge_l_coco",
            corpus_rouge_l_coco(&hypotheses, &references)? * 100.0,
        ),
        ("cider", corpus_cider(&hypotheses, &references)?),
        ("ter", corpus_ter(&hypotheses, &references)?.score),
    ]))
}

fn summaries(texts: &[GeneratedText]) -> Result<BTreeMap<String, f64>, TrainError> {
    let (hypotheses, references) = corpus(texts);
    let score = |rouge: Rouge| -> Result<f64, TrainError> {
        let score = rouge.with_stemmer().corpus(&hypotheses, &references)?;
        Ok(score.f1 * 100.0)
    };
    Ok(named([
        ("rouge_1", score(Rouge::n(1))?),
        ("rouge_2", score(Rouge::n(2))?),
        ("rouge_l", score(Rouge::l())?),
    ]))
}

fn queries(
    texts: &[GeneratedText],
    tables: &SqlTables,
) -> Result<BTreeMap<String, f64>, TrainError> {
    let mut scorer = SqlScorer::new(tables)?;
    for text in texts {
        let id = text.id.as_deref().unwrap_or_default();
        for reference in &text.references {
            scorer.add(id, &text.text, reference)?;
        }
    }
    let mut scores = named([("logical_form", scorer.logical_form()?)]);
    if let Some(execution) = scorer.execution() {
        scores.insert("execution".into(), execution);
    }
    Ok(scores)
}
