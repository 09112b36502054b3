//! Report of a loaded checkpoint, for people and for logs.

use super::WeightFiles;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Account of a loaded checkpoint: every tensor is counted as loaded or listed as ignored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadReport {
    /// Kind of the files, as [`CheckpointSource`](super::CheckpointSource) displays it.
    pub source: String,
    /// Names of the files that hold the tensors.
    pub files: Vec<String>,
    /// Total length of those files in bytes.
    pub file_bytes: u64,
    /// Number of loaded tensors.
    pub tensors: usize,
    /// Number of elements of the loaded tensors.
    pub parameters: u64,
    /// Size of the loaded tensors in their stored types, in bytes.
    pub bytes: u64,
    /// Number of loaded tensors of each stored element type.
    pub dtypes: BTreeMap<String, usize>,
    /// Tensors of the files that were ignored on purpose.
    pub ignored: Vec<IgnoredTensor>,
    /// Beginning of all names in the files that is no part of the model, such as `module.`; usually empty.
    pub root: String,
    /// Tensors that are not what their names say, and what was done with them, for people.
    pub notes: Vec<String>,
    /// The files in the state in which they were read.
    #[serde(skip)]
    pub weight_files: WeightFiles,
    /// Time from opening the reader to the last tensor, in seconds.
    pub seconds: f64,
}

/// A tensor that a model ignores on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IgnoredTensor {
    /// Name in the file.
    pub name: String,
    /// Reason for ignoring it.
    pub reason: String,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtypes = self.dtypes.iter();
        let dtypes: Vec<String> = dtypes
            .map(|(dtype, count)| format!("{count} {dtype}"))
            .collect();
        write!(
            f,
            "loaded {} tensors ({}) with {} parameters, {}, from {} ({}) in {:.2} s",
            self.tensors,
            dtypes.join(", "),
            self.parameters,
            Bytes(self.bytes),
            self.source,
            self.files.join(", "),
            self.seconds,
        )?;
        if !self.root.is_empty() {
            write!(f, "; names without their beginning `{}`", self.root)?;
        }
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for ignored in &self.ignored {
            *reasons.entry(&ignored.reason).or_default() += 1;
        }
        for (reason, count) in reasons {
            write!(f, "; ignored {count} ({reason})")?;
        }
        for note in &self.notes {
            write!(f, "\n          {note}")?;
        }
        Ok(())
    }
}

/// A number of bytes, displayed in powers of 1000.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for (unit, digits) in [("B", 0), ("kB", 1), ("MB", 1)] {
            if value < 1000.0 {
                return write!(f, "{value:.digits$} {unit}");
            }
            value /= 1000.0;
        }
        write!(f, "{value:.1} GB")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_a_sentence() {
        let report = LoadReport {
            source: "safetensors".into(),
            files: vec!["model.safetensors".into()],
            file_bytes: 498_000_000,
            tensors: 148,
            parameters: 124_439_808,
            bytes: 497_759_232,
            dtypes: BTreeMap::from([("F32".into(), 148)]),
            ignored: vec![IgnoredTensor {
                name: "h.0.attn.bias".into(),
                reason: "causal mask".into(),
            }],
            root: "module.".into(),
            notes: Vec::new(),
            weight_files: WeightFiles::default(),
            seconds: 0.251,
        };
        assert_eq!(
            report.to_string(),
            "loaded 148 tensors (148 F32) with 124439808 parameters, 497.8 MB, from safetensors \
             (model.safetensors) in 0.25 s; names without their beginning `module.`; ignored 1 (causal mask)"
        );
    }
}
