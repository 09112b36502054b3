//! Tasks of GLUE (Wang et al., 2019, <https://arxiv.org/abs/1804.07461>), their files and submissions.
//!
//! | file | contents |
//! | --- | --- |
//! | `files` | columns of the files |
//! | `submission` | predictions in the format of GLUE's server |

mod files;
mod submission;

pub use submission::{Predictions, glue_submission, write_glue_submission};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::labels::{LabelKind, LabelSet};
use crate::error::{TrainError, listed};

/// Task of GLUE. The command line and configuration files use the names in parentheses;
/// [`FromStr`] also accepts the data's own names (`SST-2`, `STS-B`), and `glue/` before a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum GlueTask {
    /// Acceptability of a sentence (`cola`).
    Cola,
    /// Sentiment of a sentence of a film review (`sst2`).
    Sst2,
    /// Equivalence of two sentences (`mrpc`).
    Mrpc,
    /// Similarity in meaning of two sentences, from 0 to 5 (`stsb`).
    Stsb,
    /// Equivalence of two questions (`qqp`).
    Qqp,
    /// Entailment, neutrality or contradiction between a premise and a hypothesis (`mnli`).
    Mnli,
    /// [`Mnli`](Self::Mnli), evaluated on other genres than it is trained on (`mnli-mm`).
    MnliMismatched,
    /// Presence of the answer to a question in a sentence (`qnli`).
    Qnli,
    /// Entailment between two sentences (`rte`).
    Rte,
    /// Entailment of a sentence with a resolved pronoun (`wnli`).
    Wnli,
}

/// Facts about a task.
struct Spec {
    name: &'static str,
    title: &'static str,
    submission: &'static str,
    texts: (&'static str, Option<&'static str>),
    labels: &'static [&'static str],
}

const ENTAILMENT: &[&str] = &["entailment", "not_entailment"];
const SENTENCES: (&str, Option<&str>) = ("sentence1", Some("sentence2"));

impl GlueTask {
    /// Every task.
    pub const ALL: [Self; 10] = [
        Self::Cola,
        Self::Sst2,
        Self::Mrpc,
        Self::Stsb,
        Self::Qqp,
        Self::Mnli,
        Self::MnliMismatched,
        Self::Qnli,
        Self::Rte,
        Self::Wnli,
    ];

    /// Returns the facts about the task. Names, fields and the order of the labels are those of the `glue` data set on the Hugging
    /// Face hub.
    fn spec(self) -> Spec {
        let spec = |name, title, submission, texts, labels| Spec {
            name,
            title,
            submission,
            texts,
            labels,
        };
        let sentence = ("sentence", None);
        let questions = ("question1", Some("question2"));
        let premise = ("premise", Some("hypothesis"));
        let question = ("question", Some("sentence"));
        let acceptable: &[&str] = &["unacceptable", "acceptable"];
        let sentiment: &[&str] = &["negative", "positive"];
        let equivalent: &[&str] = &["not_equivalent", "equivalent"];
        let duplicate: &[&str] = &["not_duplicate", "duplicate"];
        let inference: &[&str] = &["entailment", "neutral", "contradiction"];
        let reversed: &[&str] = &["not_entailment", "entailment"];
        #[rustfmt::skip]
        let spec = match self {
            Self::Cola => spec("cola", "CoLA", "CoLA.tsv", sentence, acceptable),
            Self::Sst2 => spec("sst2", "SST-2", "SST-2.tsv", sentence, sentiment),
            Self::Mrpc => spec("mrpc", "MRPC", "MRPC.tsv", SENTENCES, equivalent),
            Self::Stsb => spec("stsb", "STS-B", "STS-B.tsv", SENTENCES, &[]),
            Self::Qqp => spec("qqp", "QQP", "QQP.tsv", questions, duplicate),
            Self::Mnli => spec("mnli", "MNLI", "MNLI-m.tsv", premise, inference),
            Self::MnliMismatched => spec("mnli-mm", "MNLI-mm", "MNLI-mm.tsv", premise, inference),
            Self::Qnli => spec("qnli", "QNLI", "QNLI.tsv", question, ENTAILMENT),
            Self::Rte => spec("rte", "RTE", "RTE.tsv", SENTENCES, ENTAILMENT),
            Self::Wnli => spec("wnli", "WNLI", "WNLI.tsv", SENTENCES, reversed),
        };
        spec
    }

