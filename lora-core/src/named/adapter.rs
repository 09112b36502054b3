//! An adapter of a set, with its name and values.

use crate::adapter::{AdapterEntry, Key};
use crate::attach::AttachReport;
use crate::error::LoraError;
use crate::file::PeftOptions;
use std::collections::BTreeMap;

/// An adapter with its name.
#[derive(Debug)]
pub(super) struct NamedAdapter {
    pub name: String,
    pub key: Key,
    pub report: AttachReport,
    /// Options of its PEFT directory.
    pub options: PeftOptions,
    /// Entries by the path of the parameter.
    pub entries: BTreeMap<String, AdapterEntry>,
    /// First parameter that cannot differ between the examples of a batch, with the reason.
    pub batch_wide: Option<(String, &'static str)>,
}

impl NamedAdapter {
    /// Refuses an adapter that cannot be active for some examples of a batch only.
    pub fn check_per_example(&self) -> Result<(), LoraError> {
        match &self.batch_wide {
            None => Ok(()),
            Some((parameter, message)) => Err(LoraError::NotPerExample {
                adapter: self.name.clone(),
                parameter: parameter.clone(),
                message: (*message).into(),
            }),
        }
    }
}
