//! Tokenized examples of a data file, for a language model.

use crate::TrainError;
use crate::data::{
    Columns, EncodingOptions, Example, Record, SourceOptions, concatenate_records, encode_records,
    read_records,
};
use crate::jobs::open::Base;
use crate::options::ReadingOptions;
use std::path::Path;

impl ReadingOptions {
    /// Returns the options of the reader. `adapter` is the column with the adapters' names, if they are to be read.
    fn source(&self, adapter: Option<&str>) -> SourceOptions {
        SourceOptions {
            format: self.format.unwrap_or_default(),
            columns: Columns {
                text: self.text_column.clone(),
                prompt: self.prompt_column.clone(),
                completion: self.completion_column.clone(),
                adapter: adapter.map(String::from),
                ..Columns::default()
            },
            documents: self.documents.unwrap_or_default(),
            ..SourceOptions::default()
        }
    }
}

/// Data file, tokenized.
pub(crate) struct Examples {
    /// Records of the file.
    pub records: Vec<Record>,
    /// Examples of the records. A record without a token to predict has none.
    pub examples: Vec<Example>,
    /// Line for the log.
    pub report: String,
}

/// Reads and tokenizes a file.
pub(crate) fn read_examples(
    path: &Path,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    base: &Base,
    max_length: usize,
) -> Result<Examples, TrainError> {
    let records = read_records(path, &reading.source(adapter))?;
    let (examples, report) = if reading.concatenate {
        let eos = if reading.no_eos { None } else { base.eos_id() };
        let (examples, report) = concatenate_records(&records, &base.tokenizer, eos, max_length)?;
        (examples, report.to_string())
    } else {
        let options = EncodingOptions {
            append_eos: !reading.no_eos,
            loss_on_prompt: reading.loss_on_prompt,
            max_length,
        };
        let (examples, report) =
            encode_records(&records, &base.tokenizer, base.eos_id(), &options)?;
        (examples, report.to_string())
    };
    Ok(Examples {
        records,
        examples,
        report: format!("{}: {report}", path.display()),
    })
}
