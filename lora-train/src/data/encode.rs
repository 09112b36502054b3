//! Tokenization of records for a causal language model.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::encoder::Encode;
use super::example::Example;
use super::record::{Content, Record};
use super::tokenization::{EachExample, RecordEncoder, encode_all};
use crate::error::TrainError;

/// Maximum length of examples that are to stay whole.
pub(crate) const UNCUT: usize = usize::MAX;

/// Options for tokenizing records for a causal language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncodingOptions {
    /// Ends each text and each completion with the end-of-sequence token, so that the model learns
    /// to stop. The default is true.
    pub append_eos: bool,
    /// Learns the prompt too, not only the completion. The default is false.
    pub loss_on_prompt: bool,
    /// Maximum length of an example in tokens, the end-of-sequence token included. A longer one is truncated
    /// at the right. The default is 512.
    pub max_length: usize,
}

impl Default for EncodingOptions {
    fn default() -> Self {
        Self {
            append_eos: true,
            loss_on_prompt: false,
            max_length: 512,
        }
    }
}

/// Counts of the truncation to the maximum length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TruncationReport {
    /// Number of records encoded.
    pub examples: usize,
    /// Number of records that were longer than [`max_length`](Self::max_length), and were cut.
    pub examples_cut: usize,
    /// Number of tokens cut off, over all examples.
    pub tokens_cut: usize,
    /// Number of records left out because no token to predict was left, mostly because the prompt filled the
    /// length.
    pub examples_without_labels_left: usize,
    /// Length of the longest example in tokens, before it was cut.
    pub longest: usize,
    /// Maximum length in tokens.
    pub max_length: usize,
}

impl fmt::Display for TruncationReport {
    /// Formats one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (longest, most, lost) = (self.longest, self.max_length, self.tokens_cut);
        write!(f, "{} examples, ", self.examples)?;
        match self.examples_cut {
            0 => write!(f, "none cut (longest {longest} of {most} tokens)")?,
            cut => write!(
                f,
                "{cut} cut to {most} tokens, losing {lost} (longest {longest})"
            )?,
        }
        match self.examples_without_labels_left {
            0 => Ok(()),
            dropped => write!(f, "; {dropped} left out because no token to learn was left"),
        }
    }
}

/// Tokenizes `records` into examples, in their order.
///
/// - A text becomes its tokens and the end-of-sequence token `eos_id`; every token but the first
///   is learned. The tokens that the tokenizer adds [around](Encode::around) a text are part of it, and `eos_id` does not
///   follow itself.
/// - A prompt and its completion are tokenized apart and joined, so that the prompt's tokens are
///   the ones that generation starts from; `eos_id` follows the completion. The completion
///   and `eos_id` are learned, and the prompt too with
///   [`loss_on_prompt`](EncodingOptions::loss_on_prompt).
///
/// An example that is longer than [`max_length`](EncodingOptions::max_length) is truncated at its end, and one with
/// nothing to learn is left out. The report counts both.
///
/// # Errors
/// - [`TrainError::Config`] if `append_eos` is set and there is no `eos_id`, or if `max_length` is
///   below 2, the minimum for a token and its label;
/// - [`TrainError::DataLine`] for a record that is neither a text nor a prompt with its completion;
/// - [`TrainError::DataEmpty`] if no example is left;
/// - the errors of `encoder`.
pub fn encode_records(
    records: &[Record],
    encoder: &dyn Encode,
    eos_id: Option<u32>,
    options: &EncodingOptions,
) -> Result<(Vec<Example>, TruncationReport), TrainError> {
    let mut encoder = TextEncoder::new(encoder, eos_id, *options)?;
    let examples = encode_all(&mut encoder, records)?;
    encoder.finish()?;
    match records {
        [] => Err(TrainError::config("records", "there are none to encode")),
        _ => Ok((examples, encoder.report)),
    }
}

/// Tokenizer of texts, prompts and completions, as [`encode_records`].
pub(crate) struct TextEncoder<'a> {
    encoder: &'a dyn Encode,
    eos: Option<u32>,
    options: EncodingOptions,
    report: TruncationReport,
    /// Number of examples.
    kept: usize,
    /// File of the first record.
    path: Option<PathBuf>,
}

