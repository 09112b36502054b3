//! Files of DART: sets of triples with texts that say them.
//!
//! ```json
//! [{"tripleset": [["Mars Hill College", "JOINED", "1973"]], "annotations": [{"text": "Mars Hill College joined in 1973."}]}]
//! ```
//!
//! Triples are written as microsoft/LoRA writes them, with relations in lower case: `Mars Hill College : joined : 1973 | …`.
//! Nan et al., *DART: Open-Domain Structured Data Record to Text Generation*, 2021 (arXiv 2007.02871).

use std::path::Path;

use serde::Deserialize;

use super::document::Document;
use super::record::Record;
use super::template::PairTemplate;
use crate::error::TrainError;

#[derive(Deserialize)]
struct Entry {
    tripleset: Vec<[String; 3]>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    text: String,
}

/// Reads a record for each text of the file.
pub(super) fn read(path: &Path, template: &PairTemplate) -> Result<Vec<Record>, TrainError> {
    let document = Document::open(path)?;
    let mut records = Vec::new();
    for element in document.root().elements()? {
        let element = element?;
        let entry: Entry = element.parse()?;
        let triples = entry
            .tripleset
            .iter()
            .map(|[subject, relation, object]| triple(subject, &relation.to_lowercase(), object));
        let input = joined(triples);
        let origin = || element.origin.clone();
        if input.is_empty() {
            return Err(origin().error("`tripleset` has no triple"));
        }
        if entry.annotations.is_empty() {
            return Err(
                origin().error("`annotations` has no text; expected at least one reference")
            );
        }
        for annotation in &entry.annotations {
            if annotation.text.trim().is_empty() {
                return Err(origin().error("a text of `annotations` is empty"));
            }
            records.push(template.record(&input, &annotation.text, origin()));
        }
    }
    Ok(records)
}

/// Writes a triple as microsoft/LoRA does.
pub(super) fn triple(subject: &str, relation: &str, object: &str) -> String {
    format!("{subject} : {relation} : {object}")
}

/// Writes several triples.
pub(super) fn joined(triples: impl Iterator<Item = String>) -> String {
    triples.collect::<Vec<_>>().join(" | ")
}
