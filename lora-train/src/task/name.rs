//! Names of tasks on the command line and in recipes.

use crate::TrainError;
use crate::data::{GlueTask, LabelKind};
use crate::metric::TaskMetric;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Task of a training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TaskName {
    /// Predict the next token: `causal-lm`.
    CausalLm,
    /// Predict a class for a text or a pair of texts: `classification`.
    Classification,
    /// Predict any number of classes for a text or a pair of texts: `multi-label-classification`.
    MultiLabelClassification,
    /// Predict a number, or several, for a text or a pair of texts: `regression`.
    Regression,
    /// Predict a class for each word: `token-classification`.
    TokenClassification,
    /// Task of GLUE, with its files, labels and score: `glue/cola` and so on.
    Glue(GlueTask),
}

impl TaskName {
    const PLAIN: [(&'static str, Self); 5] = [
        ("causal-lm", Self::CausalLm),
        ("classification", Self::Classification),
        ("multi-label-classification", Self::MultiLabelClassification),
        ("regression", Self::Regression),
        ("token-classification", Self::TokenClassification),
    ];

    /// Returns the kind of label of a task on texts: classes or numbers; `None` for other tasks.
    pub fn label_kind(self) -> Option<LabelKind> {
        match self {
            Self::Classification => Some(LabelKind::Classes),
            Self::MultiLabelClassification => Some(LabelKind::MultiLabel),
            Self::Regression => Some(LabelKind::Score),
            Self::Glue(task) => Some(task.kind()),
            Self::CausalLm | Self::TokenClassification => None,
        }
    }

    /// Returns the metrics of a task on texts. Classification outside of GLUE uses accuracy and F1.
    pub fn metric(self) -> Option<TaskMetric> {
        match self {
            Self::Classification => Some(TaskMetric::AccuracyAndF1),
            Self::MultiLabelClassification => Some(TaskMetric::MultiLabel),
            Self::Regression => Some(TaskMetric::Regression),
            Self::Glue(task) => Some(match task {
                GlueTask::Cola => TaskMetric::Matthews,
                GlueTask::Mrpc | GlueTask::Qqp => TaskMetric::AccuracyAndF1,
                GlueTask::Stsb => TaskMetric::PearsonAndSpearman,
                _ => TaskMetric::Accuracy,
            }),
            Self::CausalLm | Self::TokenClassification => None,
        }
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glue(task) => write!(f, "glue/{}", task.name()),
            plain => {
                let mut names = Self::PLAIN.iter();
                let name = names.find(|(_, task)| task == plain);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    }
}

impl FromStr for TaskName {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        if let Some((_, task)) = Self::PLAIN.iter().find(|(name, _)| *name == text) {
            return Ok(*task);
        }
        if text.starts_with("glue/") {
            return Ok(Self::Glue(text.parse()?));
        }
        let plain = Self::PLAIN.map(|(name, _)| name).join(", ");
        let message =
            format!("is `{text}`; expected {plain}, or glue/ and the name of a GLUE task");
        Err(TrainError::config("task", message))
    }
}

impl TryFrom<String> for TaskName {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self, TrainError> {
        text.parse()
    }
}

impl From<TaskName> for String {
    fn from(task: TaskName) -> Self {
        task.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name, task) in TaskName::PLAIN {
            assert_eq!(name.parse::<TaskName>().unwrap(), task);
            assert_eq!(task.to_string(), name);
        }
        for task in GlueTask::ALL {
            let name = TaskName::Glue(task).to_string();
            assert_eq!(name.parse::<TaskName>().unwrap(), TaskName::Glue(task));
        }
        let message = "ner".parse::<TaskName>().unwrap_err().to_string();
        assert!(message.contains("token-classification"), "{message}");
    }

    #[test]
    fn every_task_of_glue_has_its_score() {
        let primary = |name: &str| {
            let task: TaskName = name.parse().unwrap();
            task.metric().unwrap().primary()
        };
        assert_eq!(primary("glue/cola"), "matthews_correlation");
        assert_eq!(primary("glue/mrpc"), "combined_score");
        assert_eq!(primary("glue/stsb"), "combined_score");
        assert_eq!(primary("glue/qnli"), "accuracy");
    }
}
