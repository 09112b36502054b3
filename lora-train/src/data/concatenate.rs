//! Concatenation of documents into examples of one length, to pretrain on.

use std::fmt;
use std::path::PathBuf;

use super::encode::check_length;
use super::encoder::Encode;
use super::example::Example;
use super::record::{Content, Origin, Record};
use super::tokenization::{EachExample, RecordEncoder, encode_all};
use crate::error::TrainError;

/// Counts of the documents and of the examples they make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConcatenationReport {
    /// Number of documents that have a token.
    pub documents: usize,
    /// Number of their tokens, the end-of-sequence tokens included.
    pub tokens: usize,
    /// Number of examples they make.
    pub chunks: usize,
    /// Length of each example in tokens.
    pub length: usize,
    /// Number of tokens at the end that fill no example, and are left out.
    pub tokens_dropped: usize,
}

impl fmt::Display for ConcatenationReport {
    /// Formats one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} tokens of {} documents cut into {} examples of {} tokens; the last {} tokens left out",
            self.tokens, self.documents, self.chunks, self.length, self.tokens_dropped
        )
    }
}

/// Tokenizes texts, puts them end to end, each followed by `eos_id` if there is one, and cuts the
/// stream into examples of exactly `length` tokens, as `run_clm.py` of transformers does (there
/// without an end-of-sequence token). There is no padding, and the remainder is left out and reported.
///
/// The tokens that the tokenizer adds [around](Encode::around) a text are part of it, and `eos_id` does not follow itself.
///
/// All tokens of an example but the first are learned. Its origin is that of the document of its first
/// token.
///
/// # Errors
/// - [`TrainError::Config`] if `length` is below 2 or there is no document;
/// - [`TrainError::DataLine`] for a record that is no text, such as a prompt with its completion, whose boundary would be
///   lost;
/// - [`TrainError::DataEmpty`] if the documents do not fill one example;
/// - the errors of `encoder`.
pub fn concatenate_records(
    records: &[Record],
    encoder: &dyn Encode,
    eos_id: Option<u32>,
    length: usize,
) -> Result<(Vec<Example>, ConcatenationReport), TrainError> {
    let mut concatenator = Concatenator::new(encoder, eos_id, length)?;
    let examples = encode_all(&mut concatenator, records)?;
    concatenator.finish()?;
    match records {
        [] => Err(TrainError::config(
            "records",
            "there are none to put end to end",
        )),
        _ => Ok((examples, concatenator.report())),
    }
}

/// Tokenizer that puts texts end to end, as [`concatenate_records`].
pub(crate) struct Concatenator<'a> {
    encoder: &'a dyn Encode,
    eos: Option<u32>,
    report: ConcatenationReport,
    /// Tokens of the example that is being filled.
    filling: Vec<u32>,
    /// Origin of the first of them.
    start: Option<Origin>,
    /// File of the first record.
    path: Option<PathBuf>,
}

impl<'a> Concatenator<'a> {
    /// Creates the encoder of a file.
    ///
    /// # Errors
    /// [`TrainError::Config`] if `length` is below 2.
    pub fn new(
        encoder: &'a dyn Encode,
        eos_id: Option<u32>,
        length: usize,
    ) -> Result<Self, TrainError> {
        check_length(length)?;
        let (_, after) = encoder.around();
        Ok(Self {
            encoder,
            eos: eos_id.filter(|eos| after.last() != Some(eos)),
            report: ConcatenationReport {
                length,
                ..ConcatenationReport::default()
            },
            filling: Vec::new(),
            start: None,
            path: None,
        })
    }

    fn report(&self) -> ConcatenationReport {
        ConcatenationReport {
            tokens_dropped: self.filling.len(),
            ..self.report
        }
    }
}

