//! Sizes of data files: bytes, to choose by, and lines, to show progress by.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::parquet::{ParquetRows, is_parquet};
use crate::error::TrainError;

/// Returns the number of bytes of a file.
pub(crate) fn file_bytes(path: &Path) -> Result<u64, TrainError> {
    let metadata = path.metadata().map_err(TrainError::io(path))?;
    Ok(metadata.len())
}

/// Counts the lines of a file, or the rows of a Parquet file.
pub(crate) fn count_lines(path: &Path) -> Result<usize, TrainError> {
    if is_parquet(path)? {
        return Ok(ParquetRows::open(path)?.count());
    }
    let file = File::open(path).map_err(TrainError::io(path))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut lines = 0;
    loop {
        let bytes = reader.fill_buf().map_err(TrainError::io(path))?;
        let read = bytes.len();
        if read == 0 {
            return Ok(lines);
        }
        lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        reader.consume(read);
    }
}
