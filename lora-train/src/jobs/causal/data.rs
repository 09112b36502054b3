//! Tokenized examples of a data file, for a language model.

use super::template::{chat_template, check_chat};
use crate::TrainError;
use crate::data::{
    ChatEncodingOptions, DataFormat, EncodingOptions, Example, Lines, PairTemplate, Record,
    SourceOptions, concatenate_records, draw, encode_chats, encode_records, read_records,
};
use crate::jobs::session::Base;
use crate::options::ReadingOptions;
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

/// Records to read of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subset {
    /// Maximum number of records; `None` for all.
    pub most: Option<usize>,
    /// Seed by which they are drawn.
    pub seed: u64,
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
    let Some((first, _)) = Lines::open(path)?.next_text()? else {
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

/// Reads and tokenizes a file. `adapter` is the column with the adapters' names, if they are to be read.
pub(crate) fn read_examples(
    path: &Path,
    reading: &ReadingOptions,
    adapter: Option<&str>,
    subset: Subset,
    base: &Base,
    max_length: usize,
) -> Result<Examples, TrainError> {
    let mut source = source_options(reading, adapter);
    if let Some(template) = &source.template {
        check_template(template, base)?;
    }
    source.format = source.format_of(path)?;
    let records = draw(read_records(path, &source)?, subset.most, subset.seed);
    let eos = base.eos_id().filter(|_| !reading.no_eos);
    base.tokenizer.check_ids(eos.as_slice())?;
    check_chat(reading, source.format)?;
    let (examples, report) = if source.format.is_chat() {
        let (given, variables) = (&reading.chat_template, &reading.chat_template_kwargs);
        let template = chat_template(base, given.as_deref(), variables.as_ref())?;
        let options = ChatEncodingOptions {
            train_on: reading.train_on.unwrap_or_default(),
            max_length,
        };
        let (examples, report) = encode_chats(&records, &base.tokenizer, &template, &options)?;
        (examples, report.to_string())
    } else if reading.concatenate {
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
        format: source.format,
        report: format!("{}: {report}", path.display()),
    })
}
