//! How to read data files.

use super::{is_false, parse_word};
use crate::data::{DataFormat, TextDocuments};
use clap::Args;
use serde::{Deserialize, Serialize};

/// How to read data files.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadingOptions {
    /// Format of the data: auto, jsonl, csv, tsv, e2e or text [default: auto].
    #[arg(long, value_name = "FORMAT", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<DataFormat>,
    /// Column or key with texts [default: text]; with words for token-classification [default: tokens].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_column: Option<String>,
    /// Column or key with the second texts of pairs [default: pair, where it is there].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair_column: Option<String>,
    /// Column or key with labels [default: label].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_column: Option<String>,
    /// Column or key with prompts [default: prompt].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_column: Option<String>,
    /// Column or key with completions [default: completion].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_column: Option<String>,
    /// Plain text: a document is a line, a block between blank lines, or the file [default: block].
    #[arg(long, value_name = "KIND", value_parser = parse_documents, help_heading = "Data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<TextDocuments>,
    /// Put texts end to end and cut them into examples of the longest length, to pretrain on.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    pub concatenate: bool,
    /// Learn the prompt too, not the completion alone.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    pub loss_on_prompt: bool,
    /// Do not end examples with the end-of-text token.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    pub no_eos: bool,
}

fn parse_documents(text: &str) -> Result<TextDocuments, String> {
    parse_word(text)
}
