//! Tokenizers, as data sees them.

use lora_models::tokenizer::{Sequence, Tokenizer};

use crate::error::TrainError;

/// Tokenizer, as far as data needs one.
pub trait Encode {
    /// Encodes `text` without the special tokens that the tokenizer adds around a text (such as BERT's
    /// `[CLS]`): pieces of an example are encoded apart and joined.
    ///
    /// # Errors
    /// The errors of the tokenizer.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError>;

    /// Returns the special tokens that the tokenizer adds before and after a text, for a language model.
    fn around(&self) -> (&[u32], &[u32]) {
        (&[], &[])
    }

    /// Encodes texts, and pairs of texts, with special tokens in at most `max_length` tokens each; the longer text of a
    /// pair is truncated first.
    ///
    /// # Errors
    /// The errors of the tokenizer.
    fn encode_inputs(
        &self,
        inputs: &[(&str, Option<&str>)],
        max_length: usize,
    ) -> Result<Vec<Sequence>, TrainError>;

    /// Encodes the words of a sentence with special tokens in at most `max_length` tokens.
    ///
    /// # Errors
    /// The errors of the tokenizer.
    fn encode_words(&self, words: &[&str], max_length: usize) -> Result<Sequence, TrainError>;
}

impl Encode for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        Ok(Self::encode(self, text)?)
    }

    fn around(&self) -> (&[u32], &[u32]) {
        Self::around(self)
    }

    fn encode_inputs(
        &self,
        inputs: &[(&str, Option<&str>)],
        max_length: usize,
    ) -> Result<Vec<Sequence>, TrainError> {
        Ok(self.encode_inputs_batch(inputs, Some(max_length))?)
    }

    fn encode_words(&self, words: &[&str], max_length: usize) -> Result<Sequence, TrainError> {
        Ok(Self::encode_words(self, words, Some(max_length))?)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::{Encode, Sequence};
    use crate::error::TrainError;

    /// Tokenizer whose tokens are bytes, between the special tokens 0 and 1.
    pub(in crate::data) struct Bytes;

    impl Encode for Bytes {
        fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
            Ok(text.bytes().map(u32::from).collect())
        }

        fn encode_inputs(
            &self,
            inputs: &[(&str, Option<&str>)],
            max_length: usize,
        ) -> Result<Vec<Sequence>, TrainError> {
            let encode = |&(first, second): &(&str, Option<&str>)| {
                let mut sequence = self.encode_words(&[first], max_length)?;
                if let Some(second) = second {
                    let second = self.encode_words(&[second], max_length - sequence.ids.len())?;
                    sequence.type_ids.extend(vec![1; second.ids.len()]);
                    sequence.ids.extend(second.ids);
                    sequence.cut += second.cut;
                }
                Ok(sequence)
            };
            inputs.iter().map(encode).collect()
        }

        fn encode_words(&self, words: &[&str], max_length: usize) -> Result<Sequence, TrainError> {
            let (mut ids, mut of) = (vec![0], vec![None]);
            for (word, text) in words.iter().enumerate() {
                ids.extend(text.bytes().map(u32::from));
                of.resize(ids.len(), Some(word as u32));
            }
            let cut = ids.len().saturating_sub(max_length - 1);
            ids.truncate(max_length - 1);
            of.truncate(max_length - 1);
            ids.push(1);
            of.push(None);
            Ok(Sequence {
                type_ids: vec![0; ids.len()],
                special: of.iter().map(Option::is_none).collect(),
                ids,
                words: of,
                cut,
            })
        }
    }
}
