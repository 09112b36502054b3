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

/// Reads a line without its end, as far as it is not too long; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> Result<Option<String>, TrainError> {
    let mut line = Vec::new();
    let read = input
        .take(MAX_LINE_BYTES as u64)
        .read_until(b'\n', &mut line)
        .map_err(TrainError::io("standard input"))?;
    if read == 0 {
        return Ok(None);
    }
    let line = String::from_utf8_lossy(&line);
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_string()))
}
