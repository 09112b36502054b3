//! Tokenization of records one by one, so that no more than one is in memory.

use super::example::Example;
use super::record::Record;
use crate::error::TrainError;

/// Function that takes the examples of records, one by one.
pub(crate) type EachExample<'a> = &'a mut dyn FnMut(Example) -> Result<(), TrainError>;

/// Tokenizer of the records of a file, one after the other.
pub(crate) trait RecordEncoder {
    /// Tokenizes a record, and calls a function with the examples that it completes, if any.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a record that cannot be tokenized; the errors of the tokenizer and of the function.
    fn push(&mut self, record: &Record, each: EachExample<'_>) -> Result<(), TrainError>;

    /// Returns the line for the log.
    ///
    /// # Errors
    /// [`TrainError::DataEmpty`] if there were records, and nothing to learn was left of them.
    fn finish(&self) -> Result<String, TrainError>;
}

/// Tokenizes records, and returns their examples.
///
/// # Errors
/// Those of the encoder.
pub(crate) fn encode_all<E: RecordEncoder + ?Sized>(
    encoder: &mut E,
    records: &[Record],
) -> Result<Vec<Example>, TrainError> {
    let mut examples = Vec::with_capacity(records.len());
    for record in records {
        encoder.push(record, &mut |example| {
            examples.push(example);
            Ok(())
        })?;
    }
    Ok(examples)
}
