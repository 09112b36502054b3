//! Tokenized examples of a data file, for a language model.

use super::template::{chat_template, check_chat};
use crate::TrainError;
use crate::data::{
    ChatEncoder, ChatEncodingOptions, Concatenator, DataFormat, EncodingOptions, Example,
    PairTemplate, Record, RecordEncoder, SourceOptions, TextEncoder, encode_all, first_text,
    read_records,
};
use crate::jobs::session::Base;
use crate::options::ReadingOptions;
use lora_models::chat::ChatTemplate;
use serde_json::Value;
use std::path::Path;

/// Data file, tokenized.
pub(crate) struct Examples {
    /// Records of the file.
    pub records: Vec<Record>,
    /// Examples of the records. A record without a token to predict has none.
    pub examples: Vec<Example>,
    /// Format of the file.
    pub format: DataFormat,
    /// Line for the log.
    pub report: String,
}

/// Returns a line about labels in a file that a language model does not look at; `None` without any. `format` is the resolved
/// one.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn unread_labels(
    path: &Path,
    format: DataFormat,
    reading: &ReadingOptions,
) -> Result<Option<String>, TrainError> {
    if !matches!(
        format,
        DataFormat::JsonLines | DataFormat::Csv | DataFormat::Tsv
    ) {
        return Ok(None);
    }
    let Some(first) = first_text(path)? else {
        return Ok(None);
    };
    let name = reading.label_column.as_deref().unwrap_or("label");
    let is_there = match serde_json::from_str::<Value>(&first) {
        Ok(value) => value.get(name).is_some(),
        Err(_) => {
            let extension = path.extension().and_then(|extension| extension.to_str());
            let mut cells = first.split(['\t', ',']).map(|cell| cell.trim_matches('"'));
            matches!(extension, Some("csv" | "tsv")) && cells.any(|cell| cell == name)
        }
    };
    let shown = path.display();
    Ok(is_there.then(|| {
        format!("note: a language model does not look at `{name}` of {shown}; `task` classification does")
    }))
}

/// Returns the options for reading a file.
pub(super) fn source_options(reading: &ReadingOptions, adapter: Option<&str>) -> SourceOptions {
    SourceOptions {
        format: reading.format.unwrap_or_default(),
        columns: reading.columns(adapter),
        documents: reading.documents.unwrap_or_default(),
        template: reading.pair_template(),
        categories: reading.categories.unwrap_or_default(),
    }
}

/// Returns the options for reading a file, with its format.
///
/// # Errors
/// If the format is not detected, or options do not go with it or with the tokenizer.
pub(super) fn source_of(
    path: &Path,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    base: &Base,
) -> Result<SourceOptions, TrainError> {
    let mut source = source_options(reading, adapter);
    if let Some(template) = &source.template {
        check_template(template, base)?;
    }
    source.format = source.format_of(path)?;
    check_chat(reading, source.format)?;
    Ok(source)
}

/// Refuses a template whose separator is not one token.
fn check_template(template: &PairTemplate, base: &Base) -> Result<(), TrainError> {
    let separator = &template.prompt_suffix;
    match base.tokenizer.encode(separator)?.len() {
        1 => Ok(()),
        count => {
            let message = format!(
                "puts {separator} between prompt and completion, which is {count} tokens of this tokenizer: it is for GPT-2's"
            );
            Err(TrainError::config("template", message))
        }
    }
}

/// Tokenization of a language model's data: tokenizer, chat template and options.
pub(super) struct Encoding<'a> {
    base: &'a Base,
    reading: &'a ReadingOptions,
    max_length: usize,
    /// Template of conversations; `None` for texts.
    template: Option<ChatTemplate>,
}

impl<'a> Encoding<'a> {
    /// Creates the tokenization of a format.
    ///
    /// # Errors
    /// If the end-of-text token is no token of the model, or the model has no template for conversations.
    pub fn new(
        format: DataFormat,
        reading: &'a ReadingOptions,
        base: &'a Base,
        max_length: usize,
    ) -> Result<Self, TrainError> {
        let eos = base.eos_id().filter(|_| !reading.no_eos);
        base.tokenizer.check_ids(eos.as_slice())?;
        let (given, variables) = (&reading.chat_template, &reading.chat_template_kwargs);
        let template = || chat_template(base, given.as_deref(), variables.as_ref());
        Ok(Self {
            base,
            reading,
            max_length,
            template: format.is_chat().then(template).transpose()?,
        })
    }

    /// Creates the encoder of a file.
    ///
    /// # Errors
    /// If the options are wrong.
    pub fn encoder(&self) -> Result<Box<dyn RecordEncoder + '_>, TrainError> {
        let Self {
            base,
            reading,
            max_length,
            template,
        } = self;
        let (tokenizer, max_length) = (&base.tokenizer, *max_length);
        if let Some(template) = template {
            let options = ChatEncodingOptions {
                train_on: reading.train_on.unwrap_or_default(),
                max_length,
            };
            return Ok(Box::new(ChatEncoder::new(tokenizer, template, options)?));
        }
        if reading.concatenate {
            let eos = base.eos_id().filter(|_| !reading.no_eos);
            return Ok(Box::new(Concatenator::new(tokenizer, eos, max_length)?));
        }
        let options = EncodingOptions {
            append_eos: !reading.no_eos,
            loss_on_prompt: reading.loss_on_prompt,
            max_length,
        };
        Ok(Box::new(TextEncoder::new(
            tokenizer,
            base.eos_id(),
            options,
        )?))
    }
}

/// Reads and tokenizes a file. `adapter` is the column with the adapters' names, if they are to be read.
pub(crate) fn read_examples(
    path: &Path,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    base: &Base,
    max_length: usize,
) -> Result<Examples, TrainError> {
    let source = source_of(path, reading, adapter, base)?;
    let records = read_records(path, &source)?;
    let encoded = encode_records(records, source.format, reading, base, max_length)?;
    Ok(Examples {
        report: format!("{}: {}", path.display(), encoded.report),
        ..encoded
    })
}

/// Tokenizes the records of a format.
///
/// # Errors
/// If a record cannot be tokenized, or nothing to learn is left.
pub(super) fn encode_records(
    records: Vec<Record>,
    format: DataFormat,
    reading: &ReadingOptions,
    base: &Base,
    max_length: usize,
) -> Result<Examples, TrainError> {
    let encoding = Encoding::new(format, reading, base, max_length)?;
    let mut encoder = encoding.encoder()?;
    let examples = encode_all(&mut *encoder, &records)?;
    let report = encoder.finish()?;
    drop(encoder);
    Ok(Examples {
        records,
        examples,
        format,
        report,
    })
}
