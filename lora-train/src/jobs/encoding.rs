//! The tokenizer of a model as that of the data.

use crate::TrainError;
use crate::data::{Encode, EncodeInputs, Encoded};
use lora_models::tokenizer::{Sequence, Tokenizer};

impl Encode for Tokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        Ok(Tokenizer::encode(self, text)?)
    }
}

impl EncodeInputs for Tokenizer {
    fn encode_inputs(
        &self,
        inputs: &[(&str, Option<&str>)],
        max_length: usize,
    ) -> Result<Vec<Encoded>, TrainError> {
        let sequences = self.encode_inputs_batch(inputs, Some(max_length))?;
        Ok(sequences.into_iter().map(encoded).collect())
    }

    fn encode_words(&self, words: &[&str], max_length: usize) -> Result<Encoded, TrainError> {
        let sequence = Tokenizer::encode_words(self, words, Some(max_length))?;
        Ok(encoded(sequence))
    }
}

fn encoded(sequence: Sequence) -> Encoded {
    Encoded {
        ids: sequence.ids,
        type_ids: sequence.type_ids,
        words: sequence.words,
        cut: sequence.cut,
    }
}