impl RecordEncoder for Concatenator<'_> {
    fn push(&mut self, record: &Record, each: EachExample<'_>) -> Result<(), TrainError> {
        let origin = &record.origin;
        let Content::Text { text } = &record.content else {
            return Err(origin.error(
                "only texts can be put end to end, and this is none; leave `concatenate` out",
            ));
        };
        self.path.get_or_insert_with(|| origin.path().to_path_buf());
        let tokens = self.encoder.encode(text)?;
        if tokens.is_empty() {
            return Ok(());
        }
        self.report.documents += 1;
        let (before, after) = self.encoder.around();
        let tokens = [before, &tokens, after].concat();
        for token in tokens.into_iter().chain(self.eos) {
            self.report.tokens += 1;
            let start = self.start.get_or_insert_with(|| origin.clone());
            self.filling.push(token);
            if self.filling.len() == self.report.length {
                let tokens = std::mem::take(&mut self.filling);
                let example = Example::new(self.report.chunks, tokens, 1, start.clone());
                self.report.chunks += 1;
                self.start = None;
                each(example)?;
            }
        }
        Ok(())
    }

    fn finish(&self) -> Result<String, TrainError> {
        match &self.path {
            Some(path) if self.report.chunks == 0 => Err(TrainError::data_empty(
                path,
                format!(
                    "its {} tokens do not fill one example of {}; give a smaller length or more text",
                    self.report.tokens, self.report.length
                ),
            )),
            _ => Ok(self.report().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::encoder::testing::Bytes;
    use super::*;
    use std::path::Path;

    fn origin(line: usize) -> Origin {
        Origin::new(Path::new("wiki.txt"), line)
    }

    fn documents() -> [Record; 3] {
        [
            Record::text("\u{1}\u{2}\u{3}", origin(1)),
            Record::text("", origin(2)),
            Record::text("\u{4}\u{5}\u{6}\u{7}", origin(3)),
        ]
    }

    #[test]
    fn documents_follow_each_other_with_eos_and_the_remainder_is_reported() {
        let (examples, report) = concatenate_records(&documents(), &Bytes, Some(9), 4).unwrap();
        let tokens: Vec<&[u32]> = examples.iter().map(Example::tokens).collect();
        assert_eq!(tokens, [[1, 2, 3, 9], [4, 5, 6, 7]]);
        assert_eq!(
            report,
            ConcatenationReport {
                documents: 2,
                tokens: 9,
                chunks: 2,
                length: 4,
                tokens_dropped: 1,
            }
        );
        assert_eq!(
            report.to_string(),
            "9 tokens of 2 documents cut into 2 examples of 4 tokens; the last 1 tokens left out"
        );
    }

    #[test]
    fn without_eos_the_stream_is_the_documents_tokens_alone() {
        let (examples, report) = concatenate_records(&documents(), &Bytes, None, 3).unwrap();
        let tokens: Vec<&[u32]> = examples.iter().map(Example::tokens).collect();
        assert_eq!(tokens, [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(report.tokens_dropped, 1);
    }

    #[test]
    fn an_example_is_learned_but_for_its_first_token_and_names_its_first_document() {
        let (examples, _) = concatenate_records(&documents(), &Bytes, None, 2).unwrap();
        let seen: Vec<_> = examples
            .iter()
            .map(|e| {
                (
                    e.index(),
                    e.loss_from(),
                    e.label_tokens(),
                    e.origin().line(),
                )
            })
            .collect();
        assert_eq!(seen, [(0, 1, 1, 1), (1, 1, 1, 1), (2, 1, 1, 3)]);
    }

    #[test]
    fn too_little_text_no_text_and_a_length_of_one_are_errors() {
        let error = concatenate_records(&documents(), &Bytes, Some(9), 10).unwrap_err();
        assert!(matches!(error, TrainError::DataEmpty { .. }));
        assert!(error.to_string().contains("9 tokens"), "{error}");
        assert!(concatenate_records(&[], &Bytes, None, 4).is_err());
        assert!(concatenate_records(&documents(), &Bytes, None, 1).is_err());
    }

    #[test]
    fn a_prompt_with_a_completion_cannot_be_concatenated() {
        let text = Record::text("abcd", origin(1));
        let pair = Record::prompt_completion("a", "b", origin(2));
        assert!(concatenate_records(std::slice::from_ref(&text), &Bytes, None, 2).is_ok());
        let error = concatenate_records(&[text, pair], &Bytes, None, 2).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }
}
