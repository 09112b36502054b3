//! Checkpoints: everything that the next step of a run depends on.
//!
//! ```text
//! checkpoints/step-00000120/   adapter/ or model/, optimizer.bpk, state.json: to resume from
//! checkpoints/best-00000100/   adapter/ or model/: the best evaluation so far
//! ```
//! A directory gets its name when it is complete, and only then is the previous one removed: a crash
//! at any moment leaves a complete checkpoint.

use super::Position;
use crate::TrainError;
use burn::optim::OptimizerRecord;
use burn::tensor::Bytes;
use lora_core::LoraError;
use lora_core::files::{Overwrite, read_bounded, write_dir};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const STATE_FILE: &str = "state.json";
const OPTIMIZER_FILE: &str = "optimizer.bpk";
const LAST: &str = "step-";
const BEST: &str = "best-";
/// Largest state file in bytes; a state is a few numbers.
const STATE_LIMIT: u64 = 1 << 20;
/// Largest file of an optimizer in bytes: two values of four bytes for each of 2³⁸ parameters.
const OPTIMIZER_LIMIT: u64 = 1 << 41;

/// State of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Number of steps done; it determines the schedule and the random numbers.
    pub step: usize,
    /// The next batch.
    pub position: Position,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the best one, for early stopping.
    pub evaluations_since_best: usize,
    /// Steps left out in a row, up to the last one.
    #[serde(default)]
    pub skipped_in_a_row: usize,
    /// Duration of the run so far, in seconds.
    pub seconds: f64,
    /// Options that affect the results; a resumed run must have the same.
    pub fingerprint: String,
}

/// The best evaluation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Number of steps before the evaluation.
    pub step: usize,
    /// Value of the deciding metric.
    pub value: f64,
}

/// A checkpoint to resume from.
pub struct Checkpoint {
    /// Directory of the checkpoint, with the weights in `adapter/` or `model/`.
    pub path: PathBuf,
    /// State of the run.
    pub state: RunState,
    /// State of the optimizer.
    pub optimizer: OptimizerRecord,
}

/// Directory with the checkpoints of a run.
#[derive(Clone, Debug)]
pub struct CheckpointDir(PathBuf);

impl CheckpointDir {
    /// Uses a directory, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Writes a checkpoint and removes the previous one; `weights` writes the weights into the
    /// given directory.
    ///
    /// # Errors
    /// Fails if a file cannot be written; the previous checkpoint then still exists.
    pub fn save_last(
        &self,
        state: &RunState,
        optimizer: OptimizerRecord,
        weights: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        let write = |dir: &Path| {
            weights(dir)?;
            let malformed = |message: String| TrainError::Checkpoint {
                path: dir.into(),
                message,
            };
            let file = dir.join(OPTIMIZER_FILE);
            let saved = optimizer.save(&file);
            saved.map_err(|error| malformed(format!("{OPTIMIZER_FILE}: {error}")))?;
            let text = serde_json::to_string_pretty(state)
                .map_err(|error| malformed(format!("{STATE_FILE}: {error}")))?;
            let file = dir.join(STATE_FILE);
            fs::write(&file, text).map_err(LoraError::io(&file))?;
            Ok(())
        };
        self.replace(LAST, state.step, write)
    }

    /// Writes the weights of the best evaluation and removes the previous best weights.
    ///
    /// # Errors
    /// Fails in the cases of [`save_last`](Self::save_last).
    pub fn save_best(
        &self,
        step: usize,
        weights: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        self.replace(BEST, step, weights)
    }

