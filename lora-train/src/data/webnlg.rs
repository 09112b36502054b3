//! Files of the `WebNLG` challenge of 2017 in JSON, as microsoft/LoRA reads them: sets of triples with texts that say them.
//!
//! ```json
//! {"entries": [{"1": {
//!   "category": "Airport",
//!   "modifiedtripleset": [{"subject": "Aarhus", "property": "leaderName", "object": "Jacob_Bundsgaard"}],
//!   "lexicalisations": [{"comment": "good", "lex": "The leader of Aarhus is Jacob Bundsgaard."}]
//! }}]}
//! ```
//!
//! Gardent et al., *The `WebNLG` Challenge: Generating Text from RDF Data*, 2017.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::dart::{joined, triple};
use super::document::{Document, Element};
use super::record::Record;
use super::template::PairTemplate;
use crate::error::TrainError;

/// Categories of the training data.
const SEEN: [&str; 10] = [
    "Airport",
    "Astronaut",
    "Building",
    "City",
    "ComicsCharacter",
    "Food",
    "Monument",
    "SportsTeam",
    "University",
    "WrittenWork",
];

/// Part of `WebNLG`, by the categories of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Categories {
    /// All categories.
    #[default]
    All,
    /// Categories that the training data has, too.
    Seen,
    /// Categories that the training data lacks.
    Unseen,
}

impl Categories {
    const ALL: [(&'static str, Self); 3] = [
        ("all", Self::All),
        ("seen", Self::Seen),
        ("unseen", Self::Unseen),
    ];

    fn have(self, category: &str) -> bool {
        let is_seen = SEEN.contains(&category);
        match self {
            Self::All => true,
            Self::Seen => is_seen,
            Self::Unseen => !is_seen,
        }
    }
}

impl fmt::Display for Categories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = Self::ALL.iter();
        let name = names.find(|(_, categories)| categories == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Categories {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        let mut names = Self::ALL.iter();
        let found = names.find(|(name, _)| *name == text);
        found.map(|(_, categories)| *categories).ok_or_else(|| {
            let message = format!("is `{text}`; expected `all`, `seen` or `unseen`");
            TrainError::config("categories", message)
        })
    }
}

#[derive(Deserialize)]
struct Entry {
    category: String,
    modifiedtripleset: Vec<Triple>,
    lexicalisations: Vec<Text>,
}

#[derive(Deserialize)]
struct Triple {
    subject: String,
    property: String,
    object: String,
}

#[derive(Deserialize)]
struct Text {
    comment: String,
    lex: String,
}

/// Reads a record for each text that its annotators called `good`; the files have others (`toFix`), which microsoft/LoRA leaves
/// out, too.
pub(super) fn read(
    path: &Path,
    template: &PairTemplate,
    categories: Categories,
) -> Result<Vec<Record>, TrainError> {
    let document = Document::open(path)?;
    let root = document.root();
    let mut records = Vec::new();
    let mut found = false;
    for member in root.members()? {
        let (key, value) = member?;
        if key != "entries" {
            continue;
        }
        found = true;
        for entry in value.elements()? {
            read_entry(&entry?, template, categories, &mut records)?;
        }
    }
    if !found {
        return Err(root.origin.error("the object has no key \"entries\""));
    }
    Ok(records)
}

/// Reads an entry: an object with the number of the entry as its only key.
fn read_entry(
    element: &Element,
    template: &PairTemplate,
    categories: Categories,
    records: &mut Vec<Record>,
) -> Result<(), TrainError> {
    let mut members = element.members()?;
    let (Some(member), None) = (members.next(), members.next()) else {
        let message = "expected an object with the number of the entry as its only key";
        return Err(element.origin.error(message));
    };
    let (_, value) = member?;
    let entry: Entry = value.parse()?;
    let origin = || value.origin.clone();
    let triples = entry.modifiedtripleset.iter();
    let triples = triples.map(|it| triple(&it.subject, &it.property, &it.object));
    let input = joined(triples);
    if input.is_empty() {
        return Err(origin().error("`modifiedtripleset` has no triple"));
    }
    if entry.lexicalisations.is_empty() {
        let message = "`lexicalisations` has no text; expected at least one reference";
        return Err(origin().error(message));
    }
    if !categories.have(&entry.category) {
        return Ok(());
    }
    for text in entry
        .lexicalisations
        .iter()
        .filter(|text| text.comment == "good")
    {
        if text.lex.trim().is_empty() {
            return Err(origin().error("a text of `lexicalisations` is empty"));
        }
        records.push(template.record(&input, &text.lex, origin()));
    }
    Ok(())
}
