//! Checkpoints: everything that the next step of a run depends on.
//!
//! ```text
//! checkpoints/step-00000120/   adapter/ or model/, optimizer.bpk, state.json: to resume from
//! checkpoints/best-00000100/   adapter/ or model/: the best evaluation so far
//! ```
//! A directory gets its name when it is complete and on the disk, and only then are older ones removed: a crash at any moment
//! leaves a complete checkpoint. `state.json` has the hash of every other file, so that a damaged checkpoint is noticed, and an older
//! one is read in its place. The best evaluations that the checkpoints know of stay with them.

use super::OptimizerState;
use super::run_state::{RunState, STATE_FILE, read_state};
use crate::TrainError;
use burn::optim::OptimizerRecord;
use lora_core::LoraError;
use lora_core::files::{Overwrite, can_sync, read_bounded, write_dir, write_file};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

pub(super) const OPTIMIZER_FILE: &str = "optimizer.bpk";
const LAST: &str = "step-";
const BEST: &str = "best-";
/// Largest file of an optimizer in bytes: two values of four bytes for each of 2³⁸ parameters.
const OPTIMIZER_LIMIT: u64 = 1 << 41;

/// A checkpoint to resume from.
pub struct Checkpoint {
    /// Directory of the checkpoint, with the weights in `adapter/` or `model/`.
    pub path: PathBuf,
    /// State of the run.
    pub state: RunState,
    /// State of the optimizer.
    pub optimizer: OptimizerState,
}

/// The last checkpoint of a run that can be read.
pub struct LastCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Later checkpoints that cannot be read, with the reasons.
    pub damaged: Vec<(PathBuf, TrainError)>,
}

/// Checkpoint that was written.
#[derive(Clone, Debug)]
pub struct SavedCheckpoint {
    /// Directory of the checkpoint.
    pub path: PathBuf,
    /// Older directories that could not be removed, with the reasons.
    pub left: Vec<String>,
}

/// Directory with the checkpoints of a run.
#[derive(Clone, Debug)]
pub struct CheckpointDir {
    path: PathBuf,
    keep: usize,
}

impl CheckpointDir {
    /// Number of checkpoints that are kept unless told otherwise: if the last one is damaged, the one before is there.
    pub const KEPT: usize = 2;

