//! Lines of `metrics.jsonl` for what is measured before the first step and after the last: metrics, texts, confusion matrix, and
//! time and memory by purpose.

use super::division::HeldOut;
use super::job::{BestBy, Metrics};
use super::plan::TrainPlan;
use crate::data::DataFormat;
use crate::memory::peak_mib;
use crate::metric::ConfusionMatrix;
use crate::task::GeneratedText;
use crate::trainer::RunState;
use lora_core::TrainableSummary;
use serde::Serialize;
use std::time::Instant;

/// Number of texts that are kept.
const MOST_TEXTS: usize = 200;
/// Number of classes above which a confusion matrix is not kept, and has no room on a page.
pub(crate) const MOST_CLASSES: usize = 64;

/// Measurements before the first step.
#[derive(Serialize)]
pub(super) struct Before<'a> {
    step: usize,
    before: &'a Metrics,
    /// Name of the metric that selects the best evaluation.
    metric: &'a str,
    /// Records that were held out of the training data for the evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_split: Option<HeldOut>,
    #[serde(skip_serializing_if = "Texts::is_empty")]
    texts: Texts<'a>,
}

impl<'a> Before<'a> {
    pub fn new(
        before: &'a Metrics,
        best: &'a BestBy,
        eval_split: Option<HeldOut>,
        texts: &'a [GeneratedText],
    ) -> Self {
        Self {
            eval_split,
            step: 0,
            before,
            metric: &best.metric,
            texts: texts.into(),
        }
    }
}

/// Measurements after the last step. The line is the last one of a complete run.
#[derive(Serialize)]
pub(super) struct After<'a> {
    /// Number of steps.
    pub step: usize,
    /// Metrics of the kept weights, by name.
    pub after: &'a Metrics,
    /// Name of the metric that stands for all.
    pub metric: &'a str,
    /// Number of trainable parameters.
    pub trainable: usize,
    /// Number of all parameters.
    pub parameters: usize,
    /// Seconds by purpose.
    pub phases: Phases,
    /// Memory by purpose.
    pub memory_mib: Memory,
    /// Device.
    pub device: String,
    /// True if the tensors are in the memory of the process, as on a CPU.
    pub on_host: bool,
    /// Reason of an early end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<&'a str>,
    /// Confusion matrix of a classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confusion: Option<Confusion<'a>>,
    /// Generated texts with their references.
    #[serde(skip_serializing_if = "Texts::is_empty")]
    pub texts: Texts<'a>,
}

/// Returns the name of the metric that stands for all in a table: that of generated texts, as their data set has it, or else the one
/// that selects the best evaluation.
pub(super) fn headline<'a>(
    plan: &TrainPlan,
    best: &'a BestBy,
    metrics: &Metrics,
    texts: &[GeneratedText],
) -> &'a str {
    let is_e2e = || match (plan.options.reading.format, &plan.options.eval_data) {
        (Some(format), _) if format != DataFormat::Auto => format == DataFormat::E2e,
        (_, path) => {
            let path = path.as_deref().unwrap_or(plan.data.first());
            matches!(DataFormat::detect(path), Ok(DataFormat::E2e))
        }
    };
    // The challenge's program, which the paper used, scores E2E in lower case.
    let bleu = match texts {
        [] => "bleu",
        _ if is_e2e() => "bleu_lower",
        _ => "bleu",
    };
    let of_texts = [
        "logical_form",
        "answer_accuracy",
        "exact_match",
        "rouge_1",
        bleu,
    ];
    let has_texts = !texts.is_empty();
    let mut found = of_texts.into_iter();
    found
        .find(|&name| (has_texts || name == "answer_accuracy") && metrics.contains_key(name))
        .unwrap_or(&best.metric)
}

/// Generated texts, evenly chosen if there are many.
#[derive(Serialize)]
pub(super) struct Texts<'a>(Vec<Text<'a>>);

#[derive(Serialize)]
struct Text<'a> {
    prompt: &'a str,
    text: &'a str,
    references: &'a [String],
}

impl Texts<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> From<&'a [GeneratedText]> for Texts<'a> {
    fn from(texts: &'a [GeneratedText]) -> Self {
        let step = texts.len().div_ceil(MOST_TEXTS).max(1);
        let chosen = texts.iter().step_by(step).map(|text| Text {
            prompt: &text.prompt,
            text: &text.text,
            references: &text.references,
        });
        Self(chosen.collect())
    }
}

/// Number of examples by label (rows) and predicted class.
#[derive(Serialize)]
pub(super) struct Confusion<'a> {
    names: &'a [String],
    counts: Vec<&'a [u64]>,
}

impl<'a> From<&'a ConfusionMatrix> for Confusion<'a> {
    fn from(matrix: &'a ConfusionMatrix) -> Self {
        let classes = Some(matrix.classes()).filter(|&classes| classes <= MOST_CLASSES);
        Self {
            names: classes.map_or(&[], |_| matrix.names()),
            counts: (0..classes.unwrap_or(0))
                .filter_map(|label| matrix.row(label))
                .collect(),
        }
    }
}