impl<'a> TextEncoder<'a> {
    /// Creates the encoder of a file.
    ///
    /// # Errors
    /// [`TrainError::Config`] as [`encode_records`].
    pub fn new(
        encoder: &'a dyn Encode,
        eos_id: Option<u32>,
        options: EncodingOptions,
    ) -> Result<Self, TrainError> {
        let (_, after) = encoder.around();
        let eos = options.eos(eos_id)?;
        Ok(Self {
            encoder,
            eos: eos.filter(|eos| after.last() != Some(eos)),
            options,
            report: TruncationReport {
                max_length: options.max_length,
                ..TruncationReport::default()
            },
            kept: 0,
            path: None,
        })
    }

    /// Tokenizes the beginning of an example.
    fn encode_start(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let (before, _) = self.encoder.around();
        Ok([before, &self.encoder.encode(text)?].concat())
    }
}

impl RecordEncoder for TextEncoder<'_> {
    fn push(&mut self, record: &Record, each: EachExample<'_>) -> Result<(), TrainError> {
        let (mut tokens, loss_from) = match &record.content {
            Content::Text { text } => (self.encode_start(text)?, 1),
            Content::PromptCompletion { prompt, completion } => {
                let mut tokens = self.encode_start(prompt)?;
                let prompt = tokens.len();
                tokens.extend(self.encoder.encode(completion)?);
                let from = if self.options.loss_on_prompt {
                    1
                } else {
                    prompt
                };
                (tokens, from)
            }
            Content::Pair { .. } | Content::Words { .. } | Content::Chat(_) => {
                return Err(record
                    .origin
                    .error("a language model reads texts, or prompts with completions"));
            }
        };
        let (_, after) = self.encoder.around();
        tokens.extend(after);
        tokens.extend(self.eos);

        let (report, most) = (&mut self.report, self.options.max_length);
        report.examples += 1;
        report.longest = report.longest.max(tokens.len());
        if tokens.len() > most {
            report.examples_cut += 1;
            report.tokens_cut += tokens.len() - most;
            tokens.truncate(most);
        }
        self.path
            .get_or_insert_with(|| record.origin.path().to_path_buf());
        let example = Example::new(self.kept, tokens, loss_from, record.origin.clone());
        if example.label_tokens() == 0 {
            report.examples_without_labels_left += 1;
            return Ok(());
        }
        self.kept += 1;
        each(example.with_adapter(record.adapter.as_deref()))
    }

    fn finish(&self) -> Result<String, TrainError> {
        let report = &self.report;
        match &self.path {
            Some(path) if self.kept == 0 => {
                let message = format!("{report}; allow a greater length, or shorten the prompts");
                Err(TrainError::data_empty(path, message))
            }
            _ => Ok(report.to_string()),
        }
    }
}

/// Refuses a maximum length without room for a token and its label.
pub(super) fn check_length(length: usize) -> Result<(), TrainError> {
    if length >= 2 {
        return Ok(());
    }
    let message = format!("{length} leaves nothing to predict; give at least 2 tokens");
    Err(TrainError::config("max_length", message))
}

