//! Files of results, written one by one and continued after an interruption.

use super::inputs::Inputs;
use super::run_key::RunKey;
use crate::TrainError;
use crate::trainer::ranks::{Ranks, number_of_first};
use clap::Args;
use lora_core::LoraError;
use lora_core::files::{AtomicFile, Overwrite, check_file, remove_leftovers};
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
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
    /// Refuses an output that cannot be written, before any work: one that exists and is neither continued nor replaced, that
    /// is one of the inputs, or that is no file.
    ///
    /// # Errors
    /// [`TrainError::OutputExists`], [`TrainError::Config`], or [`TrainError::Lora`] if its folder cannot be written.
    pub(crate) fn check(&self, inputs: &Inputs) -> Result<(), TrainError> {
        match &self.output {
            Some(path) => check_output("output", path, self.overwrite || self.resume, inputs),
            None => Ok(()),
        }
    }
}

/// Refuses an output file that cannot be written, or may not be, before the work for it. `existing` allows one that exists.
///
/// # Errors
/// [`TrainError::OutputExists`]; [`TrainError::Config`] that names `option` for one of the inputs, or what is no regular file;
/// [`TrainError::Lora`] if its folder cannot be written.
fn check_output(
    option: &str,
    path: &Path,
    existing: bool,
    inputs: &Inputs,
) -> Result<(), TrainError> {
    inputs.refuse_file(option, path)?;
    let there = path.symlink_metadata().is_ok();
    if there && !existing {
        return Err(TrainError::OutputExists { path: path.into() });
    }
    if there && !path.is_file() && !path.is_dir() {
        let message = format!("{} is no regular file; give another one", path.display());
        return Err(TrainError::config(option, message));
    }
    Ok(check_file(path, Overwrite::Replace)?)
}

/// File of results as JSON Lines, one for each input in order. A lock keeps other processes from writing to it.
///
/// A new file takes its place with its first line, and only then replaces an old one: until there is a result, an error or a kill
/// leaves what was there. Each line is written at once; of a line that a kill cut off, the next run writes it again.
pub(crate) struct ResultFile {
    path: PathBuf,
    file: Place,
    /// Object of each line without its results, which begins the line.
    heads: Vec<Map<String, Value>>,
    /// Number of results that the file has.
    done: usize,
}

/// File that the lines go to.
enum Place {
    /// No file before the first line, which replaces the locked file, if there is one.
    Replaces(Option<File>),
    /// A locked file. The one that it replaced stays locked, for processes that opened it before.
    Open { file: File, _replaced: Option<File> },
}

impl ResultFile {
    /// Opens the file of the options at the first rank, as [`open`](Self::open); also returns the number of results that it has, at
    /// every rank.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`TrainError::Rank`] if another rank has ended.
    pub fn open_at(
        ranks: &dyn Ranks,
        options: &OutputOptions,
        key: &str,
        inputs: &[Value],
        run: impl FnOnce() -> Result<RunKey, TrainError>,
    ) -> Result<(Option<Self>, usize), TrainError> {
        let file = if ranks.is_first() {
            Self::open(options, key, inputs, run)?
        } else {
            None
        };
        let done = number_of_first(ranks, file.as_ref().map_or(0, Self::done))?;
        Ok((file, done))
    }

    /// Opens the file of the options; `None` without one. `inputs` holds the value that each line has under `key`; `run` computes
    /// the key of the run.
    ///
    /// # Errors
    /// [`TrainError::OutputExists`] if it exists and is neither continued nor replaced; [`TrainError::DataLine`] for a line of
    /// another run; [`TrainError::Config`] if another process writes to it.
    pub fn open(
        options: &OutputOptions,
        key: &str,
        inputs: &[Value],
        run: impl FnOnce() -> Result<RunKey, TrainError>,
    ) -> Result<Option<Self>, TrainError> {
        let Some(path) = &options.output else {
            return Ok(None);
        };
        let run = json!(run()?.finish());
        let head = |input: &Value| {
            let entries = [(key.into(), input.clone()), (RUN.into(), run.clone())];
            Map::from_iter(entries)
        };
        let heads = inputs.iter().map(head).collect();
        Self::at(path, options, key, heads).map(Some)
    }

