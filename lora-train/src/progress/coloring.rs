//! Colours on a terminal.

use super::escape::Escaped;
use super::standard::write_out;
use crate::TrainError;
use std::io::{IsTerminal, stdout};
use std::str::FromStr;

/// Sequence of a terminal that begins what is learned: bold and green.
const START: &str = "\u{1b}[1;32m";
/// Sequence of a terminal that ends it.
const END: &str = "\u{1b}[0m";

/// Use of colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coloring {
    /// On a terminal, unless the environment variable `NO_COLOR` is set.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

impl FromStr for Coloring {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("expected auto, always or never".into()),
        }
    }
}

impl Coloring {
    /// Returns true if standard output gets colours.
    fn is_used(self) -> bool {
        match self {
            Self::Auto => {
                let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !unwanted && stdout().is_terminal()
            }
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Piece of a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Text.
    pub text: String,
    /// True if a model learns it.
    pub learned: bool,
    /// Marks around what is learned, where there are no colours.
    pub marks: Option<[&'static str; 2]>,
}

/// Writes pieces of a text to standard output, with what is learned in colour. Control characters in them are escaped.
///
/// # Errors
/// As [`print()`](super::print).
pub fn print_pieces(pieces: &[Piece], coloring: Coloring) -> Result<(), TrainError> {
    let is_colored = coloring.is_used();
    let mut text = String::new();
    for piece in pieces {
        let [start, end] = match (piece.learned, is_colored) {
            (false, _) => ["", ""],
            (true, true) => [START, END],
            (true, false) => piece.marks.unwrap_or(["", ""]),
        };
        text.push_str(start);
        text.push_str(&Escaped::lines(&piece.text).to_string());
        text.push_str(end);
    }
    write_out(text)
}
