//! Text in HTML and SVG.

use crate::progress::Escaped;
use std::fmt::{Display, Formatter, Result, Write};

/// Text of a file as the text of an element or the value of an attribute in quotes: it is shown and never markup. Control characters
/// and marks that change the direction of a line are shown as `\u{1b}`.
pub(super) struct Text<T>(pub T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for character in Escaped::lines(&self.0).to_string().chars() {
            match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                _ => f.write_char(character),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_a_text_is_text() {
        let hostile = "</td><script>alert('x')</script> \" onload=\"& \u{1b}[2J\u{202e}";
        let shown = Text(hostile).to_string();
        assert!(
            !shown.contains(['<', '>', '"', '\'', '\u{1b}', '\u{202e}']),
            "{shown}"
        );
        assert!(
            shown.contains("&lt;script&gt;") && shown.contains("&amp; "),
            "{shown}"
        );
        assert_eq!(Text("naïve שלום\n").to_string(), "naïve שלום\n");
    }
}
