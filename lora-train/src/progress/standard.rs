//! Standard output and standard error, without the panics of `println!` and `eprintln!`.

use crate::TrainError;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Name of standard output in messages.
const STANDARD_OUTPUT: &str = "standard output";

/// Writes a text to standard output at once.
///
/// # Errors
/// [`TrainError::Io`] if it is closed or full; see [`is_closed_pipe`].
pub fn print(text: impl Display) -> Result<(), TrainError> {
    let mut output = io::stdout().lock();
    let written = write!(output, "{text}").and_then(|()| output.flush());
    written.map_err(TrainError::io(STANDARD_OUTPUT))
}

/// Writes a line to standard output at once.
///
/// # Errors
/// As [`print()`].
pub fn print_line(text: impl Display) -> Result<(), TrainError> {
    print(format_args!("{text}\n"))
}

/// Writes a line to standard error. If that is closed or full, there is no place left to say so.
pub fn print_message(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
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