/// Seconds of a run by purpose. Those of the training and its checkpoints are of all sessions up to the checkpoints that the run was
/// resumed from; the others are of the last session.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Phases {
    /// Reading of data and weights, and the checks before the run.
    pub start: f64,
    /// Evaluation before the first step.
    pub before: f64,
    /// Steps, with evaluations and checkpoints among them.
    pub training: f64,
    /// Checkpoints among the steps.
    pub checkpoints: f64,
    /// Evaluation after the last step.
    pub after: f64,
    #[serde(skip)]
    last: Instant,
}

impl Phases {
    /// Ends the first phase, which began at `start`.
    pub fn starting(start: Instant) -> Self {
        Self {
            start: start.elapsed().as_secs_f64(),
            before: 0.0,
            training: 0.0,
            checkpoints: 0.0,
            after: 0.0,
            last: Instant::now(),
        }
    }

    /// Returns the seconds since the last phase ended, and ends this one.
    pub fn lap(&mut self) -> f64 {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        seconds
    }

    /// Ends the training.
    pub fn training(&mut self, state: &RunState) {
        self.training = state.seconds;
        self.checkpoints = state.saving_seconds;
        self.lap();
    }
}

/// Memory by purpose in MiB: counted for the weights, estimated for what training keeps of each, measured for the process.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Memory {
    /// Frozen weights.
    frozen: f64,
    /// Trained weights.
    trained: f64,
    /// Gradients: as much as the trained weights.
    gradients: f64,
    /// Moments of `AdamW`: twice as much.
    optimizer: f64,
    /// Peak of the process on the host; `null` if the system does not tell. The tensors of a GPU are no part of it.
    peak: Option<f64>,
}

impl Memory {
    pub fn of(weights: &TrainableSummary) -> Self {
        let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
        let trained = mib(weights.trainable_bytes);
        Self {
            frozen: mib(weights.frozen_bytes),
            trained,
            gradients: trained,
            optimizer: 2.0 * trained,
            peak: peak_mib(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_chosen_evenly_and_a_large_matrix_is_left_out() {
        let text = |i: usize| GeneratedText {
            prompt: i.to_string(),
            text: "text".into(),
            references: vec!["reference".into()],
            id: None,
        };
        let texts: Vec<GeneratedText> = (0..450).map(text).collect();
        let json = serde_json::to_value(Texts::from(&texts[..])).unwrap();
        let json = json.as_array().unwrap();
        assert_eq!((json.len(), &json[1]["prompt"]), (150, &"3".into()));
        let matrix = ConfusionMatrix::new(&[0, 70], &[0, 1], 71).unwrap();
        assert!(Confusion::from(&matrix).counts.is_empty());
        let matrix = ConfusionMatrix::new(&[0, 1, 1], &[0, 0, 1], 2).unwrap();
        let json = serde_json::to_value(Confusion::from(&matrix)).unwrap();
        assert_eq!(json["counts"], serde_json::json!([[1, 1], [0, 1]]));
    }
    #[test]
    fn the_headline_is_the_score_of_the_data_set() {
        let dir = tempfile::tempdir().unwrap();
        let e2e = dir.path().join("devset.txt");
        std::fs::write(&e2e, "name[The Mill]||The Mill is a pub.\n").unwrap();
        let options = |format| crate::options::TrainOptions {
            model: Some("base".into()),
            data: vec![e2e.clone()],
            eval_data: Some(e2e.clone()),
            output: Some("out".into()),
            reading: crate::options::ReadingOptions {
                format,
                ..Default::default()
            },
            ..Default::default()
        };
        let best = BestBy::new("loss", false);
        let text = GeneratedText {
            prompt: "p".into(),
            text: "t".into(),
            references: vec!["r".into()],
            id: None,
        };
        let metrics = |names: &[&str]| -> Metrics {
            names.iter().map(|name| (name.to_string(), 0.5)).collect()
        };
        let named = |format, names: &[&str], texts: &[GeneratedText]| {
            let plan = TrainPlan::new(options(format)).unwrap();
            headline(&plan, &best, &metrics(names), texts).to_string()
        };
        let texts = [text];
        let bleus = ["bleu", "bleu_lower", "loss", "rouge_l"];
        assert_eq!(named(None, &bleus, &texts), "bleu_lower");
        assert_eq!(named(Some(DataFormat::Auto), &bleus, &texts), "bleu_lower");
        assert_eq!(named(Some(DataFormat::Dart), &bleus, &texts), "bleu");
        let sql = ["execution", "logical_form", "loss"];
        assert_eq!(
            named(Some(DataFormat::WikiSql), &sql, &texts),
            "logical_form"
        );
        let answers = ["answer_accuracy", "exact_match", "loss"];
        let mnli = Some(DataFormat::Mnli);
        assert_eq!(named(mnli, &answers, &texts), "answer_accuracy");
        assert_eq!(named(mnli, &answers[..1], &[]), "answer_accuracy");
        assert_eq!(named(None, &["loss", "perplexity"], &[]), "loss");
    }
}