    /// Returns the directory of the best evaluation, if there is one.
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.all(BEST).pop()?.1)
    }

    /// Reads the last checkpoint; `None` if there is none.
    ///
    /// # Errors
    /// Returns [`TrainError::Checkpoint`] if the checkpoint cannot be read.
    pub fn last(&self) -> Result<Option<Checkpoint>, TrainError> {
        let Some((_, path)) = self.all(LAST).pop() else {
            return Ok(None);
        };
        let malformed = |message: String| TrainError::Checkpoint {
            path: path.clone(),
            message,
        };
        let file = path.join(STATE_FILE);
        let state = serde_json::from_slice(&read_bounded(&file, STATE_LIMIT)?)
            .map_err(|error| malformed(format!("{STATE_FILE}: {error}")))?;
        // `OptimizerRecord::load` reads the values when they are used, and panics if the file has changed or gone by then.
        let bytes = read_bounded(&path.join(OPTIMIZER_FILE), OPTIMIZER_LIMIT)?;
        let optimizer = OptimizerRecord::from_bytes(Bytes::from_bytes_vec(bytes))
            .map_err(|error| malformed(format!("{OPTIMIZER_FILE}: {error}")))?;
        Ok(Some(Checkpoint {
            path,
            state,
            optimizer,
        }))
    }

    fn replace(
        &self,
        prefix: &str,
        step: usize,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        let path = self.0.join(format!("{prefix}{step:08}"));
        write_dir(&path, Overwrite::Replace, write)?;
        for (_, old) in self.all(prefix).into_iter().filter(|(_, old)| *old != path) {
            fs::remove_dir_all(&old).map_err(LoraError::io(&old))?;
        }
        Ok(path)
    }

    /// Lists the directories with this prefix, sorted by step.
    fn all(&self, prefix: &str) -> Vec<(usize, PathBuf)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let step = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((step, entry.path()))
            })
            .collect();
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(text: &'static str) -> impl FnOnce(&Path) -> Result<(), TrainError> {
        move |dir| {
            let file = dir.join("weights");
            fs::write(&file, text).map_err(LoraError::io(&file))?;
            Ok(())
        }
    }

    #[test]
    fn the_last_checkpoint_replaces_the_one_before_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path().join("checkpoints"));
        assert!(checkpoints.last().unwrap().is_none());
        for step in [5, 10] {
            let state = RunState {
                step,
                best: Some(Best {
                    step: 5,
                    value: 1.0 / 3.0,
                }),
                seconds: 0.1 + 0.2,
                ..RunState::default()
            };
            let optimizer = OptimizerRecord::default();
            checkpoints
                .save_last(&state, optimizer, weights("w"))
                .unwrap();
            let last = checkpoints.last().unwrap().unwrap();
            assert_eq!(last.state, state);
            assert!(last.path.join("weights").exists());
        }
        assert_eq!(
            fs::read_dir(dir.path().join("checkpoints"))
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn a_damaged_optimizer_is_an_error_and_not_a_panic_later() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR"));
        let fixture = fixture.join("tests/fixtures/commit_2140182/checkpoints/step-00000021");
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("step-00000021");
        fs::create_dir(&copy).unwrap();
        fs::copy(fixture.join(STATE_FILE), copy.join(STATE_FILE)).unwrap();
        let whole = fs::read(fixture.join(OPTIMIZER_FILE)).unwrap();
        let file = copy.join(OPTIMIZER_FILE);
        let checkpoints = CheckpointDir::new(dir.path());
        let read = |bytes: &[u8]| {
            fs::write(&file, bytes).unwrap();
            checkpoints.last()
        };
        for length in (0..whole.len()).step_by(97) {
            let error = read(&whole[..length]).err().unwrap().to_string();
            assert!(error.contains(OPTIMIZER_FILE), "{length}: {error}");
        }
        // Nothing is left to read from a file that is gone.
        let optimizer = read(&whole).unwrap().unwrap().optimizer;
        fs::remove_file(&file).unwrap();
        assert!(checkpoints.last().is_err());
        assert!(optimizer.into_bytes().unwrap().len() > whole.len() / 2);
    }

    #[test]
    fn a_checkpoint_that_fails_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path());
        checkpoints.save_best(1, weights("good")).unwrap();
        let failed = checkpoints.save_best(2, |_| Err(TrainError::config("x", "disk full")));
        assert!(failed.is_err());
        assert_eq!(
            checkpoints.best().unwrap(),
            dir.path().join("best-00000001")
        );
    }
}
