//! `lora chat`.

use lora_train::TrainError;
use lora_train::data::MAX_LINE_BYTES;
use lora_train::jobs::{ChatOptions, Terminal, chat};
use lora_train::progress::{Screen, print_piece, print_prompt};
use std::io::{BufRead, Read};

pub fn run(options: &ChatOptions) -> Result<(), TrainError> {
    let mut input = std::io::stdin().lock();
    let mut next_line = |goes_on: bool| {
        print_prompt(if goes_on { "." } else { ">" });
        read_line(&mut input)
    };
    let mut piece = |text: &str| print_piece(if text.is_empty() { "\n" } else { text });
    let terminal = Terminal {
        next_line: &mut next_line,
        piece: &mut piece,
    };
    chat(options, &Screen::detect(), terminal)
}

/// Reads a line without its end; `None` at the end of the input. The rest of a line that is too long is skipped: it is no message,
/// and no command.
///
/// # Errors
/// If the input cannot be read, or the line is too long.
fn read_line(input: &mut impl BufRead) -> Result<Option<String>, TrainError> {
    let failed = |error| TrainError::io("standard input")(error);
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64;
    let read = input.take(limit).read_until(b'\n', &mut line);
    if read.map_err(failed)? == 0 {
        return Ok(None);
    }
    if line.len() == MAX_LINE_BYTES && !line.ends_with(b"\n") && skip_line(input).map_err(failed)? {
        let message = format!("a line is longer than {} MiB", MAX_LINE_BYTES >> 20);
        return Err(failed(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            message,
        )));
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_string()))
}

/// Skips the rest of a line; false if there was nothing but its end.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<bool> {
    let skipped = input.skip_until(b'\n')?;
    Ok(skipped > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_an_error_and_skipped() {
        let longest = "x".repeat(MAX_LINE_BYTES);
        let text = format!("{longest}/exit\nnext\n{longest}\nlast");
        let mut input = text.as_bytes();
        let error = read_line(&mut input).unwrap_err().to_string();
        assert!(error.contains("longer than 16 MiB"), "{error}");
        assert_eq!(read_line(&mut input).unwrap().unwrap(), "next");
        assert_eq!(read_line(&mut input).unwrap().unwrap(), longest);
        assert_eq!(read_line(&mut input).unwrap().unwrap(), "last");
        assert_eq!(read_line(&mut input).unwrap(), None);
    }
}
