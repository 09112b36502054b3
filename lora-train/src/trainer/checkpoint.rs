//! Checkpoints of a run: everything that the next step depends on.
//!
//! ```text
//! checkpoints/step-00000120/   adapter/ or model/, optimizer.bpk, state.json: to resume from
//! checkpoints/best-00000100/   adapter/ or model/: the best evaluation so far
//! ```
//! A directory appears under its name when it is complete, and the one that it replaces is removed
//! after that: a crash at any moment leaves one to resume from.

use super::Position;
use crate::TrainError;
use burn::optim::OptimizerRecord;
use lora_core::LoraError;
use lora_core::files::{Overwrite, write_dir};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const STATE_FILE: &str = "state.json";
const OPTIMIZER_FILE: &str = "optimizer.bpk";
const LAST: &str = "step-";
const BEST: &str = "best-";
/// A state is a few numbers.
const STATE_LIMIT: u64 = 1 << 20;

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Steps done; the schedule and the random numbers follow from it.
    pub step: usize,
    /// The batch that comes next.
    pub position: Position,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since the best one, for early stopping.
    pub evaluations_since_best: usize,
    /// Seconds that the run took so far.
    pub seconds: f64,
    /// What the run was started with and must go on with: options that change the numbers.
    pub fingerprint: String,
}

/// The best evaluation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After how many steps.
    pub step: usize,
    /// The value of the metric that decides.
    pub value: f64,
}

/// A checkpoint to resume from.
pub struct Checkpoint {
    /// Its directory; the weights lie in `adapter/` or `model/`.
    pub path: PathBuf,
    /// Where the run stands.
    pub state: RunState,
    /// State of the optimizer.
    pub optimizer: OptimizerRecord,
}

/// Writes and finds the checkpoints of a run.
#[derive(Clone, Debug)]
pub struct CheckpointDir(PathBuf);

impl CheckpointDir {
    /// The checkpoints in this directory, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Writes a checkpoint and removes the one before; `weights` writes the weights into the
    /// directory it is given.
    ///
    /// # Errors
    /// If anything cannot be written; what was there before is then still there.
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

    /// Writes the weights of the best evaluation and removes those of the one before.
    ///
    /// # Errors
    /// As [`save_last`](Self::save_last).
    pub fn save_best(
        &self,
        step: usize,
        weights: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        self.replace(BEST, step, weights)
    }

    /// The directory of the best evaluation, if there is one.
    pub fn best(&self) -> Option<PathBuf> {
        Some(self.all(BEST).pop()?.1)
    }

    /// The last checkpoint, or `None` if there is none.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] if it is there and cannot be read.
    pub fn last(&self) -> Result<Option<Checkpoint>, TrainError> {
        let Some((_, path)) = self.all(LAST).pop() else {
            return Ok(None);
        };
        let malformed = |message: String| TrainError::Checkpoint {
            path: path.clone(),
            message,
        };
        let file = path.join(STATE_FILE);
        let size = fs::metadata(&file).map_err(LoraError::io(&file))?.len();
        if size > STATE_LIMIT {
            return Err(malformed(format!(
                "{STATE_FILE} has {size} bytes: not a state"
            )));
        }
        let text = fs::read_to_string(&file).map_err(LoraError::io(&file))?;
        let state = serde_json::from_str(&text)
            .map_err(|error| malformed(format!("{STATE_FILE}: {error}")))?;
        let optimizer = OptimizerRecord::load(path.join(OPTIMIZER_FILE))
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

    /// Directories of this prefix, by step.
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
