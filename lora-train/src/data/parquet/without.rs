//! Parquet in a build that does not read it.

use super::PlacedObject;
use crate::error::TrainError;
use std::path::Path;

/// Reader that does not exist.
pub(in crate::data) enum ParquetRows {}

impl ParquetRows {
    /// Refuses the file.
    pub(in crate::data) fn open(path: &Path) -> Result<Self, TrainError> {
        let message = "is a Parquet file, and this build reads none: build with `--features parquet`, or write it as JSON Lines \
                       (`to_json(…, lines=True)`)";
        Err(TrainError::data_format(path, message))
    }

    pub(in crate::data) fn count(&self) -> usize {
        match *self {}
    }

    pub(in crate::data) fn next_object(&mut self) -> Result<Option<PlacedObject>, TrainError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{DataFormat, LabelledLayout, LabelledSource, read_labelled};

    #[test]
    fn a_parquet_file_is_refused_with_the_feature_that_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["train.parquet", "train", "train.jsonl"] {
            let path = dir.path().join(name);
            std::fs::write(&path, b"PAR1\x15\x04PAR1").unwrap();
            let layout = LabelledLayout::default();
            let labelled = read_labelled(&path, &LabelledSource::new(&layout)).unwrap_err();
            let words = LabelledLayout::Words(Default::default());
            let words = read_labelled(&path, &LabelledSource::new(&words)).unwrap_err();
            let texts = DataFormat::detect(&path).unwrap_err();
            for error in [labelled, words, texts] {
                let message = error.to_string();
                assert!(message.contains("`--features parquet`"), "{message}");
            }
        }
    }
}