    /// Uses a directory, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            keep: Self::KEPT,
        }
    }

    /// Keeps another number of checkpoints, at least one.
    pub fn keeping(mut self, checkpoints: usize) -> Self {
        self.keep = checkpoints.max(1);
        self
    }

    /// Writes a checkpoint and removes those that are no longer to be kept; `weights` writes the weights into the given
    /// directory.
    ///
    /// # Errors
    /// Fails if a file cannot be written; the earlier checkpoints then still exist.
    pub fn save_last(
        &self,
        state: &RunState,
        optimizer: OptimizerRecord,
        weights: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<SavedCheckpoint, TrainError> {
        let write = |dir: &Path| -> Result<(), TrainError> {
            weights(dir)?;
            let malformed = |message: String| TrainError::Checkpoint {
                path: dir.into(),
                message,
            };
            let file = dir.join(OPTIMIZER_FILE);
            let failed = |error| malformed(format!("{OPTIMIZER_FILE}: {error}"));
            if can_sync(dir) {
                optimizer.save(&file).map_err(failed)?;
            } else {
                // Burn takes a file system that cannot for a failure. The record is twice in memory here.
                let bytes = optimizer.into_bytes().map_err(failed)?;
                write_file(&file, Overwrite::Refuse, |writer| writer.write_all(&bytes))?;
            }
            let state = RunState {
                files: hashes(dir)?,
                ..state.clone()
            };
            let text = serde_json::to_string_pretty(&state)
                .map_err(|error| malformed(format!("{STATE_FILE}: {error}")))?;
            let file = dir.join(STATE_FILE);
            write_file(&file, Overwrite::Refuse, |writer| {
                writer.write_all(text.as_bytes())
            })?;
            Ok(())
        };
        let path = self.at(LAST, state.step);
        write_dir::<TrainError>(&path, Overwrite::Replace, write)?;
        let steps: Vec<usize> = self.all(LAST).into_iter().map(|(step, _)| step).collect();
        // Later ones are from before the run went back to an older checkpoint.
        let earlier = steps.into_iter().filter(|&step| step <= state.step);
        let kept: Vec<usize> = earlier.rev().take(self.keep).collect();
        let mut left = self.remove_except(LAST, &kept);
        left.extend(self.remove_except(BEST, &self.known_bests()));
        Ok(SavedCheckpoint { path, left })
    }

    /// Writes the weights of the best evaluation and removes the previous best weights, except those that a checkpoint knows of.
    ///
    /// # Errors
    /// Fails in the cases of [`save_last`](Self::save_last).
    pub fn save_best(
        &self,
        step: usize,
        weights: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<SavedCheckpoint, TrainError> {
        let path = self.at(BEST, step);
        write_dir::<TrainError>(&path, Overwrite::Replace, weights)?;
        let mut kept = self.known_bests();
        kept.push(step);
        let left = self.remove_except(BEST, &kept);
        Ok(SavedCheckpoint { path, left })
    }

    /// Returns the directory of the best evaluation, which was at this step.
    pub fn best(&self, step: usize) -> Option<PathBuf> {
        Some(self.at(BEST, step)).filter(|path| path.exists())
    }

    /// Returns true if there is a checkpoint to resume from.
    pub(crate) fn has_last(&self) -> bool {
        !self.all(LAST).is_empty()
    }

    /// Reads the last checkpoint that is whole; `None` if there is none at all.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`] of the last one, if none can be read.
    pub fn last(&self) -> Result<Option<LastCheckpoint>, TrainError> {
        let mut damaged = Vec::new();
        for (_, path) in self.all(LAST).into_iter().rev() {
            match read(&path) {
                Ok(checkpoint) => {
                    return Ok(Some(LastCheckpoint {
                        checkpoint,
                        damaged,
                    }));
                }
                Err(error) => damaged.push((path, error)),
            }
        }
        match damaged.into_iter().next() {
            None => Ok(None),
            Some((_, error)) => Err(error),
        }
    }

    /// Returns the steps of the best evaluations that the checkpoints know of.
    fn known_bests(&self) -> Vec<usize> {
        let states = self.all(LAST).into_iter();
        let bests = states.filter_map(|(_, path)| read_state(&path).ok()?.best);
        bests.map(|best| best.step).collect()
    }

    fn at(&self, prefix: &str, step: usize) -> PathBuf {
        self.path.join(format!("{prefix}{step:08}"))
    }

    /// Removes the directories with this prefix, except those of some steps. Returns those that stay, with the reasons.
    fn remove_except(&self, prefix: &str, kept: &[usize]) -> Vec<String> {
        let others = self.all(prefix).into_iter();
        let others = others.filter(|(step, _)| !kept.contains(step));
        let left = others.filter_map(|(_, old)| {
            let error = fs::remove_dir_all(&old).err()?;
            Some(format!("{}: {error}", old.display()))
        });
        left.collect()
    }

    /// Lists the directories with this prefix, sorted by step.
    fn all(&self, prefix: &str) -> Vec<(usize, PathBuf)> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
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

/// Reads a checkpoint, each file of which must be the one that was written.
fn read(path: &Path) -> Result<Checkpoint, TrainError> {
    let malformed = |message: String| TrainError::Checkpoint {
        path: path.into(),
        message,
    };
    let mut state = read_state(path)?;
    // Earlier releases wrote no hashes.
    let written = std::mem::take(&mut state.files);
    if !written.is_empty() {
        let found = hashes(path)?;
        if let Some((name, _)) = written
            .iter()
            .find(|(name, hash)| found.get(*name) != Some(hash))
        {
            let what = if found.contains_key(name) {
                "is not what was written"
            } else {
                "is missing"
            };
            return Err(malformed(format!(
                "{name} {what}: the checkpoint is damaged"
            )));
        }
    }
    // `OptimizerRecord::load` reads the values when they are used, and panics if the file has changed or gone by then.
    let bytes = read_bounded(&path.join(OPTIMIZER_FILE), OPTIMIZER_LIMIT)?;
    let optimizer = OptimizerState::from_bytes(bytes)
        .map_err(|error| malformed(format!("{OPTIMIZER_FILE}: {error}")))?;
    Ok(Checkpoint {
        path: path.into(),
        state,
        optimizer,
    })
}

/// Returns the SHA-256 of each file of a checkpoint but its state, by its path within.
fn hashes(dir: &Path) -> Result<BTreeMap<String, String>, TrainError> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = dir.join(&folder);
        for entry in fs::read_dir(&path).map_err(LoraError::io(&path))? {
            let entry = entry.map_err(LoraError::io(&path))?;
            let (within, file) = (folder.join(entry.file_name()), entry.path());
            let kind = entry.file_type().map_err(LoraError::io(&file))?;
            if kind.is_dir() {
                folders.push(within);
            } else if kind.is_file() && within != Path::new(STATE_FILE) {
                let name = within.to_string_lossy().replace('\\', "/");
                found.insert(name, hash(&file).map_err(LoraError::io(&file))?);
            }
        }
    }
    Ok(found)
}

