//! JSON objects of a file: one a line (JSON Lines), or the elements of one array.

use std::path::Path;

use super::document::Document;
use super::jsonl::{Object, Objects};
use super::lines::begins_with;
use super::record::Origin;
use crate::error::TrainError;

/// Calls a function with each object of the file, in their order.
///
/// # Errors
/// [`TrainError::DataLine`] for what is no object; the errors of reading, and those of `each`.
pub(super) fn each_object(
    path: &Path,
    mut each: impl FnMut(Object, Origin) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    if begins_with(path, &['['])? {
        let document = Document::open(path)?;
        for element in document.root().elements()? {
            let element = element?;
            each(element.parse()?, element.origin.clone())?;
        }
        return Ok(());
    }
    let mut objects = Objects::open(path)?;
    while let Some((object, origin)) = objects.next_object()? {
        each(object, origin)?;
    }
    Ok(())
}
