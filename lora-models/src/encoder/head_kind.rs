//! Kind of a head, by its names in transformers and PEFT.

use super::config::EncoderConfig;
use serde_json::{Map, Value};

/// Kind of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HeadKind {
    /// One output for a text or a pair of texts: classes, or a score.
    #[default]
    Sequence,
    /// An output for each token: classes.
    Token,
}

impl HeadKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Sequence, Self::Token];

    /// Returns PEFT's name of the task.
    pub fn task_type(self) -> &'static str {
        match self {
            Self::Sequence => "SEQ_CLS",
            Self::Token => "TOKEN_CLS",
        }
    }

    /// Returns the kind of PEFT's name of a task; `None` for a task without a head.
    pub fn from_task_type(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.task_type() == name)
    }

    /// Returns the suffix of the class in transformers.
    pub fn class_suffix(self) -> &'static str {
        match self {
            Self::Sequence => "ForSequenceClassification",
            Self::Token => "ForTokenClassification",
        }
    }

    /// Returns the kind of a checkpoint's head by the class in `config.json`; `None` for a class without either head.
    pub fn from_config(config: &EncoderConfig) -> Option<Self> {
        Self::of_class(&config.file)
    }

    /// Returns true if `config.json` names a class without either head, such as one of pretraining; false if it names none.
    pub fn is_absent(config: &EncoderConfig) -> bool {
        let classes = config.file.get("architectures");
        classes.is_some_and(|classes| classes.get(0).is_some())
            && Self::from_config(config).is_none()
    }

    /// Returns the kind of the class that `architectures` of a `config.json` names; `None` for a class without either head, and
    /// for no class.
    pub fn of_class(object: &Map<String, Value>) -> Option<Self> {
        let class = object.get("architectures")?.get(0)?.as_str()?;
        let mut kinds = Self::ALL.into_iter();
        kinds.find(|kind| class.ends_with(kind.class_suffix()))
    }
}
