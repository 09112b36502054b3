//! Options for reading data files.

use super::template_variables::TemplateVariables;
use super::{is_false, parse_word};
use crate::data::{Categories, Columns, DataFormat, PairTemplate, TemplateName, TextDocuments};
use clap::Args;
use lora_models::chat::TrainOn;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Options for reading data files.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadingOptions {
    /// Format of the data: auto, jsonl, csv, tsv, e2e, dart, webnlg, wikisql, samsum, mnli, text, or messages, sharegpt or alpaca for conversations [default: auto].
    #[arg(long, value_name = "FORMAT", help_heading = "Data")]
    pub format: Option<DataFormat>,
    /// Template of prompts and completions: format, for that of the format, or microsoft-lora, which puts `<|endoftext|>` between the two as the authors of LoRA do for GPT-2 [default: format].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub template: Option<TemplateName>,
    /// Categories of WebNLG to read: all, seen (those of its training data) or unseen [default: all].
    #[arg(long, value_name = "WHICH", help_heading = "Data")]
    pub categories: Option<Categories>,
    /// Column or key of the text [default: text]; for token-classification, of the words [default: tokens].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub text_column: Option<String>,
    /// Column or key of the second text of a pair [default: pair, if there is one].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub pair_column: Option<String>,
    /// Column or key of the label [default: label]; for several labels, of their list, or one column each: `a,b,c`.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub label_column: Option<String>,
    /// Column or key of the prompt [default: prompt].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub prompt_column: Option<String>,
    /// Column or key of the completion [default: completion].
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub completion_column: Option<String>,
    /// For token-classification with byte-level BPE (RoBERTa, DeBERTa v1): encode each word with the space before it, as the scripts of transformers do [default: true].
    #[arg(long, value_name = "BOOL", help_heading = "Data")]
    pub add_prefix_space: Option<bool>,
    /// Unit of a document in plain text: line, block (between blank lines) or file [default: block].
    #[arg(long, value_name = "KIND", value_parser = parse_documents, help_heading = "Data")]
    pub documents: Option<TextDocuments>,
    /// Concatenate texts and split them into examples of the maximum length, for pretraining.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    pub concatenate: bool,
    /// Include the prompt in the loss, not only the completion.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    pub loss_on_prompt: bool,
    /// Turns of a conversation that are learned: all, assistant (all turns of the assistant) or last (its last turn) [default: assistant].
    #[arg(long, value_name = "TURNS", value_parser = parse_train_on, help_heading = "Data")]
    pub train_on: Option<TrainOn>,
    /// Chat template for conversations, in Jinja [default: the one that comes with the model].
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    pub chat_template: Option<PathBuf>,
    /// Variables of the chat template as a JSON object, such as `{"enable_thinking": false}`.
    #[arg(long, value_name = "JSON", help_heading = "Data")]
    pub chat_template_kwargs: Option<TemplateVariables>,
    /// Do not append the end-of-text token to examples.
    #[arg(long, help_heading = "Data")]
    #[serde(skip_serializing_if = "is_false")]
    pub no_eos: bool,
}

impl ReadingOptions {
    /// Returns the template, if it is not that of the format.
    pub(crate) fn pair_template(&self) -> Option<PairTemplate> {
        match self.template.unwrap_or_default() {
            TemplateName::Format => None,
            TemplateName::MicrosoftLora => Some(PairTemplate::microsoft_lora()),
        }
    }

    /// Returns the columns to read. `adapter` is the column with the adapters' names, if they are to be read.
    pub(crate) fn columns(&self, adapter: Option<&str>) -> Columns {
        Columns {
            text: self.text_column.clone(),
            prompt: self.prompt_column.clone(),
            completion: self.completion_column.clone(),
            pair: self.pair_column.clone(),
            label: self.label_column.clone(),
            id: None,
            adapter: adapter.map(String::from),
        }
    }
}

fn parse_train_on(text: &str) -> Result<TrainOn, String> {
    parse_word(text)
}

fn parse_documents(text: &str) -> Result<TextDocuments, String> {
    parse_word(text)
}