impl EncodingOptions {
    /// Checks the options and returns the token to append, if any.
    fn eos(&self, eos_id: Option<u32>) -> Result<Option<u32>, TrainError> {
        check_length(self.max_length)?;
        match (self.append_eos, eos_id) {
            (false, _) => Ok(None),
            (true, Some(eos)) => Ok(Some(eos)),
            (true, None) => Err(TrainError::config(
                "append_eos",
                "the tokenizer names no end-of-sequence token; give its id, or set this to false",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Origin;
    use super::*;
    use crate::data::encoder::testing::Bytes;
    use std::path::Path;

    const EOS: Option<u32> = Some(256);

    fn origin(line: usize) -> Origin {
        Origin::new(Path::new("train.jsonl"), line)
    }

    fn pair() -> [Record; 1] {
        [Record::prompt_completion("ab", " c", origin(1))]
    }

    fn encode(
        records: &[Record],
        options: EncodingOptions,
    ) -> Result<(Vec<Example>, TruncationReport), TrainError> {
        encode_records(records, &Bytes, EOS, &options)
    }

    #[test]
    fn a_text_is_learned_but_for_its_first_token_and_ends_with_eos() {
        let records = [Record::text("abc", origin(4))];
        let (examples, _) = encode(&records, EncodingOptions::default()).unwrap();
        assert_eq!(examples[0].tokens(), [97, 98, 99, 256]);
        assert_eq!(examples[0].loss_from(), 1);
        assert_eq!(examples[0].origin().line(), 4);
    }

    #[test]
    fn of_a_pair_the_completion_and_eos_are_learned() {
        let (examples, _) = encode(&pair(), EncodingOptions::default()).unwrap();
        assert_eq!(examples[0].tokens(), [97, 98, 32, 99, 256]);
        assert_eq!(examples[0].loss_from(), 2);
        assert_eq!(examples[0].label_tokens(), 3);
    }

    #[test]
    fn loss_on_the_prompt_and_no_eos_can_be_asked_for() {
        let options = EncodingOptions {
            append_eos: false,
            loss_on_prompt: true,
            ..EncodingOptions::default()
        };
        let (examples, _) = encode_records(&pair(), &Bytes, None, &options).unwrap();
        assert_eq!(examples[0].tokens(), [97, 98, 32, 99]);
        assert_eq!(examples[0].loss_from(), 1);
    }

    #[test]
    fn a_completion_after_an_empty_prompt_is_learned_but_for_its_first_token() {
        let records = [Record::prompt_completion("", "ab", origin(1))];
        let (examples, _) = encode(&records, EncodingOptions::default()).unwrap();
        assert_eq!(examples[0].loss_from(), 1);
        assert_eq!(examples[0].label_tokens(), 2);
    }

    #[test]
    fn what_is_too_long_loses_its_end_and_what_keeps_no_label_is_left_out() {
        let records = [
            Record::prompt_completion("prompt too long", " c", origin(1)),
            Record::prompt_completion("ab", " cdef", origin(2)),
            Record::text("", origin(3)),
            Record::text("abc", origin(4)),
        ];
        let options = EncodingOptions {
            max_length: 4,
            ..EncodingOptions::default()
        };
        let (examples, report) = encode(&records, options).unwrap();
        assert_eq!(examples.len(), 2);
        assert_eq!(examples[0].tokens(), [97, 98, 32, 99]);
        assert_eq!(examples[0].label_tokens(), 2);
        // Indices count what is kept, lines what was read.
        assert_eq!((examples[1].index(), examples[1].origin().line()), (1, 4));
        assert_eq!(
            report,
            TruncationReport {
                examples: 4,
                examples_cut: 2,
                tokens_cut: 14 + 4,
                examples_without_labels_left: 2,
                longest: 18,
                max_length: 4,
            }
        );
        assert_eq!(
            report.to_string(),
            "4 examples, 2 cut to 4 tokens, losing 18 (longest 18); 2 left out because no token to \
             learn was left"
        );
    }

    #[test]
    fn the_report_says_when_nothing_was_cut() {
        let (_, report) = encode(&pair(), EncodingOptions::default()).unwrap();
        assert_eq!(
            report.to_string(),
            "1 examples, none cut (longest 5 of 512 tokens)"
        );
    }

    #[test]
    fn no_example_left_is_an_error_that_names_the_file() {
        let options = EncodingOptions {
            max_length: 2,
            ..EncodingOptions::default()
        };
        let error = encode(&pair(), options).unwrap_err();
        assert!(matches!(error, TrainError::DataEmpty { .. }));
        assert!(error.to_string().starts_with("train.jsonl"), "{error}");
        assert!(encode(&[], options).is_err());
    }

    #[test]
    fn a_missing_eos_and_a_length_without_room_are_configuration_errors() {
        let options = EncodingOptions::default();
        let error = encode_records(&pair(), &Bytes, None, &options).unwrap_err();
        assert!(error.to_string().contains("append_eos"), "{error}");
        let options = EncodingOptions {
            max_length: 1,
            ..options
        };
        let error = encode(&pair(), options).unwrap_err();
        assert!(error.to_string().contains("max_length"), "{error}");
    }
}
