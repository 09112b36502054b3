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

use super::document::Document;
use super::jsonl::Objects;
use super::lines::begins_with;
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
    if is_array(path)? {
        let document = Document::open(path)?;
        for element in document.root().elements()? {
            let element = element?;
            let record = record(element.parse()?, template, element.origin.clone())?;
            records.extend(record);
        }
        return Ok(records);
    }
    let mut objects = Objects::open(path)?;
    while let Some((object, origin)) = objects.next_object()? {
        let entry = serde_json::from_value(Value::Object(object));
        let entry = entry.map_err(|error| origin.error(error.to_string()))?;
        records.extend(record(entry, template, origin)?);
    }
    Ok(records)
}

/// Returns true if the file is an array, and not JSON Lines.
fn is_array(path: &Path) -> Result<bool, TrainError> {
    begins_with(path, &['['])
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
