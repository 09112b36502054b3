//! Tokenization of conversations, by the chat template of the model.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use lora_models::chat::{ChatTemplate, Conversation, Rendered, TrainOn};
use lora_models::tokenizer::Tokenizer;

use crate::data::encode::check_length;
use crate::data::example::Example;
use crate::data::record::{Content, Record};
use crate::data::tokenization::{EachExample, RecordEncoder, encode_all};
use crate::error::TrainError;

/// Options for tokenizing conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatEncodingOptions {
    /// Turns that are learned. The default is those of the assistant.
    pub train_on: TrainOn,
    /// Maximum length of an example in tokens. A longer conversation loses its last turns, as many as it must. The default is
    /// 512.
    pub max_length: usize,
}

impl Default for ChatEncodingOptions {
    fn default() -> Self {
        Self {
            train_on: TrainOn::default(),
            max_length: 512,
        }
    }
}

/// Counts of the conversations, and of what was cut of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChatReport {
    /// Number of conversations.
    pub conversations: usize,
    /// Number of conversations that were too long and lost turns.
    pub conversations_cut: usize,
    /// Number of messages that they lost.
    pub messages_cut: usize,
    /// Number of conversations that were left out, because not even the first turn of the assistant fits.
    pub left_out: usize,
    /// Number of conversations that were left out, because there is no turn to learn in them.
    pub without_turns: usize,
    /// Length of the longest conversation in tokens, before it was cut.
    pub longest: usize,
    /// Maximum length in tokens.
    pub max_length: usize,
}

impl fmt::Display for ChatReport {
    /// Formats one line for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (longest, most) = (self.longest, self.max_length);
        write!(f, "{} conversations, ", self.conversations)?;
        match self.conversations_cut {
            0 => write!(f, "none cut (longest {longest} of {most} tokens)")?,
            cut => write!(
                f,
                "{cut} cut to {most} tokens by whole turns, losing {} messages (longest {longest})",
                self.messages_cut
            )?,
        }
        if self.left_out > 0 {
            let left_out = self.left_out;
            write!(
                f,
                "; {left_out} left out because their first turn is too long"
            )?;
        }
        if self.without_turns > 0 {
            let without = self.without_turns;
            write!(f, "; {without} left out because no turn is to be learned")?;
        }
        Ok(())
    }
}

/// Tokenizes conversations into examples, in their order.
///
/// The template makes the text, with the special tokens in it, so none is added. The tokens that overlap a learned part of the text are
/// learned. A conversation that is longer than [`max_length`](ChatEncodingOptions::max_length) loses whole turns at its end, so that it
/// ends with a turn of the assistant; the report counts them.
///
/// # Errors
/// - [`TrainError::DataLine`] for a conversation that the template refuses, and for a record that is none;
/// - [`TrainError::Config`] if `max_length` is below 2;
/// - [`TrainError::DataEmpty`] if no example is left.
pub fn encode_chats(
    records: &[Record],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    options: &ChatEncodingOptions,
) -> Result<(Vec<Example>, ChatReport), TrainError> {
    let mut encoder = ChatEncoder::new(tokenizer, template, *options)?;
    let examples = encode_all(&mut encoder, records)?;
    encoder.finish()?;
    match records {
        [] => Err(TrainError::config("records", "there are none to encode")),
        _ => Ok((examples, encoder.report)),
    }
}

/// Tokens of a conversation, with the parts that are learned.
struct Encoded {
    tokens: Vec<u32>,
    parts: Vec<Range<usize>>,
}

/// Tokenizer of conversations, as [`encode_chats`].
pub(crate) struct ChatEncoder<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    options: ChatEncodingOptions,
    report: ChatReport,
    /// Number of examples.
    kept: usize,
    /// File of the first record.
    path: Option<PathBuf>,
}

