//! Rows of Parquet files as the objects that JSON Lines would have.
//!
//! They are read with the feature `parquet`. Without it, a Parquet file is told from others by its first bytes, so that the error says
//! what is missing.
//!
//! | file | contents |
//! | --- | --- |
//! | `rows` | rows, with the feature |
//! | `without` | the error, without it |

#[cfg(feature = "parquet")]
mod rows;
#[cfg(not(feature = "parquet"))]
mod without;

#[cfg(feature = "parquet")]
pub(super) use rows::ParquetRows;
#[cfg(not(feature = "parquet"))]
pub(super) use without::ParquetRows;

use super::record::Origin;
use crate::error::TrainError;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Object of a row, and the place where it was read.
type PlacedObject = (Map<String, Value>, Origin);

/// First bytes of a file.
const MAGIC: [u8; 4] = *b"PAR1";

/// Returns true if the file begins as Parquet files do.
pub(super) fn is_parquet(path: &Path) -> Result<bool, TrainError> {
    let file = File::open(path).map_err(TrainError::io(path))?;
    let mut start = Vec::new();
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut start);
    read.map_err(TrainError::io(path))?;
    Ok(start == MAGIC)
}