    /// Returns the task's name on the command line and in configuration files.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Returns the task's name in writing: `CoLA`.
    pub fn title(self) -> &'static str {
        self.spec().title
    }

    /// Returns the fields that hold the text, or the two texts, in the `glue` data set on the Hugging Face
    /// hub.
    pub fn text_fields(self) -> (&'static str, Option<&'static str>) {
        self.spec().texts
    }

    /// Returns the kind of the labels: scores for STS-B, classes for the others.
    pub fn kind(self) -> LabelKind {
        match self {
            Self::Stsb => LabelKind::Score,
            _ => LabelKind::Classes,
        }
    }

    /// Returns the names of the classes in the order of their indices; `None` for STS-B.
    pub fn labels(self) -> Option<LabelSet> {
        let labels = self.spec().labels;
        (!labels.is_empty()).then(|| LabelSet::from_distinct(labels))
    }

    /// Returns the number of outputs of a model: one for each class, or one score.
    pub fn outputs(self) -> usize {
        self.spec().labels.len().max(1)
    }

    /// Returns the name of the file of predictions that GLUE's server asks for.
    pub fn submission_file(self) -> &'static str {
        self.spec().submission
    }

    /// Returns the class of `model` for each class of the task.
    ///
    /// Classes are matched by name, in any order, case and writing (`not entailment`), as in `run_glue.py` of transformers; by
    /// index, if the classes of the model have no names of their own (`LABEL_0`, or `0`).
    ///
    /// # Errors
    /// [`TrainError::Config`] if the names are others, or the task has no classes.
    pub(crate) fn class_mapping(self, model: &LabelSet) -> Result<Vec<usize>, TrainError> {
        let labels = self.spec().labels;
        if labels.is_empty() {
            let title = self.title();
            let message = format!("{title} has scores, not classes; name no labels for it");
            return Err(TrainError::config("labels", message));
        }
        let indices: Vec<String> = (0..labels.len()).map(|index| index.to_string()).collect();
        let without_names = model.is_generic() || model.names() == indices;
        if without_names && model.len() == labels.len() {
            return Ok((0..labels.len()).collect());
        }
        let find = |label: &&str| model.find(label);
        let mapping: Option<Vec<usize>> = labels.iter().map(find).collect();
        let mapping = mapping.filter(|_| model.len() == labels.len());
        mapping.ok_or_else(|| {
            let own: Vec<String> = labels.iter().map(ToString::to_string).collect();
            let message = format!(
                "the labels are {}, and those of {} are {}; a model for this task must have \
                 these, in any order",
                listed(model.names()),
                self.title(),
                listed(&own)
            );
            TrainError::config("labels", message)
        })
    }
}

impl fmt::Display for GlueTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GlueTask {
    type Err = TrainError;

    fn from_str(name: &str) -> Result<Self, TrainError> {
        let lower = name.to_ascii_lowercase();
        let plain = lower.strip_prefix("glue/").unwrap_or(&lower);
        let plain = plain.replace(['-', '_'], "");
        let plain = match plain.as_str() {
            "mnlim" | "mnlimatched" => "mnli",
            "mnlimismatched" => "mnlimm",
            other => other,
        };
        let mut tasks = Self::ALL.into_iter();
        let task = tasks.find(|task| task.name().replace('-', "") == plain);
        task.ok_or_else(|| {
            let names = listed(&Self::ALL.map(|task| task.name().to_string()));
            let message = format!("`{name}` is not a task of GLUE; the tasks are {names}");
            TrainError::config("task", message)
        })
    }
}

impl TryFrom<String> for GlueTask {
    type Error = TrainError;

    fn try_from(name: String) -> Result<Self, TrainError> {
        name.parse()
    }
}

impl From<GlueTask> for String {
    fn from(task: GlueTask) -> Self {
        task.name().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_one_name_and_is_found_under_every_spelling() {
        for task in GlueTask::ALL {
            assert_eq!(task.name().parse::<GlueTask>().unwrap(), task);
            assert_eq!(task.title().parse::<GlueTask>().unwrap(), task);
            let path = format!("glue/{task}");
            assert_eq!(path.parse::<GlueTask>().unwrap(), task);
            let json = serde_json::to_value(task).unwrap();
            assert_eq!(json, task.name());
            assert_eq!(serde_json::from_value::<GlueTask>(json).unwrap(), task);
        }
        for (name, task) in [
            ("glue/sst-2", GlueTask::Sst2),
            ("glue/sts-b", GlueTask::Stsb),
            ("mnli_matched", GlueTask::Mnli),
            ("MNLI-m", GlueTask::Mnli),
            ("mnli_mismatched", GlueTask::MnliMismatched),
        ] {
            assert_eq!(name.parse::<GlueTask>().unwrap(), task, "{name}");
        }
        let message = "glue/boolq".parse::<GlueTask>().unwrap_err().to_string();
        assert!(message.contains("`cola`, `sst2`"), "{message}");
    }

    #[test]
    fn a_model_whose_classes_stand_in_another_order_is_mapped_by_name() {
        let mapping = |names: &[&str]| {
            GlueTask::Mnli.class_mapping(&LabelSet::new(names.iter().copied()).unwrap())
        };
        let order = ["CONTRADICTION", "NEUTRAL", "ENTAILMENT"];
        assert_eq!(mapping(&order).unwrap(), [2, 1, 0]);
        let generic = ["LABEL_0", "LABEL_1", "LABEL_2"];
        assert_eq!(mapping(&generic).unwrap(), [0, 1, 2]);
        for others in [
            vec!["entailment", "not_entailment"],
            vec!["LABEL_0", "LABEL_1"],
            vec!["entailment", "neutral", "contradiction", "other"],
        ] {
            let message = mapping(&others).unwrap_err().to_string();
            assert!(message.contains("those of MNLI are"), "{message}");
        }
        let labels = LabelSet::new(["a", "b"]).unwrap();
        let message = GlueTask::Stsb.class_mapping(&labels).unwrap_err();
        assert!(message.to_string().contains("has scores"), "{message}");
    }

    #[test]
    fn outputs_are_the_classes_or_one_score() {
        let outputs = GlueTask::ALL.map(GlueTask::outputs);
        assert_eq!(outputs, [2, 2, 2, 1, 2, 3, 3, 2, 2, 2]);
        for task in GlueTask::ALL {
            let classes = task.labels().map(|labels| labels.len());
            assert_eq!(classes.is_some(), task.kind() == LabelKind::Classes);
            assert_eq!(classes.unwrap_or(1), task.outputs());
        }
    }
}
