//! What a data file yields before it is tokenised.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a record was read: kept up to the batch, so that a bad example can be found again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    path: Arc<Path>,
    line: usize,
}

impl Origin {
    /// Line `line`, counted from 1, of the file at `path`. The path is shared, not copied, by the
    /// records of a file.
    pub fn new(path: impl Into<Arc<Path>>, line: usize) -> Self {
        Self {
            path: path.into(),
            line,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, counted from 1; of a record over several lines, the first.
    pub fn line(&self) -> usize {
        self.line
    }
}

impl fmt::Display for Origin {
    /// `train.jsonl:12`, as compilers write it and editors open it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// The text of a record: what a causal language model is trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A text, all of which is learned.
    Text {
        /// The text.
        text: String,
    },
    /// A prompt, given, and its completion, learned.
    PromptCompletion {
        /// What the model is given.
        prompt: String,
        /// What it should continue with, including the space or newline between the two.
        completion: String,
    },
}

impl Content {
    /// The prompt, where there is one.
    pub fn prompt(&self) -> Option<&str> {
        match self {
            Self::Text { .. } => None,
            Self::PromptCompletion { prompt, .. } => Some(prompt),
        }
    }
}

/// One record of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its text.
    pub content: Content,
    /// Where it was read.
    pub origin: Origin,
}

impl Record {
    /// A record of a whole text.
    pub fn text(text: impl Into<String>, origin: Origin) -> Self {
        Self {
            content: Content::Text { text: text.into() },
            origin,
        }
    }

    /// A record of a prompt and its completion.
    pub fn prompt_completion(
        prompt: impl Into<String>,
        completion: impl Into<String>,
        origin: Origin,
    ) -> Self {
        Self {
            content: Content::PromptCompletion {
                prompt: prompt.into(),
                completion: completion.into(),
            },
            origin,
        }
    }
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
}
