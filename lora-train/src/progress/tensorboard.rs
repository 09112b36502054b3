//! Event files for TensorBoard: scalars of steps and evaluations.
//!
//! A file is a sequence of records in TensorFlow's `TFRecord` format: a length of eight bytes, its checksum, a message and its
//! checksum, all in little-endian order. A message is an `Event` of `tensorflow/core/util/event.proto`, of which a few fields are
//! used; `protoc` and a crate for all of protobuf would be much for three messages.

use crate::TrainError;
use crate::trainer::{EvalEvent, Event, Observer, StepEvent};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Version that readers expect in the first event.
const VERSION: &str = "brain.Event:2";

/// Observer that writes an event file.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Creates an event file in a directory, which may have those of earlier sessions, to continue after `step`. Readers drop what
    /// earlier files have of later steps. `before` are the metrics before the first step, by name.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn create(
        dir: &Path,
        step: usize,
        before: &BTreeMap<String, f64>,
    ) -> Result<Self, TrainError> {
        fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
        let now = seconds() as u64;
        // Readers take the files of a directory in the order of their names.
        let mut names =
            (now..).map(|second| dir.join(format!("events.out.tfevents.{second:010}.lora")));
        let path = names.find(|path| !path.exists()).unwrap_or_default();
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let file = file.map_err(TrainError::io(&path))?;
        let mut board = Self { path, file };
        board.write(&event(seconds(), 0, 3, VERSION.as_bytes()))?;
        if step > 0 {
            // Field 1 of `SessionLog`: the session starts.
            board.write(&event(seconds(), step + 1, 7, &[1 << 3, 1]))?;
        }
        let before = before
            .iter()
            .map(|(name, value)| (format!("eval/{name}"), *value));
        board.scalars(0, before.collect())?;
        Ok(board)
    }

    fn step(&mut self, step: &StepEvent) -> Result<(), TrainError> {
        let values = [
            ("train/loss", step.loss),
            ("train/lr", step.lr),
            ("train/grad_norm", step.grad_norm),
            ("train/epoch", step.epoch),
        ];
        let values = values.map(|(name, value)| (name.into(), value));
        self.scalars(step.step, values.into())
    }

    fn evaluation(&mut self, eval: &EvalEvent) -> Result<(), TrainError> {
        let values = eval.eval.iter();
        let values = values.map(|(name, value)| (format!("eval/{name}"), *value));
        self.scalars(eval.step, values.collect())
    }

    fn scalars(&mut self, step: usize, values: Vec<(String, f64)>) -> Result<(), TrainError> {
        if values.is_empty() {
            return Ok(());
        }
        self.write(&event(seconds(), step, 5, &summary(&values)))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), TrainError> {
        // One call for each record: an interrupted run leaves complete ones.
        let written = self.file.write_all(&record(event));
        written.map_err(TrainError::io(&self.path))
    }
}

impl Observer for TensorBoard {
    fn observe(&mut self, event: &Event) -> Result<(), TrainError> {
        match event {
            Event::Step(step) => self.step(step),
            Event::Eval(eval) => self.evaluation(eval),
            _ => Ok(()),
        }
    }
}

fn seconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}

/// Returns a record with its checksums.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(checksum(&length).to_le_bytes());
    record.extend(message);
    record.extend(checksum(message).to_le_bytes());
    record
}

/// Returns the masked CRC-32C of a record's part.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Encodes an `Event`: `wall_time` (1), `step` (2), and one of `file_version` (3), `summary` (5) and `session_log` (7).
fn event(seconds: f64, step: usize, field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(seconds.to_le_bytes());
    if step > 0 {
        bytes.push(2 << 3);
        add_varint(&mut bytes, step as u64);
    }
    add_bytes(&mut bytes, field, content);
    bytes
}

/// Encodes a `Summary` of values with `tag` (1) and `simple_value` (2).
fn summary(values: &[(String, f64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, value) in values {
        let mut one = Vec::new();
        add_bytes(&mut one, 1, tag.as_bytes());
        one.push(2 << 3 | 5);
        one.extend((*value as f32).to_le_bytes());
        add_bytes(&mut bytes, 1, &one);
    }
    bytes
}

/// Adds a field with a length: a text or a message.
fn add_bytes(to: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    to.push(field << 3 | 2);
    add_varint(to, bytes.len() as u64);
    to.extend(bytes);
}

fn add_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records that TensorBoard wrote: see `tests/fixtures/tensorboard/generate.py`.
    #[test]
    fn records_are_those_of_tensorboard() {
        let expected = include_bytes!("../../tests/fixtures/tensorboard/events.bin");
        let values = [
            ("train/loss".to_string(), 2.25),
            ("eval/größe".to_string(), -0.0),
            ("train/lr".to_string(), f64::from(1e-3f32)),
        ];
        let events = [
            event(1_700_000_000.25, 0, 3, VERSION.as_bytes()),
            event(1_700_000_001.5, 301, 7, &[1 << 3, 1]),
            event(1_700_000_002.0, 70_000, 5, &summary(&values)),
            event(1_700_000_003.0, 0, 5, &summary(&values[..1])),
        ];
        let written: Vec<u8> = events.iter().flat_map(|event| record(event)).collect();
        assert_eq!(written, expected);
    }

    #[test]
    fn each_session_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let before = BTreeMap::from([("loss".to_string(), 3.0)]);
        drop(TensorBoard::create(dir.path(), 0, &before).unwrap());
        drop(TensorBoard::create(dir.path(), 5, &BTreeMap::new()).unwrap());
        let files = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        names.sort();
        let contents: Vec<Vec<u8>> = names.iter().map(|name| fs::read(name).unwrap()).collect();
        let has = |content: &[u8], text: &[u8]| content.windows(text.len()).any(|w| w == text);
        assert_eq!(contents.len(), 2);
        assert!(has(&contents[0], b"eval/loss") && !has(&contents[1], b"eval/loss"));
    }
}
