//! Files of results, written one by one and continued after an interruption.

use crate::TrainError;
use clap::Args;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Key of the hash of model, adapters and options, by which a continued file is compared with the run.
const RUN: &str = "run";
/// Longest line in bytes that is read again.
const MAX_LINE: u64 = 64 << 20;

/// Options for a file of results.
#[derive(Args, Clone, Debug, Default)]
pub struct OutputOptions {
    /// Write one JSON object per input to FILE, each as soon as it is there [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Continue the output of an interrupted run with the same inputs and options.
    #[arg(long, requires = "output")]
    pub resume: bool,
    /// Replace the output if it exists.
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
}

impl OutputOptions {
    /// Refuses an output that exists and is neither continued nor replaced, before any work.
    ///
    /// # Errors
    /// [`TrainError::OutputExists`].
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        match &self.output {
            Some(path) if path.exists() && !self.resume && !self.overwrite => {
                Err(TrainError::OutputExists { path: path.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// File of results as JSON Lines, one for each input in order. A lock keeps other processes from writing to it.
pub(crate) struct ResultFile {
    path: PathBuf,
    file: File,
    run: String,
    /// Number of results that the file has.
    done: usize,
}

impl ResultFile {
    /// Opens the file of the options; `None` without one. `inputs` holds the value that each line has under `key`; `run`
    /// describes model, adapters and options.
    ///
    /// # Errors
    /// [`TrainError::OutputExists`] if it exists and is neither continued nor replaced; [`TrainError::DataLine`] for a line of
    /// another run; [`TrainError::Config`] if another process writes to it.
    pub fn open(
        options: &OutputOptions,
        key: &str,
        inputs: &[Value],
        run: &dyn std::fmt::Debug,
    ) -> Result<Option<Self>, TrainError> {
        let Some(path) = &options.output else {
            return Ok(None);
        };
        let io = || TrainError::io(path);
        let mut open = OpenOptions::new();
        open.read(true).write(true);
        if options.resume || options.overwrite {
            open.create(true).truncate(false);
        } else {
            open.create_new(true);
        }
        let file = open.open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => TrainError::OutputExists { path: path.clone() },
            _ => io()(error),
        })?;
        match file.try_lock() {
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("{}: another process writes to it", path.display());
                return Err(TrainError::config("output", message));
            }
        }
        let mut hasher = DefaultHasher::new();
        format!("{run:?}").hash(&mut hasher);
        let mut results = Self {
            path: path.clone(),
            file,
            run: format!("{:016x}", hasher.finish()),
            done: 0,
        };
        let complete = if options.resume {
            results.read(key, inputs)?
        } else {
            0
        };
        // The rest is a line that was cut off.
        results.file.set_len(complete).map_err(io())?;
        results.file.seek(SeekFrom::End(0)).map_err(io())?;
        Ok(Some(results))
    }

    /// Compares the lines of the file with the run, and returns the length of the complete ones in bytes.
    fn read(&mut self, key: &str, inputs: &[Value]) -> Result<u64, TrainError> {
        let mut complete = 0;
        let mut reader = BufReader::new(&self.file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
            let read = read.map_err(TrainError::io(&self.path))?;
            if line.last() != Some(&b'\n') && (read as u64) < MAX_LINE {
                return Ok(complete);
            }
            let refuse = |message: &str| TrainError::DataLine {
                path: self.path.clone(),
                line: self.done + 1,
                message: message.into(),
            };
            let object: Map<String, Value> = serde_json::from_slice(&line).map_err(|_| {
                refuse("expected the result of an interrupted run; `overwrite` starts anew")
            })?;
            if inputs
                .get(self.done)
                .is_none_or(|input| object.get(key) != Some(input))
            {
                let message =
                    format!("its `{key}` is not that of this run's input; `overwrite` starts anew");
                return Err(refuse(&message));
            }
            if object.get(RUN).and_then(Value::as_str) != Some(&self.run) {
                let message = "it is a result of another model, other adapters or other options; `overwrite` starts anew";
                return Err(refuse(message));
            }
            complete += read as u64;
            self.done += 1;
        }
    }

    /// Returns the number of results that the file has.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the result of the input at `index`, unless the file has it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, index: usize, mut result: Map<String, Value>) -> Result<(), TrainError> {
        if index < self.done {
            return Ok(());
        }
        result.insert(RUN.into(), json!(self.run));
        let line = format!("{}\n", Value::Object(result));
        self.file
            .write_all(line.as_bytes())
            .map_err(TrainError::io(&self.path))?;
        self.done += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, resume: bool, run: &str) -> Result<ResultFile, TrainError> {
        let options = OutputOptions {
            output: Some(path.into()),
            resume,
            overwrite: false,
        };
        let inputs = ["a", "b", "c"].map(|text| json!(text));
        Ok(ResultFile::open(&options, "text", &inputs, &run)?.unwrap())
    }

    fn result(text: &str) -> Map<String, Value> {
        let object = json!({"text": text, "n": 1});
        object.as_object().unwrap().clone()
    }

    #[test]
    fn a_line_that_was_cut_off_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = open(&path, false, "x").unwrap();
        file.add(0, result("a")).unwrap();
        file.add(1, result("b")).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut file = open(&path, true, "x").unwrap();
            assert!(file.done() <= 2);
            file.add(0, result("a")).unwrap();
            file.add(1, result("b")).unwrap();
            assert_eq!((file.done(), file.path()), (2, path.as_path()));
            drop(file);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn a_file_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = open(&path, false, "x").unwrap();
        file.add(0, result("a")).unwrap();
        assert!(
            open(&path, true, "x")
                .err()
                .unwrap()
                .to_string()
                .contains("another process")
        );
        drop(file);
        assert!(matches!(
            open(&path, false, "x"),
            Err(TrainError::OutputExists { .. })
        ));
        let message = |run: &str| open(&path, true, run).err().map(|error| error.to_string());
        assert!(message("y").unwrap().contains("other options"));
        assert!(message("x").is_none());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"a\"", "\"z\"")).unwrap();
        assert!(message("x").unwrap().contains("line 1"));
        std::fs::write(&path, "not JSON\n").unwrap();
        assert!(message("x").unwrap().contains("overwrite"));
    }
}
