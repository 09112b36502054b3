//! Templates that make an input and its reference text a prompt and a completion.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::record::{Origin, Record};
use crate::error::TrainError;

/// Template by its name on the command line and in recipes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateName {
    /// Template of the data's format: see [`DataFormat::template`](super::DataFormat::template).
    #[default]
    Format,
    /// [`PairTemplate::microsoft_lora`].
    MicrosoftLora,
}

impl TemplateName {
    const ALL: [(&'static str, Self); 2] = [
        ("format", Self::Format),
        ("microsoft-lora", Self::MicrosoftLora),
    ];
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::ALL.iter();
        let name = names.find(|(_, template)| template == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for TemplateName {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let mut names = Self::ALL.iter();
        let found = names.find(|(name, _)| *name == text);
        found.map(|(_, template)| *template).ok_or_else(|| {
            let message = format!("is `{text}`; expected `format` or `microsoft-lora`");
            TrainError::config("template", message)
        })
    }
}

/// Template that makes an input and its reference text a prompt and a completion. Both are trimmed first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairTemplate {
    /// Text that follows the input in the prompt.
    pub prompt_suffix: String,
    /// Text that precedes the reference in the completion. A byte-level tokenizer needs the space here
    /// rather than at the end of the prompt, because it belongs to the token of the next word.
    pub completion_prefix: String,
}

impl PairTemplate {
    /// Token that microsoft/LoRA puts between input and reference.
    pub(crate) const MICROSOFT_SEPARATOR: &'static str = "<|endoftext|>";

    pub(super) fn new(prompt_suffix: &str, completion_prefix: &str) -> Self {
        Self {
            prompt_suffix: prompt_suffix.into(),
            completion_prefix: completion_prefix.into(),
        }
    }

    /// Returns the template of microsoft/LoRA for GPT-2: `{input}<|endoftext|>` and ` {reference}`
    /// (`format_converting_*.py`, `gpt2_encode.py --add_bos --add_eos`). The tokenizer must encode `<|endoftext|>` as the one
    /// special token that it names.
    pub fn microsoft_lora() -> Self {
        Self::new(Self::MICROSOFT_SEPARATOR, " ")
    }

    /// Makes the record of an input and a reference.
    pub(super) fn record(&self, input: &str, reference: &str, origin: Origin) -> Record {
        let (input, reference) = (input.trim(), reference.trim());
        Record::prompt_completion(
            format!("{input}{}", self.prompt_suffix),
            format!("{}{reference}", self.completion_prefix),
            origin,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_options_and_in_recipes() {
        for (name, template) in TemplateName::ALL {
            assert_eq!(name.parse::<TemplateName>().unwrap(), template);
            assert_eq!(serde_json::to_value(template).unwrap(), name);
        }
        let message = "gpt3".parse::<TemplateName>().unwrap_err().to_string();
        assert!(message.contains("`microsoft-lora`"), "{message}");
    }
}