    fn at(
        path: &Path,
        options: &OutputOptions,
        key: &str,
        heads: Vec<Map<String, Value>>,
    ) -> Result<Self, TrainError> {
        // A link stays, and the file that it leads to is the one.
        let target = path.is_symlink().then(|| path.canonicalize().ok());
        let path = target.flatten().unwrap_or_else(|| path.into());
        let folder = path.parent().filter(|folder| folder.is_dir());
        remove_leftovers(folder.unwrap_or(Path::new(".")));
        let existing = locked(&path)?;
        if existing.is_some() && !options.resume && !options.overwrite {
            return Err(TrainError::OutputExists { path });
        }
        let mut results = Self {
            path,
            file: Place::Replaces(None),
            heads,
            done: 0,
        };
        results.file = match existing {
            Some(mut file) if options.resume => {
                let complete = results.read(&file, key)?;
                // The rest is a line that was cut off.
                let io = || TrainError::io(&results.path);
                file.set_len(complete).map_err(io())?;
                file.seek(SeekFrom::End(0)).map_err(io())?;
                Place::Open {
                    file,
                    _replaced: None,
                }
            }
            existing => Place::Replaces(existing),
        };
        Ok(results)
    }

    /// Compares the lines of the file with the run, and returns the length of the complete ones in bytes.
    fn read(&mut self, file: &File, key: &str) -> Result<u64, TrainError> {
        let mut complete = 0;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
            let read = read.map_err(TrainError::io(&self.path))?;
            let head = self.heads.get(self.done);
            let refuse = |message: &str| TrainError::DataLine {
                path: self.path.clone(),
                line: self.done + 1,
                message: format!("{message}; `overwrite` starts anew"),
            };
            let other = "expected the result of an interrupted run";
            if line.last() != Some(&b'\n') && (read as u64) < MAX_LINE {
                return match head.map(start_of) {
                    _ if line.is_empty() => Ok(complete),
                    Some(start) if agree(&line, start.as_bytes()) => Ok(complete),
                    _ => Err(refuse(other)),
                };
            }
            let object: Map<String, Value> =
                serde_json::from_slice(&line).map_err(|_| refuse(other))?;
            let differs = |name: &str| head.is_none_or(|head| head.get(name) != object.get(name));
            if differs(key) {
                let message = format!("its `{key}` is not that of this run's input");
                return Err(refuse(&message));
            }
            if differs(RUN) {
                let message = "it is a result of another model, other adapters or other options";
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

    /// Appends the result of the input at `index`, unless the file has it. `result` has what the input does not tell.
    ///
    /// # Errors
    /// If it cannot be written, or another process wrote a new file meanwhile.
    pub fn add(&mut self, index: usize, result: Map<String, Value>) -> Result<(), TrainError> {
        if index < self.done {
            return Ok(());
        }
        let mut line = self.heads[index].clone();
        line.extend(result);
        let line = format!("{}\n", Value::Object(line));
        match &mut self.file {
            Place::Open { file, .. } => {
                let written = file.write_all(line.as_bytes());
                written.map_err(TrainError::io(&self.path))?;
            }
            Place::Replaces(old) => {
                let mut file = AtomicFile::create(&self.path)?;
                let written = file.write_all(line.as_bytes());
                written.map_err(TrainError::io(&self.path))?;
                let file = file.commit_open(old.is_some().into());
                let file = file.map_err(|error| match error {
                    LoraError::AlreadyExists { path } => TrainError::OutputExists { path },
                    error => error.into(),
                })?;
                self.file = Place::Open {
                    file,
                    _replaced: old.take(),
                };
            }
        }
        self.done += 1;
        Ok(())
    }
}

/// Returns the text that the line of an input begins with.
fn start_of(head: &Map<String, Value>) -> String {
    let mut text = json!(head).to_string();
    text.pop(); // The closing brace.
    text
}

/// Returns true if one text is the start of the other.
fn agree(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Opens and locks a file; `None` if there is none.
fn locked(path: &Path) -> Result<Option<File>, TrainError> {
    loop {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(TrainError::io(path))?,
        };
        match file.try_lock() {
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("{}: another process writes to it", path.display());
                return Err(TrainError::config("output", message));
            }
        }
        // Another process may have replaced it before it was locked.
        if is_at(&file, path) {
            return Ok(Some(file));
        }
    }
}

/// Returns true if a file is still at its path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(file), Ok(there)) = (file.metadata(), path.metadata()) else {
        return false;
    };
    (file.dev(), file.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true // There, an open file is not replaced.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq)]
    enum How {
        New,
        Resume,
        Overwrite,
    }
    use How::{New, Overwrite, Resume};

    fn open(path: &Path, how: How, run: &str) -> Result<ResultFile, TrainError> {
        let options = OutputOptions {
            output: Some(path.into()),
            resume: how == Resume,
            overwrite: how == Overwrite,
        };
        let inputs = ["a", "b", "c"].map(|text| json!(text));
        let run = || Ok(RunKey::default().with("run", &run));
        Ok(ResultFile::open(&options, "text", &inputs, run)?.unwrap())
    }

    fn result() -> Map<String, Value> {
        Map::from_iter([("n".into(), json!(1))])
    }

    fn message(path: &Path, how: How, run: &str) -> String {
        open(path, how, run).err().unwrap().to_string()
    }

    #[test]
    fn a_line_that_was_cut_off_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = open(&path, New, "x").unwrap();
        file.add(0, result()).unwrap();
        file.add(1, result()).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut file = open(&path, Resume, "x").unwrap();
            assert!(file.done() <= 2);
            file.add(0, result()).unwrap();
            file.add(1, result()).unwrap();
            assert_eq!((file.done(), file.path()), (2, path.as_path()));
            drop(file);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    /// A file of one line without its end was taken for a line that was cut off, and emptied.
    #[test]
    fn what_no_run_began_is_not_taken_for_a_line_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = open(&path, New, "x").unwrap();
        (0..3).for_each(|index| file.add(index, result()).unwrap());
        drop(file);
        let whole = std::fs::read_to_string(&path).unwrap();
        let first = whole.lines().next().unwrap();
        for foreign in [
            "my only notes".to_string(),
            "{\"text\":\"z\"".into(),
            first[..first.len() - 9].replace("\"a\"", "\"b\""),
            // There is no fourth input.
            format!("{whole}{first}"),
            format!("{whole}x"),
        ] {
            std::fs::write(&path, &foreign).unwrap();
            let message = message(&path, Resume, "x");
            assert!(message.contains("interrupted run"), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), foreign);
        }
    }

    #[test]
    fn old_results_stay_until_the_first_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        drop(open(&path, New, "x").unwrap());
        assert!(!path.exists(), "a run without a result leaves no file");
        std::fs::write(&path, "old results").unwrap();
        drop(open(&path, Overwrite, "x").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"old results");
        let mut file = open(&path, Overwrite, "x").unwrap();
        assert!(message(&path, Overwrite, "x").contains("another process"));
        file.add(0, result()).unwrap();
        // The new file is locked as the old one was.
        assert!(message(&path, Overwrite, "x").contains("another process"));
        drop(file);
        let mut file = open(&path, Resume, "x").unwrap();
        assert_eq!(file.done(), 1);
        file.add(1, result()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn of_two_runs_at_once_the_first_with_a_result_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        for how in [New, Overwrite, Resume] {
            let (mut one, mut other) = (open(&path, how, "x"), open(&path, how, "y"));
            let (one, other) = (one.as_mut().unwrap(), other.as_mut().ok().unwrap());
            one.add(0, result()).unwrap();
            let refused = other.add(0, result());
            assert!(matches!(refused, Err(TrainError::OutputExists { .. })));
            one.add(1, result()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("out.jsonl"), dir.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = open(&link, Overwrite, "x").unwrap();
        file.add(0, result()).unwrap();
        assert!(link.is_symlink() && std::fs::read(&path).unwrap().starts_with(b"{"));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_replaced_by_a_file() {
        let inputs = Inputs::default();
        let null = Path::new("/dev/null");
        let refused = check_output("output", null, true, &inputs).unwrap_err();
        assert!(refused.to_string().contains("no regular file"));
    }

    #[test]
    fn a_file_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let mut file = open(&path, New, "x").unwrap();
        file.add(0, result()).unwrap();
        assert!(message(&path, Resume, "x").contains("another process"));
        drop(file);
        assert!(matches!(
            open(&path, New, "x"),
            Err(TrainError::OutputExists { .. })
        ));
        assert!(message(&path, Resume, "y").contains("other options"));
        assert!(open(&path, Resume, "x").is_ok());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"a\"", "\"z\"")).unwrap();
        assert!(message(&path, Resume, "x").contains("line 1"));
        std::fs::write(&path, "not JSON\n").unwrap();
        assert!(message(&path, Resume, "x").contains("overwrite"));
    }
}
