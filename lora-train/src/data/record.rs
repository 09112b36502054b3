//! Records: the entries of a data file, before they are tokenized.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::error::TrainError;
use lora_models::chat::Conversation;

/// Place in a file where a record was read. It is kept up to the batch, so that a bad example can be found again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    path: Arc<Path>,
    line: usize,
}

impl Origin {
    /// Creates the origin of line `line`, counted from 1, of the file at `path`. The records of a file share one copy
    /// of the path.
    pub fn new(path: impl Into<Arc<Path>>, line: usize) -> Self {
        Self {
            path: path.into(),
            line,
        }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path, to be shared with other origins.
    pub(super) fn shared_path(&self) -> Arc<Path> {
        self.path.clone()
    }

    /// Returns the line, counted from 1. The line of a record over several lines is its first.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Creates the error on this line.
    pub(crate) fn error(&self, message: impl Into<String>) -> TrainError {
        TrainError::data_line(&self.path, self.line, message)
    }
}

impl fmt::Display for Origin {
    /// Formats as `train.jsonl:12`, as compilers write it and editors open it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Input of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text: to learn as a whole, or to classify.
    Text {
        /// The text.
        text: String,
    },
    /// A prompt with the completion to learn.
    PromptCompletion {
        /// Input of the model.
        prompt: String,
        /// Continuation of the prompt, including the space or newline between the two.
        completion: String,
    },
    /// A pair of texts to classify.
    Pair {
        /// First text.
        first: String,
        /// Second text.
        second: String,
    },
    /// A sentence divided into words, to classify word by word.
    Words {
        /// The words.
        words: Vec<String>,
    },
    /// A conversation, whose text is made by the model's chat template.
    Chat(Conversation),
}

impl Content {
    /// Creates a text, or a pair if there is a second text.
    pub fn from_texts(first: String, second: Option<String>) -> Self {
        match second {
            None => Self::Text { text: first },
            Some(second) => Self::Pair { first, second },
        }
    }

    /// Returns the prompt, if this is a prompt with its completion.
    pub fn prompt(&self) -> Option<&str> {
        match self {
            Self::PromptCompletion { prompt, .. } => Some(prompt),
            _ => None,
        }
    }

    /// Returns the text, and the second text of a pair. Words are no text.
    pub fn texts(&self) -> Option<(&str, Option<&str>)> {
        match self {
            Self::Text { text } => Some((text, None)),
            Self::Pair { first, second } => Some((first, Some(second))),
            Self::PromptCompletion { prompt, completion } => Some((prompt, Some(completion))),
            Self::Words { .. } | Self::Chat(_) => None,
        }
    }

    /// Returns the words of a sentence that is divided into words; otherwise none.
    pub fn words(&self) -> &[String] {
        match self {
            Self::Words { words } => words,
            _ => &[],
        }
    }
}

/// Label of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Label {
    /// Class, as an index in the [`LabelSet`](super::LabelSet) that the file was read with.
    Class(usize),
    /// Classes, of which a record has any number, in their order.
    Set(Vec<usize>),
    /// Score, for regression.
    Score(f64),
    /// Several scores, for regression.
    Scores(Vec<f64>),
    /// Class of each word.
    Tags(Vec<usize>),
}

impl Label {
    /// Returns the class, if this is one.
    pub fn class(&self) -> Option<usize> {
        match self {
            Self::Class(class) => Some(*class),
            _ => None,
        }
    }

    /// Returns the score, if this is one.
    pub fn score(&self) -> Option<f64> {
        match self {
            Self::Score(score) => Some(*score),
            _ => None,
        }
    }

    /// Returns the class, the classes of the set or those of the words; none for scores.
    pub fn classes(&self) -> &[usize] {
        match self {
            Self::Class(class) => std::slice::from_ref(class),
            Self::Set(classes) | Self::Tags(classes) => classes,
            Self::Score(_) | Self::Scores(_) => &[],
        }
    }

    /// Returns the classes, to change them.
    pub(super) fn classes_mut(&mut self) -> &mut [usize] {
        match self {
            Self::Class(class) => std::slice::from_mut(class),
            Self::Set(classes) | Self::Tags(classes) => classes,
            Self::Score(_) | Self::Scores(_) => &mut [],
        }
    }
}

/// Entry of a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Input.
    pub content: Content,
    /// Label, for tasks with labels. Records to predict on have none.
    pub label: Option<Label>,
    /// Name that the file gives the record in `index`, `idx` or `id`.
    pub id: Option<String>,
    /// Name of the adapter that the record is for, where the file names adapters.
    pub adapter: Option<String>,
    /// Place where it was read.
    pub origin: Origin,
}

impl Record {
    /// Creates a record without label, id or adapter.
    pub fn new(content: Content, origin: Origin) -> Self {
        Self {
            content,
            label: None,
            id: None,
            adapter: None,
            origin,
        }
    }

    /// Creates a record of a whole text.
    pub fn text(text: impl Into<String>, origin: Origin) -> Self {
        Self::new(Content::Text { text: text.into() }, origin)
    }

    /// Creates a record of a prompt and its completion.
    pub fn prompt_completion(
        prompt: impl Into<String>,
        completion: impl Into<String>,
        origin: Origin,
    ) -> Self {
        let content = Content::PromptCompletion {
            prompt: prompt.into(),
            completion: completion.into(),
        };
        Self::new(content, origin)
    }

    /// Sets the label.
    #[must_use]
    pub fn with_label(mut self, label: Option<Label>) -> Self {
        self.label = label;
        self
    }

    /// Sets the name of the adapter.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Option<String>) -> Self {
        self.adapter = adapter;
        self
    }
}

/// Function that takes the records of a file, one by one.
pub(crate) type Each<'a> = &'a mut dyn FnMut(Record) -> Result<(), TrainError>;

/// Collects the records that a reader passes on.
pub(super) fn collect(
    read: impl FnOnce(Each<'_>) -> Result<(), TrainError>,
) -> Result<Vec<Record>, TrainError> {
    let mut records = Vec::new();
    read(&mut |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_reads_as_path_and_line() {
        let origin = Origin::new(Path::new("data/train.jsonl"), 12);
        assert_eq!(origin.to_string(), "data/train.jsonl:12");
        assert_eq!(origin.path(), Path::new("data/train.jsonl"));
        assert_eq!(origin.line(), 12);
    }

    #[test]
    fn the_records_of_a_file_share_its_path() {
        let path: Arc<Path> = Arc::from(Path::new("train.jsonl"));
        let first = Origin::new(path.clone(), 1);
        let second = Origin::new(path.clone(), 2);
        assert_eq!(Arc::strong_count(&path), 3);
        assert_eq!(first.path(), second.path());
    }

    #[test]
    fn a_label_is_a_class_or_a_score() {
        assert_eq!(
            (Label::Class(2).class(), Label::Class(2).score()),
            (Some(2), None)
        );
        assert_eq!(
            (Label::Score(0.5).class(), Label::Score(0.5).score()),
            (None, Some(0.5))
        );
        assert_eq!(Label::Tags(vec![1, 0]).classes(), [1, 0]);
    }
}