impl RecordEncoder for ChatEncoder<'_> {
    fn push(&mut self, record: &Record, each: EachExample<'_>) -> Result<(), TrainError> {
        let Content::Chat(chat) = &record.content else {
            return Err(record.origin.error("expected a conversation"));
        };
        self.path
            .get_or_insert_with(|| record.origin.path().to_path_buf());
        let fitting = self.fitting(chat);
        let (whole, fitting) = fitting.map_err(|error| record.origin.error(error.to_string()))?;
        let report = &mut self.report;
        report.conversations += 1;
        report.longest = report.longest.max(whole);
        let Some((messages, encoded)) = fitting else {
            report.left_out += 1;
            return Ok(());
        };
        if messages < chat.messages.len() {
            report.conversations_cut += 1;
            report.messages_cut += chat.messages.len() - messages;
        }
        if encoded.parts.is_empty() {
            report.without_turns += 1;
            return Ok(());
        }
        let (index, origin) = (self.kept, record.origin.clone());
        self.kept += 1;
        let example = Example::with_parts(index, encoded.tokens, encoded.parts, origin);
        each(example.with_adapter(record.adapter.as_deref()))
    }

    fn finish(&self) -> Result<String, TrainError> {
        let report = &self.report;
        match &self.path {
            Some(path) if self.kept == 0 => {
                let message = format!(
                    "{report}; allow a greater length, or choose other turns to learn (`train_on`)"
                );
                Err(TrainError::data_empty(path, message))
            }
            _ => Ok(report.to_string()),
        }
    }
}

impl<'a> ChatEncoder<'a> {
    /// Creates the encoder of a file.
    ///
    /// # Errors
    /// [`TrainError::Config`] if the maximum length is below 2.
    pub fn new(
        tokenizer: &'a Tokenizer,
        template: &'a ChatTemplate,
        options: ChatEncodingOptions,
    ) -> Result<Self, TrainError> {
        check_length(options.max_length)?;
        Ok(Self {
            tokenizer,
            template,
            options,
            report: ChatReport {
                max_length: options.max_length,
                ..ChatReport::default()
            },
            kept: 0,
            path: None,
        })
    }

    /// Encodes as many messages as fit, and returns the length of the whole, and the number of messages with their tokens; `None` if
    /// none fit.
    fn fitting(
        &self,
        chat: &Conversation,
    ) -> Result<(usize, Option<(usize, Encoded)>), TrainError> {
        let whole = self.encode(chat)?;
        let (length, most) = (whole.tokens.len(), self.options.max_length);
        if length <= most {
            return Ok((length, Some((chat.messages.len(), whole))));
        }
        // The longest beginning that ends with a turn of the assistant and fits, by bisection.
        let ends: Vec<usize> = chat.turns_of_assistant().map(|turn| turn + 1).collect();
        let (mut low, mut high) = (0, ends.len());
        let mut best = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let encoded = self.encode(&chat.first(ends[middle]))?;
            if encoded.tokens.len() <= most {
                best = Some((ends[middle], encoded));
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok((length, best))
    }

    fn encode(&self, chat: &Conversation) -> Result<Encoded, TrainError> {
        let Rendered { text, learned } = self.template.render(chat, self.options.train_on)?;
        let (tokens, offsets) = self.tokenizer.encode_with_offsets(&text)?;
        let parts = token_parts(&offsets, &learned);
        Ok(Encoded { tokens, parts })
    }
}

/// Returns the parts of the tokens that overlap these parts of the text, without the first token, which nothing predicts.
fn token_parts(offsets: &[Range<usize>], learned: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut learned = learned.iter().peekable();
    for (at, offset) in offsets.iter().enumerate() {
        while learned.next_if(|part| part.end <= offset.start).is_some() {}
        let is_learned = learned.peek().is_some_and(|part| part.start < offset.end);
        if !is_learned || at == 0 {
            continue;
        }
        match parts.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => parts.push(at..at + 1),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_overlap_a_part_are_learned_but_for_the_first() {
        // The second token goes over the beginning of a part, the fourth over an end, the fifth is empty.
        let offsets = [0..2, 2..5, 5..6, 6..9, 9..9, 9..12, 12..13];
        assert_eq!(token_parts(&offsets, &[4..7, 12..13]), [1..4, 6..7]);
        let found = token_parts(&offsets, std::slice::from_ref(&(0..13)));
        assert!(found == std::slice::from_ref(&(1..7)), "{found:?}");
        assert!(token_parts(&offsets, &[]).is_empty());
    }
}
