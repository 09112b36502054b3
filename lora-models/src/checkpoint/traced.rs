//! Events of loads for `tracing`, with the feature of that name.

use super::{IgnoredTensor, LoadReport};

/// Tells that a checkpoint was loaded.
pub(super) fn loaded(report: &LoadReport) {
    tracing::info!(
        source = report.source,
        files = report.files.join(", "),
        file_bytes = report.file_bytes,
        tensors = report.tensors,
        parameters = report.parameters,
        bytes = report.bytes,
        seconds = report.seconds,
        "loaded"
    );
    for IgnoredTensor { name, reason } in &report.ignored {
        tracing::debug!(tensor = name, reason, "ignored");
    }
}
