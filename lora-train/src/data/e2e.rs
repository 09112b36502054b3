//! Format of the E2E NLG Challenge: `meaning representation||reference`, one pair a line.
//!
//! ```text
//! name : Alimentum | area : city centre||Alimentum lies in the city centre .
//! ```
//!
//! A meaning representation with several references stands on as many lines.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lines::Lines;
use super::record::Record;
use crate::error::TrainError;

/// Delimiter of the two halves of a line.
const DELIMITER: &str = "||";

/// Template that makes a pair a prompt and a completion. Both halves are trimmed first.
///
/// The default joins `{meaning representation} ||` and ` {reference}`, in plain text that any
/// tokenizer can encode. microsoft/LoRA drops the `||` and puts GPT-2's token `<|endoftext|>`
/// between the two (`format_converting_e2e.py`, `gpt2_encode.py --add_bos`); to reproduce its
/// results, use [`E2eTemplate::microsoft_lora`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct E2eTemplate {
    /// Text that follows the meaning representation in the prompt.
    pub prompt_suffix: String,
    /// Text that precedes the reference in the completion. A byte-level tokenizer needs the space here
    /// rather than at the end of the prompt, because it belongs to the token of the next word.
    pub completion_prefix: String,
}

impl Default for E2eTemplate {
    fn default() -> Self {
        Self {
            prompt_suffix: " ||".to_string(),
            completion_prefix: " ".to_string(),
        }
    }
}

impl E2eTemplate {
    /// Returns the template of microsoft/LoRA for GPT-2: `{meaning representation}<|endoftext|>` and ` {reference}`.
    /// The tokenizer must encode `<|endoftext|>` as the one special token that it names.
    pub fn microsoft_lora() -> Self {
        Self {
            prompt_suffix: "<|endoftext|>".to_string(),
            completion_prefix: " ".to_string(),
        }
    }
}

/// Reads every pair of the file. Blank lines are skipped.
pub(super) fn read(path: &Path, template: &E2eTemplate) -> Result<Vec<Record>, TrainError> {
    let mut lines = Lines::open(path)?;
    let mut records = Vec::new();
    while let Some((line, origin)) = lines.next_text()? {
        let Some((meaning, reference)) = split(&line) else {
            return Err(origin.error(format!(
                "expected `meaning representation{DELIMITER}reference`, both not empty; if this \
                 is plain text, give the format `text`"
            )));
        };
        records.push(Record::prompt_completion(
            format!("{meaning}{}", template.prompt_suffix),
            format!("{}{reference}", template.completion_prefix),
            origin,
        ));
    }
    Ok(records)
}

/// Splits a line at the first delimiter into its trimmed halves; `None` if there is no delimiter, or one side of it is
/// blank.
pub(super) fn split(line: &str) -> Option<(&str, &str)> {
    let (meaning, reference) = line.split_once(DELIMITER)?;
    let (meaning, reference) = (meaning.trim(), reference.trim());
    (!meaning.is_empty() && !reference.is_empty()).then_some((meaning, reference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_text(text: &str, template: &E2eTemplate) -> Result<Vec<Record>, TrainError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        read(file.path(), template)
    }

    #[test]
    fn a_pair_becomes_a_prompt_with_the_delimiter_and_a_completion_after_a_space() {
        let records = read_text(
            "\n name : Alimentum | area : city centre||Alimentum is there . \n",
            &E2eTemplate::default(),
        )
        .unwrap();
        let origin = records[0].origin.clone();
        assert_eq!(origin.line(), 2);
        assert_eq!(
            records,
            [Record::prompt_completion(
                "name : Alimentum | area : city centre ||",
                " Alimentum is there .",
                origin
            )]
        );
    }

    #[test]
    fn the_template_of_microsoft_lora_puts_endoftext_between() {
        let records = read_text("a : b||c .", &E2eTemplate::microsoft_lora()).unwrap();
        let origin = records[0].origin.clone();
        assert_eq!(
            records,
            [Record::prompt_completion(
                "a : b<|endoftext|>",
                " c .",
                origin
            )]
        );
    }

    #[test]
    fn only_the_first_delimiter_splits() {
        assert_eq!(split("a || b || c"), Some(("a", "b || c")));
    }

    #[test]
    fn a_line_without_both_halves_is_named() {
        for line in ["no delimiter", "only meaning||  ", "||only reference"] {
            let text = format!("a||b\n{line}\n");
            let message = read_text(&text, &E2eTemplate::default())
                .unwrap_err()
                .to_string();
            assert!(message.contains("line 2: expected"), "{message}");
        }
    }
}
