//! Files of `SAMSum`: dialogues with their summaries, as a JSON array or JSON Lines.
//!
//! ```json
//! [{"id": "1", "dialogue": "Amanda: I baked cookies.\r\nJerry: Sure!", "summary": "Amanda baked cookies for Jerry."}]
//! ```
//!
//! As in the LoRA paper, the prompt is the utterances, one a line, and an empty line; the completion is the summary.
//! Gliwa et al., *`SAMSum` Corpus*, 2019 (arXiv 1911.12237).

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::objects::each_object;
use super::record::{Origin, Record};
use super::template::PairTemplate;
use crate::error::TrainError;

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    id: Option<String>,
    dialogue: String,
    summary: String,
}

/// Reads every dialogue of the file. One without a word, of which the published file has one, is left out.
pub(super) fn read(path: &Path, template: &PairTemplate) -> Result<Vec<Record>, TrainError> {
    let mut records = Vec::new();
    each_object(path, |object, origin| {
        let entry = serde_json::from_value(Value::Object(object));
        let entry = entry.map_err(|error| origin.error(error.to_string()))?;
        records.extend(record(entry, template, origin)?);
        Ok(())
    })?;
    Ok(records)
}

fn record(
    entry: Entry,
    template: &PairTemplate,
    origin: Origin,
) -> Result<Option<Record>, TrainError> {
    if entry.summary.trim().is_empty() {
        return Err(origin.error("`summary` is empty; expected a reference text"));
    }
    let utterances: Vec<&str> = entry.dialogue.lines().collect();
    let dialogue = utterances.join("\n");
    if dialogue.trim().is_empty() {
        return Ok(None);
    }
    let mut record = template.record(&dialogue, &entry.summary, origin);
    record.id = entry.id;
    Ok(Some(record))
}
