//! Model inputs: texts with their special tokens, in pairs, truncated, or given word by word.

use super::{BATCH, Tokenizer, guarded};
use crate::error::ModelError;
use std::path::Path;
use tokenizers::{Encoding, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper, Token};

/// Tokens of a text, or of a pair of texts, as a model takes them.
///
/// All lists have one entry for each token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Index of the text that a token belongs to, 0 or 1, for models that distinguish them; 0 for other models.
    pub type_ids: Vec<u32>,
    /// True for a token that was put around the texts. A special token written in a text is part of it.
    pub special: Vec<bool>,
    /// Index of the word that a token is part of, if words were given; `None` for tokens that were put around them.
    pub words: Vec<Option<u32>>,
    /// Number of truncated tokens.
    pub cut: usize,
}

impl Sequence {
    /// Converts an encoding; the words are those that the tokenizer found and not those that were given.
    fn from_encoding(encoding: &Encoding, cut: usize) -> Self {
        let mask = encoding.get_special_tokens_mask();
        Self {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            special: mask.iter().map(|&special| special == 1).collect(),
            words: vec![None; encoding.len()],
            cut,
        }
    }
}

impl Tokenizer {
    /// Encodes a text, or a pair of texts, with the special tokens of the model around and between them, in at most
    /// `max_length` tokens.
    ///
    /// A longer input is truncated at the end (at the start, if `truncation_side` in `tokenizer_config.json` says so);
    /// of a pair, the longer text first. This is `tokenizer(first, second, truncation=True, max_length=…)` of
    /// `transformers`, with one difference: an empty second text still makes a pair, as it does in batches there.
    ///
    /// GPT-2 has no special tokens to put around a text, unless its `tokenizer.json` says so.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if `max_length` has no room for the special tokens, and those of
    /// [`encode`](Self::encode).
    pub fn encode_inputs(
        &self,
        first: &str,
        second: Option<&str>,
        max_length: Option<usize>,
    ) -> Result<Sequence, ModelError> {
        let encode = |text: &str| guarded(&self.path, || self.inner.encode_fast(text, false));
        let first = encode(first)?;
        let second = second.map(encode).transpose()?;
        let (encoding, cut) = self.assemble(first, second, max_length)?;
        Ok(Sequence::from_encoding(&encoding, cut))
    }

    /// Encodes texts and pairs on several threads, otherwise as [`encode_inputs`](Self::encode_inputs).
    ///
    /// # Errors
    /// The errors of [`encode_inputs`](Self::encode_inputs).
    pub fn encode_inputs_batch(
        &self,
        inputs: &[(&str, Option<&str>)],
        max_length: Option<usize>,
    ) -> Result<Vec<Sequence>, ModelError> {
        let mut sequences = Vec::with_capacity(inputs.len());
        for batch in inputs.chunks(BATCH) {
            let batch_of = |texts: Vec<&str>| {
                guarded(&self.path, || self.inner.encode_batch_fast(texts, false))
            };
            let firsts = batch_of(batch.iter().map(|&(first, _)| first).collect())?;
            let seconds = batch_of(batch.iter().filter_map(|&(_, second)| second).collect())?;
            let mut seconds = seconds.into_iter();
            for (first, (_, second)) in firsts.into_iter().zip(batch) {
                let second = second.and_then(|_| seconds.next());
                let (encoding, cut) = self.assemble(first, second, max_length)?;
                sequences.push(Sequence::from_encoding(&encoding, cut));
            }
        }
        Ok(sequences)
    }

    /// Encodes a text given as its words, with the special tokens of the model around it, in at most `max_length`
    /// tokens. [`Sequence::words`] holds the word of each token.
    ///
    /// This is `tokenizer(words, is_split_into_words=True, …)` of `transformers`. Words are encoded as they are given:
    /// RoBERTa, GPT-2 and the first DeBERTa treat a space before a word as part of it, so their tokenizers need
    /// [`with_prefix_space`](Self::with_prefix_space) for this, or `add_prefix_space` in `tokenizer_config.json`. A word of which
    /// the tokenizer makes nothing has no token.
    ///
    /// # Errors
    /// The errors of [`encode_inputs`](Self::encode_inputs).
    pub fn encode_words(
        &self,
        words: &[&str],
        max_length: Option<usize>,
    ) -> Result<Sequence, ModelError> {
        // `encode_fast` does not keep the words.
        let encoding = guarded(&self.path, || self.inner.encode(words, false))?;
        let (encoding, cut) = self.assemble(encoding, None, max_length)?;
        Ok(Sequence {
            words: encoding.get_word_ids().to_vec(),
            ..Sequence::from_encoding(&encoding, cut)
        })
    }

    /// Sets whether byte-level BPE puts a space before a text, or before each word of [`encode_words`](Self::encode_words), that
    /// begins without one: `add_prefix_space` of `transformers`. Other tokenizers stay as they are.
    #[must_use]
    pub fn with_prefix_space(mut self, add_prefix_space: bool) -> Self {
        let mut splits = self.inner.get_pre_tokenizer().cloned();
        if splits
            .as_mut()
            .is_some_and(|splits| set_prefix_space(splits, add_prefix_space))
        {
            self.inner.with_pre_tokenizer(splits);
        }
        self
    }

