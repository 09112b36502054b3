//! State of a run, and its file in a checkpoint.

use super::Position;
use crate::TrainError;
use crate::data::DataDigest;
use lora_core::files::read_bounded;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) const STATE_FILE: &str = "state.json";
/// Largest state file in bytes; a state is a few numbers.
const STATE_LIMIT: u64 = 1 << 20;
/// Largest number of steps, epochs, batches and evaluations of a run.
const COUNT_LIMIT: u64 = 1 << 40;

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
    /// Part of the duration that checkpoints took; that of the checkpoint with this state is no part of either.
    #[serde(default)]
    pub saving_seconds: f64,
    /// Options that affect the results; a resumed run must have the same.
    pub fingerprint: String,
    /// Digest of the training data; `None` in states of releases before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataDigest>,
    /// Digest of the evaluation data, if the best evaluation decides which weights are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_data: Option<DataDigest>,
    /// SHA-256 of each other file of a written checkpoint, by its path within; empty while a run lives.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// The best evaluation of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Number of steps before the evaluation.
    pub step: usize,
    /// Value of the deciding metric.
    pub value: f64,
}

/// Reads the state of a checkpoint.
///
/// # Errors
/// [`TrainError::Checkpoint`] if it is malformed, or has counts that no run comes to.
pub(super) fn read_state(path: &Path) -> Result<RunState, TrainError> {
    let bytes = read_bounded(&path.join(STATE_FILE), STATE_LIMIT)?;
    let malformed = |message: String| TrainError::Checkpoint {
        path: path.into(),
        message: format!("{STATE_FILE}: {message}"),
    };
    let state: RunState =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    // The loop counts on from them.
    let counts = [
        ("step", state.step),
        ("position.epoch", state.position.epoch),
        ("position.batch", state.position.batch),
        ("evaluations_since_best", state.evaluations_since_best),
        ("skipped_in_a_row", state.skipped_in_a_row),
    ];
    let mut counts = counts.into_iter();
    match counts.find(|&(_, count)| count as u64 > COUNT_LIMIT) {
        Some((name, count)) => Err(malformed(format!(
            "`{name}` is {count}: no run comes that far"
        ))),
        None => Ok(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn state(change: impl FnOnce(&mut Value)) -> Result<RunState, TrainError> {
        let dir = tempfile::tempdir().unwrap();
        let mut state = serde_json::to_value(RunState::default()).unwrap();
        change(&mut state);
        std::fs::write(dir.path().join(STATE_FILE), state.to_string()).unwrap();
        read_state(dir.path())
    }

    #[test]
    fn counts_from_which_the_loop_could_not_go_on_are_refused() {
        assert_eq!(state(|_| ()).unwrap(), RunState::default());
        for name in ["step", "evaluations_since_best", "skipped_in_a_row"] {
            let read = state(|state| state[name] = json!(1_000_000));
            assert!(read.is_ok(), "{name}");
            for count in [usize::MAX, 1 << 41] {
                let message = state(|state| state[name] = json!(count)).unwrap_err();
                let message = message.to_string();
                assert!(message.contains(name), "{message}");
                assert!(message.contains("no run comes that far"), "{message}");
            }
        }
        for name in ["epoch", "batch"] {
            let message = state(|state| state["position"][name] = json!(usize::MAX)).unwrap_err();
            assert!(
                message.to_string().contains(&format!("position.{name}")),
                "{message}"
            );
        }
    }
}
