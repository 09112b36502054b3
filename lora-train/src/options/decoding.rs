//! Options of the texts that an evaluation generates.

use clap::Args;
use serde::{Deserialize, Serialize};

/// Options of the texts that an evaluation generates, beside their length and the number of beams.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecodingOptions {
    /// Exponent of the length by which a beam's score is divided [default: the model's, else 1].
    #[arg(long, value_name = "X", help_heading = "Generated texts")]
    pub length_penalty: Option<f64>,
    /// Length of the n-grams that may not repeat; 0 allows any repetition [default: the model's, else 0].
    #[arg(long, value_name = "N", help_heading = "Generated texts")]
    pub no_repeat_ngram: Option<usize>,
    /// Token that ends a text, too, by its text, such as `\n\n`; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = unescape, help_heading = "Generated texts")]
    pub stop_token: Option<Vec<String>>,
}

/// Replaces `\n`, `\t` and `\\` in a text of the command line.
pub(crate) fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        plain.push(match c {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('\\') => '\\',
                _ => return Err("has a `\\` that is not `\\n`, `\\t`, `\\r` or `\\\\`".into()),
            },
            c => c,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_are_written_as_in_c() {
        assert_eq!(unescape(r"\n\n").unwrap(), "\n\n");
        assert_eq!(unescape(r"a\\n\t").unwrap(), "a\\n\t");
        assert!(unescape(r"a\").is_err() && unescape(r"\x").is_err());
    }
}