    /// Truncates to the length and puts the special tokens around; returns the number of truncated tokens as well.
    fn assemble(
        &self,
        mut first: Encoding,
        mut second: Option<Encoding>,
        max_length: Option<usize>,
    ) -> Result<(Encoding, usize), ModelError> {
        let processor = self.processor.as_ref();
        let added = processor.map_or(0, |processor| processor.added_tokens(second.is_some()));
        let room = match max_length {
            None => usize::MAX,
            Some(length) => length.checked_sub(added).ok_or_else(|| {
                let message = format!(
                    "a length of {length} has no room for the {added} special tokens; allow more"
                );
                ModelError::tokenizer(&self.path, message)
            })?,
        };
        let lengths = (first.len(), second.as_ref().map(Encoding::len));
        let kept = longest_first(lengths, room);
        self.cut_to(&mut first, kept.0);
        if let (Some(second), Some(length)) = (&mut second, kept.1) {
            self.cut_to(second, length);
        }
        let cut = lengths.0 - kept.0 + lengths.1.unwrap_or(0) - kept.1.unwrap_or(0);

        let encoding = guarded(&self.path, || match processor {
            Some(processor) => processor.process(first, second, true),
            None => {
                if let Some(mut second) = second {
                    second.set_type_ids(vec![1; second.len()]);
                    first.merge_with(second, false);
                }
                Ok(first)
            }
        })?;
        self.check_ids(encoding.get_ids())?;
        Ok((encoding, cut))
    }

    fn cut_to(&self, encoding: &mut Encoding, length: usize) {
        let side = if self.cut_left {
            tokenizers::TruncationDirection::Left
        } else {
            tokenizers::TruncationDirection::Right
        };
        encoding.truncate(length, 0, side);
        // Truncation keeps the rest in pieces, and the special tokens would be put around all of their combinations.
        encoding.take_overflowing();
    }
}

/// Sets the space before a text in the byte-level steps; returns false if there are none.
fn set_prefix_space(step: &mut PreTokenizerWrapper, add_prefix_space: bool) -> bool {
    match step {
        PreTokenizerWrapper::ByteLevel(level) => {
            level.add_prefix_space = add_prefix_space;
            true
        }
        PreTokenizerWrapper::Sequence(steps) => {
            let mut found = false;
            for step in steps.as_mut() {
                found |= set_prefix_space(step, add_prefix_space);
            }
            found
        }
        _ => false,
    }
}

/// Returns the special tokens that a post-processor puts before and after a text.
///
/// # Errors
/// [`ModelError::Tokenizer`] if its rules fail.
pub(super) fn around(
    processor: Option<&PostProcessorWrapper>,
    path: &Path,
) -> Result<[Vec<u32>; 2], ModelError> {
    let Some(processor) = processor else {
        return Ok([Vec::new(), Vec::new()]);
    };
    let text = Encoding::from_tokens(vec![Token::new(0, "a".into(), (0, 1))], 0);
    let encoding = guarded(path, || processor.process(text, None, true))?;
    let ids = encoding.get_ids();
    let is_text = |&special: &u32| special == 0;
    let at = encoding.get_special_tokens_mask().iter().position(is_text);
    // A template may leave the text out.
    let (before, rest) = ids.split_at(at.unwrap_or(ids.len()));
    Ok([before.to_vec(), rest.get(1..).unwrap_or_default().to_vec()])
}

/// Returns how many tokens of a text or a pair are kept in `room` tokens. Of a pair, the longer text is cut until it
/// is as long as the shorter, then both; the odd token goes to the longer text, or to the second.
fn longest_first(lengths: (usize, Option<usize>), room: usize) -> (usize, Option<usize>) {
    let (first, Some(second)) = lengths else {
        return (lengths.0.min(room), None);
    };
    if first.saturating_add(second) <= room {
        return lengths;
    }
    let (shorter, swapped) = (first.min(second), first > second);
    let (short, long) = if shorter <= room / 2 {
        (shorter, room - shorter)
    } else {
        (room / 2, room - room / 2)
    };
    if swapped {
        (long, Some(short))
    } else {
        (short, Some(long))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::TruncationDirection;
    use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};

    /// Compares with the `tokenizers` crate, which truncates pairs as well, but not one token at a time.
    #[test]
    fn the_longer_text_is_cut_first() {
        let encoding = |length: usize| {
            let token = |id| tokenizers::Token::new(id, String::new(), (0, 0));
            Encoding::from_tokens((0..length as u32).map(token).collect(), 0)
        };
        for first in 0..9 {
            for second in 0..9 {
                for room in 0..20 {
                    let params = TruncationParams {
                        direction: TruncationDirection::Right,
                        max_length: room,
                        strategy: TruncationStrategy::LongestFirst,
                        stride: 0,
                    };
                    let (a, b) =
                        truncate_encodings(encoding(first), Some(encoding(second)), &params)
                            .unwrap();
                    assert_eq!(
                        longest_first((first, Some(second)), room),
                        (a.len(), b.map(|b| b.len())),
                        "{first} and {second} in {room}"
                    );
                }
            }
        }
        assert_eq!(longest_first((5, None), 3), (3, None));
        assert_eq!(longest_first((5, None), usize::MAX), (5, None));
    }
}
