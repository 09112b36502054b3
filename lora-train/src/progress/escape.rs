//! Text of files and models in a form that a terminal only shows.
//!
//! A name in a file of strangers can hold the sequences by which programs control a terminal: they move the cursor over
//! other lines, set the clipboard, or change the title. All output of the program passes through this file.

use std::fmt::{self, Display, Write};

/// Text for people. Control characters and marks that change the direction of a line are shown as `\u{1b}`.
///
/// Line breaks and tabs are kept, as are letters of all scripts and the joiners in them.
pub(crate) struct Escaped<T> {
    text: T,
    line_break: &'static str,
}

impl<T: Display> Escaped<T> {
    /// Escapes a text of several lines.
    pub(crate) fn lines(text: T) -> Self {
        let line_break = "\n";
        Self { text, line_break }
    }

    /// Escapes a text that must stay on one line.
    pub(crate) fn line(text: T) -> Self {
        let line_break = "\\n";
        Self { text, line_break }
    }
}

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line_break = self.line_break;
        let escape = |character: char, to: &mut fmt::Formatter<'_>| match character {
            '\n' => to.write_str(line_break),
            _ => write!(to, "{}", character.escape_default()),
        };
        let is_special = |character| character == '\n' || is_active(character);
        write_escaped(f, is_special, escape, &self.text)
    }
}

impl Escaped<String> {
    /// Escapes a message, whose further lines are indented, so that a name with a line break cannot pass for another message.
    pub(crate) fn message(text: impl Display) -> Self {
        let text = text.to_string();
        let mut further = text.split('\n').skip(1);
        let indented = further.all(|line| line.is_empty() || line.starts_with(' '));
        Self::lines(if indented {
            text
        } else {
            text.replace('\n', "\n  ")
        })
    }
}

/// JSON on one line, in which the characters that JSON leaves as they are, such as C1 controls, are escapes as well. It has
/// the same value.
pub(crate) struct EscapedJson<T>(pub(crate) T);

impl<T: Display> Display for EscapedJson<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All of them are in the first plane, where one unit of UTF-16 is one character.
        let escape = |character: char, to: &mut fmt::Formatter<'_>| {
            write!(to, "\\u{:04x}", u32::from(character))
        };
        write_escaped(f, is_active, escape, &self.0)
    }
}

/// Returns true for a character that acts on a terminal or changes the order of the characters around it.
fn is_active(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        // Line and paragraph separators; embeddings, overrides and isolates of directions.
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // C0 and C1 with DEL.
        _ => character.is_control(),
    }
}

/// Writes a text, whose special characters go to `escape`.
fn write_escaped(
    to: &mut fmt::Formatter<'_>,
    is_special: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut fmt::Formatter<'_>) -> fmt::Result,
    text: impl Display,
) -> fmt::Result {
    let mut writer = Escaping {
        to,
        is_special,
        escape,
    };
    write!(writer, "{text}")
}

/// Writer that passes special characters to `escape`.
struct Escaping<'a, 'b, S, E> {
    to: &'a mut fmt::Formatter<'b>,
    is_special: S,
    escape: E,
}

impl<S, E> Write for Escaping<'_, '_, S, E>
where
    S: Fn(char) -> bool,
    E: Fn(char, &mut fmt::Formatter<'_>) -> fmt::Result,
{
    fn write_str(&mut self, mut text: &str) -> fmt::Result {
        while let Some(at) = text.find(&self.is_special) {
            let (plain, rest) = text.split_at(at);
            self.to.write_str(plain)?;
            let mut rest = rest.chars();
            if let Some(special) = rest.next() {
                (self.escape)(special, self.to)?;
            }
            text = rest.as_str();
        }
        self.to.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OSC 52 sets the clipboard, CSI clears the screen, in the forms of seven and of eight bits.
    const HOSTILE: &str = "a\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}2J\r\u{8}\u{7f}\u{202e}b";

    fn is_safe(text: &str) -> bool {
        !text.contains(|character: char| character.is_control() || character == '\u{202e}')
    }

    #[test]
    fn controls_are_shown_and_do_not_act() {
        let shown = Escaped::lines(HOSTILE).to_string();
        assert_eq!(
            shown,
            r"a\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}2J\r\u{8}\u{7f}\u{202e}b"
        );
        assert!(is_safe(&shown));
    }

    #[test]
    fn line_breaks_make_no_line_that_passes_for_another() {
        let forged = "name\nerror: none";
        assert_eq!(Escaped::line(forged).to_string(), r"name\nerror: none");
        assert_eq!(Escaped::message(forged).to_string(), "name\n  error: none");
        assert_eq!(Escaped::lines(forged).to_string(), forged);
        let indented = "model\n  of four layers";
        assert_eq!(Escaped::message(indented).to_string(), indented);
    }

    #[test]
    fn texts_of_all_scripts_stay() {
        let text = "naïve\tשלום مرحبا नमस्ते 👩\u{200d}👩\u{200d}👧 Ġthe ▁le";
        assert_eq!(Escaped::line(text).to_string(), text);
        assert_eq!(EscapedJson(text).to_string(), text);
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, "\u{85}\u{2028}"] });
        let shown = EscapedJson(&value).to_string();
        assert!(is_safe(&shown), "{shown}");
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, value);
    }
}
