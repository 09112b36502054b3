//! References of a prompt, grouped to evaluate generation.

use std::collections::HashMap;

use super::record::{Content, Origin, Record};
use crate::error::TrainError;

/// Prompt with all its completions in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceGroup {
    /// Prompt.
    pub prompt: String,
    /// Completions of the prompt, trimmed: the space before one only joins it to the prompt.
    pub references: Vec<String>,
    /// Id of the records, if they have one.
    pub id: Option<String>,
    /// Place of the prompt's first record.
    pub origin: Origin,
}

/// Groups records by prompt and id, in the order in which prompts first appear. They need not lie side by
/// side.
///
/// # Errors
/// [`TrainError::DataLine`] for a record without a prompt to generate from.
pub fn group_references(records: &[Record]) -> Result<Vec<ReferenceGroup>, TrainError> {
    let mut groups: Vec<ReferenceGroup> = Vec::new();
    let mut positions: HashMap<(&str, Option<&str>), usize> = HashMap::new();
    for record in records {
        let Content::PromptCompletion { prompt, completion } = &record.content else {
            return Err(record.origin.error(
                "a text without a prompt has nothing to generate from; give records of `prompt` and \
                 `completion`",
            ));
        };
        let position = *positions
            .entry((prompt, record.id.as_deref()))
            .or_insert(groups.len());
        let reference = completion.trim().to_string();
        match groups.get_mut(position) {
            Some(group) => group.references.push(reference),
            None => groups.push(ReferenceGroup {
                prompt: prompt.clone(),
                references: vec![reference],
                id: record.id.clone(),
                origin: record.origin.clone(),
            }),
        }
    }
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn record(prompt: &str, completion: &str, line: usize) -> Record {
        let origin = Origin::new(Path::new("valid.txt"), line);
        Record::prompt_completion(prompt, completion, origin)
    }

    #[test]
    fn records_of_one_prompt_become_one_group_in_order_of_first_appearance() {
        let records = [
            record("b ||", " first .", 1),
            record("a ||", " second .", 2),
            record("b ||", " third .", 3),
        ];
        let groups = group_references(&records).unwrap();
        let seen: Vec<_> = groups
            .iter()
            .map(|g| (g.prompt.as_str(), g.references.clone(), g.origin.line()))
            .collect();
        assert_eq!(
            seen,
            [
                ("b ||", vec!["first .".into(), "third .".into()], 1),
                ("a ||", vec!["second .".to_string()], 2),
            ]
        );
    }

    #[test]
    fn a_text_is_refused_by_its_line() {
        let text = Record::text("a", Origin::new(Path::new("valid.txt"), 9));
        let error = group_references(&[record("a", "b", 8), text]).unwrap_err();
        assert!(error.to_string().contains("valid.txt, line 9"), "{error}");
    }
}
