//! Standard output and standard error, without the panics of `println!` and `eprintln!`, and without sequences that control a
//! terminal.

use super::escape::{Escaped, EscapedJson};
use crate::TrainError;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Name of standard output in messages.
const STANDARD_OUTPUT: &str = "standard output";

/// Writes a text for people to standard output at once. Control characters in it are escaped; see [`print_text`].
///
/// # Errors
/// [`TrainError::Io`] if it is closed or full; see [`is_closed_pipe`].
pub fn print(text: impl Display) -> Result<(), TrainError> {
    write_out(Escaped::lines(text))
}

/// Writes a line for people to standard output at once, as [`print()`].
///
/// # Errors
/// As [`print()`].
pub fn print_line(text: impl Display) -> Result<(), TrainError> {
    print(format_args!("{text}\n"))
}

/// Writes a text for people as one line to standard output at once: line breaks in it are escaped as well.
///
/// # Errors
/// As [`print()`].
pub fn print_row(text: impl Display) -> Result<(), TrainError> {
    write_out(format_args!("{}\n", Escaped::line(text)))
}

/// Writes a line of JSON to standard output at once. All control characters in it are escapes, with which it has the same value.
///
/// # Errors
/// As [`print()`].
pub fn print_json(json: impl Display) -> Result<(), TrainError> {
    write_out(format_args!("{}\n", EscapedJson(json)))
}

/// Writes a line of a model's text to standard output at once: as it is for a file or another program, and with control
/// characters escaped on a terminal, where a model could have learned to write sequences that act.
///
/// # Errors
/// As [`print()`].
pub fn print_text(text: impl Display) -> Result<(), TrainError> {
    if io::stdout().is_terminal() {
        print_line(text)
    } else {
        write_out(format_args!("{text}\n"))
    }
}

/// Writes a piece of a model's text to standard output at once, as [`print_text`], but without the end of a line.
///
/// # Errors
/// As [`print()`].
pub fn print_piece(text: impl Display) -> Result<(), TrainError> {
    if io::stdout().is_terminal() {
        print(text)
    } else {
        write_out(text)
    }
}

/// Writes a sign that input is awaited to standard error, if a person reads it and types.
pub fn print_prompt(sign: &str) {
    let mut error = io::stderr();
    if io::stdin().is_terminal() && error.is_terminal() {
        let _ = write!(error, "{sign} ").and_then(|()| error.flush());
    }
}

/// Writes a text to standard output at once.
pub(super) fn write_out(text: impl Display) -> Result<(), TrainError> {
    let mut output = io::stdout().lock();
    let written = write!(output, "{text}").and_then(|()| output.flush());
    written.map_err(TrainError::io(STANDARD_OUTPUT))
}

/// Writes a message to standard error: control characters are escaped, and further lines indented. If standard error is closed
/// or full, there is no place left to say so.
pub fn print_message(text: impl Display) {
    let _ = writeln!(io::stderr(), "{}", Escaped::message(text));
}

/// Returns true for the error of a reader of standard output that has read enough, such as `head`: the work is done for
/// nobody, and there is nobody to tell.
pub fn is_closed_pipe(error: &TrainError) -> bool {
    match error {
        TrainError::Io { path, source } => {
            path == Path::new(STANDARD_OUTPUT) && source.kind() == ErrorKind::BrokenPipe
        }
        _ => false,
    }
}
