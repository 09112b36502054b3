//! Checkpoints: everything that the next step of a run depends on.
//!
//! ```text
//! checkpoints/step-00000120/   adapter/ or model/, optimizer.bpk, state.json: to resume from
//! checkpoints/best-00000100/   adapter/ or model/: the best evaluation so far
//! ```
//! A directory gets its name when it is complete, and only then is the previous one removed: a crash
//! at any moment leaves a complete checkpoint. The best evaluation that the last checkpoint knows of stays until a later
//! checkpoint knows of another.

use super::Position;
use crate::TrainError;
use crate::data::DataDigest;
use burn::optim::OptimizerRecord;
use burn::tensor::Bytes;
use lora_core::LoraError;
use lora_core::files::{Overwrite, read_bounded, write_dir, write_file};
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
    /// Digest of the training data; `None` in states of releases before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataDigest>,
    /// Digest of the evaluation data, if the best evaluation decides which weights are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<DataDigest>,
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
            write_file(&file, Overwrite::Refuse, |writer| {
                writer.write_all(text.as_bytes())
            })?;
            Ok(())
        };
        let path = self.replace(LAST, state.step, None, write)?;
        self.remove_except(BEST, &[state.best.as_ref().map(|best| best.step)])?;
        Ok(path)
    }

    /// Writes the weights of the best evaluation and removes the previous best weights, except those of step `kept`, which
    /// the last checkpoint knows of.
    ///
    /// # Errors
    /// Fails in the cases of [`save_last`](Self::save_last).
    pub fn save_best(
        &self,
        step: usize,
        kept: Option<usize>,
        weights: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        self.replace(BEST, step, kept, weights)
    }

    /// Returns the directory of the best evaluation, which was at this step.
    pub fn best(&self, step: usize) -> Option<PathBuf> {
        Some(self.at(BEST, step)).filter(|path| path.exists())
    }

    /// Returns true if there is a checkpoint to resume from.
    pub(crate) fn has_last(&self) -> bool {
        !self.all(LAST).is_empty()
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
        kept: Option<usize>,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<PathBuf, TrainError> {
        let path = self.at(prefix, step);
        write_dir(&path, Overwrite::Replace, write)?;
        self.remove_except(prefix, &[Some(step), kept])?;
        Ok(path)
    }

    fn at(&self, prefix: &str, step: usize) -> PathBuf {
        self.0.join(format!("{prefix}{step:08}"))
    }

    /// Removes the directories with this prefix, except those of some steps.
    fn remove_except(&self, prefix: &str, kept: &[Option<usize>]) -> Result<(), TrainError> {
        for (step, old) in self.all(prefix) {
            if !kept.contains(&Some(step)) {
                fs::remove_dir_all(&old).map_err(LoraError::io(&old))?;
            }
        }
        Ok(())
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
        checkpoints.save_best(1, None, weights("good")).unwrap();
        let failed = checkpoints.save_best(2, None, |_| Err(TrainError::config("x", "disk full")));
        assert!(failed.is_err());
        let best = dir.path().join("best-00000001");
        assert_eq!(checkpoints.best(1), Some(best));
    }

    /// A run that is killed goes on from its last checkpoint, whose best weights must be there.
    #[test]
    fn the_best_weights_of_the_last_checkpoint_stay_until_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path());
        let save_last = |step, best| {
            let best = Some(Best {
                step: best,
                value: 0.5,
            });
            let state = RunState {
                step,
                best,
                ..RunState::default()
            };
            let optimizer = OptimizerRecord::default();
            checkpoints
                .save_last(&state, optimizer, weights("w"))
                .unwrap();
        };
        checkpoints.save_best(2, None, weights("a")).unwrap();
        save_last(3, 2);
        for step in [4, 5] {
            checkpoints.save_best(step, Some(2), weights("b")).unwrap();
        }
        let found = |step| checkpoints.best(step).is_some();
        assert_eq!([2, 4, 5].map(found), [true, false, true]);
        save_last(6, 5);
        assert_eq!([2, 4, 5].map(found), [false, false, true]);
    }
}
