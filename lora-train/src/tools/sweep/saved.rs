//! Files of a sweep in its output directory.

use crate::TrainError;
use lora_core::files::read_bounded;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folder of the runs.
pub(in crate::tools) const RUNS: &str = "runs";
/// File with the results.
pub(super) const RESULTS: &str = "sweep.json";
/// Largest file of results in bytes: ten thousand runs with a hundred metrics.
const LIMIT: u64 = 256 << 20;

/// Results of a sweep as far as they tell its runs.
#[derive(Debug, Deserialize)]
pub(in crate::tools) struct SavedSweep {
    /// Keys of the options that vary.
    pub keys: Vec<String>,
    /// Runs, in their order.
    pub runs: Vec<SavedRun>,
}

/// Run of a sweep in its results.
#[derive(Debug, Deserialize)]
pub(in crate::tools) struct SavedRun {
    dir: PathBuf,
    /// Values of the options that vary.
    pub values: Vec<String>,
    /// Seed.
    pub seed: u64,
}

impl SavedRun {
    /// Returns the name of its directory; the directory itself may have been moved with the sweep.
    pub fn name(&self) -> Option<&str> {
        self.dir.file_name()?.to_str()
    }
}

impl SavedSweep {
    /// Reads the results in an output directory; `None` without any.
    ///
    /// # Errors
    /// If the file is malformed.
    pub fn read(output: &Path) -> Result<Option<Self>, TrainError> {
        let path = output.join(RESULTS);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read_bounded(&path, LIMIT)?;
        let found = serde_json::from_slice(&bytes);
        found.map(Some).map_err(|error| TrainError::DataFormat {
            path,
            message: error.to_string(),
        })
    }
}

/// Returns the names in the folder of runs that are not among these, in order.
pub(in crate::tools) fn others(output: &Path, names: &BTreeSet<&str>) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(output.join(RUNS)) else {
        return Vec::new();
    };
    let entries = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let all = entries.map(|name| name.to_string_lossy().into_owned());
    let mut others: Vec<String> = all.filter(|name| !names.contains(name.as_str())).collect();
    others.sort();
    others
}