fn hash(file: &Path) -> std::io::Result<String> {
    let mut digest = Sha256::new();
    let mut reader = std::io::BufReader::with_capacity(1 << 16, fs::File::open(file)?);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            let digest = digest.finalize();
            return Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        digest.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Best;
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
        for step in [5, 10, 15] {
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
            let last = checkpoints.last().unwrap().unwrap().checkpoint;
            assert_eq!(last.state, state);
            assert!(last.path.join("weights").exists());
        }
        assert_eq!(
            fs::read_dir(dir.path().join("checkpoints"))
                .unwrap()
                .count(),
            2
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
        let last = read(&whole).unwrap().unwrap();
        let optimizer = last.checkpoint.optimizer;
        fs::remove_file(&file).unwrap();
        assert!(checkpoints.last().is_err());
        assert!(optimizer.record.into_bytes().unwrap().len() > whole.len() / 2);
    }

    #[test]
    fn a_checkpoint_that_fails_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path());
        checkpoints.save_best(1, weights("good")).unwrap();
        let failed = checkpoints.save_best(2, |_| Err(TrainError::config("x", "disk full")));
        assert!(failed.is_err());
        let best = dir.path().join("best-00000001");
        assert_eq!(checkpoints.best(1), Some(best));
    }

    /// A run that is killed goes on from its last checkpoint, whose best weights must be there.
    #[test]
    fn the_best_weights_of_the_last_checkpoint_stay_until_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path()).keeping(1);
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
        checkpoints.save_best(2, weights("a")).unwrap();
        save_last(3, 2);
        for step in [4, 5] {
            checkpoints.save_best(step, weights("b")).unwrap();
        }
        let found = |step| checkpoints.best(step).is_some();
        assert_eq!([2, 4, 5].map(found), [true, false, true]);
        save_last(6, 5);
        assert_eq!([2, 4, 5].map(found), [false, false, true]);
    }

    /// Files of a checkpoint that are damaged one after the other: the one before is read.
    #[test]
    fn a_damaged_checkpoint_is_noticed_and_the_one_before_read() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path());
        let save = |step| {
            let state = RunState {
                step,
                ..RunState::default()
            };
            let optimizer = OptimizerRecord::default();
            checkpoints
                .save_last(&state, optimizer, weights("w"))
                .unwrap();
        };
        save(3);
        save(6);
        let last = dir.path().join("step-00000006");
        for (name, damage) in [
            ("weights", "v"),
            (OPTIMIZER_FILE, ""),
            (STATE_FILE, "{}"),
            (STATE_FILE, ""),
        ] {
            let file = last.join(name);
            let whole = fs::read(&file).unwrap();
            fs::write(&file, damage).unwrap();
            let found = checkpoints.last().unwrap().unwrap();
            assert_eq!(found.checkpoint.state.step, 3, "{name}");
            let [(path, error)] = found.damaged.try_into().unwrap();
            assert_eq!(path, last);
            assert!(error.to_string().contains(name), "{error}");
            fs::write(&file, whole).unwrap();
        }
        fs::remove_file(last.join("weights")).unwrap();
        let found = checkpoints.last().unwrap().unwrap();
        assert!(found.damaged[0].1.to_string().contains("is missing"));
        // The run goes on from step 3 and passes the damaged one.
        save(4);
        assert!(!last.exists());
    }

    #[test]
    fn an_old_checkpoint_that_cannot_be_removed_is_told_and_the_new_one_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = CheckpointDir::new(dir.path()).keeping(1);
        // A directory is to be removed, and this is none.
        let stuck = dir.path().join("step-00000002");
        fs::write(&stuck, "").unwrap();
        let state = RunState {
            step: 4,
            ..RunState::default()
        };
        let saved = checkpoints
            .save_last(&state, OptimizerRecord::default(), weights("w"))
            .unwrap();
        assert_eq!(saved.left.len(), 1);
        assert!(
            saved.left[0].starts_with(&*stuck.to_string_lossy()),
            "{:?}",
            saved.left
        );
        assert_eq!(
            checkpoints.last().unwrap().unwrap().checkpoint.state.step,
            4
        );
    }
}
