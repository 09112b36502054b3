//! Names of a head's outputs.

use crate::ModelError;
use crate::config_keys::ConfigKeys;
use serde_json::{Map, Value, json};

/// Values of `problem_type`.
const PROBLEMS: [&str; 3] = [SINGLE_LABEL, MULTI_LABEL, REGRESSION];
const SINGLE_LABEL: &str = "single_label_classification";
const MULTI_LABEL: &str = "multi_label_classification";
const REGRESSION: &str = "regression";

/// Limit for `num_labels`.
const MAX_NUMBERED: u64 = 1 << 20;

/// Outputs of a head, as `id2label` and `problem_type` of a configuration describe them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Names of the classes, by index; an input has one of them.
    Classes(Vec<String>),
    /// Names of the classes, by index; an input has any number of them (`multi_label_classification`).
    MultiLabel(Vec<String>),
    /// A single number, for regression.
    Score,
    /// Names of several numbers, by index, for regression.
    Scores(Vec<String>),
}

impl Default for Labels {
    /// Two classes, as in transformers.
    fn default() -> Self {
        Self::numbered(2)
    }
}

impl Labels {
    /// Creates classes with the default names of transformers: `LABEL_0`, `LABEL_1`, ….
    pub fn numbered(count: usize) -> Self {
        Self::Classes(Self::numbered_names(count))
    }

    /// Returns the default names of transformers: `LABEL_0`, `LABEL_1`, ….
    pub fn numbered_names(count: usize) -> Vec<String> {
        (0..count).map(numbered_name).collect()
    }

    /// Returns true if names are those that transformers makes up for outputs without names: `LABEL_0` and on.
    pub fn is_numbered(names: &[String]) -> bool {
        let mut indexed = names.iter().enumerate();
        indexed.all(|(index, name)| *name == numbered_name(index))
    }

    /// Returns the number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Score => 1,
            _ => self.names().len(),
        }
    }

    /// Returns the names of the outputs; none for a single number.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Classes(names) | Self::MultiLabel(names) | Self::Scores(names) => names,
            Self::Score => &[],
        }
    }

    /// Returns the name of an output; `None` for a single number.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names().get(index).map(String::as_str)
    }

    /// Returns true if no configuration names the outputs: they have the names that transformers makes up, `LABEL_0` and on.
    pub fn are_numbered(&self) -> bool {
        Self::is_numbered(self.names())
    }

    /// Returns the labels of a head on tokens, which gives each one class whatever `problem_type` says, as in transformers.
    pub fn for_tokens(self) -> Self {
        match self {
            Self::Score => Self::numbered(1),
            Self::Classes(names) | Self::MultiLabel(names) | Self::Scores(names) => {
                Self::Classes(names)
            }
        }
    }

    /// Returns the `problem_type` of transformers.
    pub fn problem_type(&self) -> &'static str {
        match self {
            Self::Classes(_) => SINGLE_LABEL,
            Self::MultiLabel(_) => MULTI_LABEL,
            Self::Score | Self::Scores(_) => REGRESSION,
        }
    }

    /// Reads `id2label`, `num_labels` and `problem_type` of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a key with an unsupported value.
    pub(crate) fn read(keys: &ConfigKeys<'_>) -> Result<Self, ModelError> {
        let object = keys.object();
        let problem = match object.get("problem_type") {
            None | Some(Value::Null) => None,
            Some(Value::String(problem)) if PROBLEMS.contains(&problem.as_str()) => Some(problem),
            Some(other) => {
                let other = other
                    .as_str()
                    .map_or_else(|| other.to_string(), String::from);
                return Err(keys.refuse("problem_type", other, PROBLEMS.join(", ")));
            }
        };
        let id2label = object.get("id2label").filter(|names| !names.is_null());
        let count = match object.get("num_labels").and_then(Value::as_u64) {
            Some(count) if !(1..=MAX_NUMBERED).contains(&count) => {
                return Err(keys.refuse("num_labels", count, format!("1 to {MAX_NUMBERED}")));
            }
            count => count.map(|count| count as usize),
        };
        let names = id2label.map(|names| {
            in_order(names).map_err(|expected| keys.refuse("id2label", names, expected))
        });
        let names = match (names.transpose()?, count) {
            // A number of labels that contradicts the names leaves them without names, as in transformers.
            (Some(names), Some(count)) if names.len() != count => Self::numbered_names(count),
            (Some(names), _) => names,
            (None, Some(count)) => Self::numbered_names(count),
            (None, None) => Self::numbered_names(2),
        };
        Ok(match problem.map(String::as_str) {
            Some(MULTI_LABEL) => Self::MultiLabel(names),
            Some(SINGLE_LABEL) => Self::Classes(names),
            // One output is a regression by default, as in transformers.
            _ if names.len() == 1 => Self::Score,
            Some(REGRESSION) => Self::Scores(names),
            _ => Self::Classes(names),
        })
    }

    /// Writes `id2label`, `label2id` and, where the number of outputs does not tell it, `problem_type`. A single number keeps
    /// the name that the object has for it.
    pub(crate) fn write(&self, object: &mut Map<String, Value>) {
        object.shift_remove("num_labels");
        let problem = self.problem_type();
        let told = matches!(self, Self::Classes(names) if names.len() > 1);
        let before = object.get("problem_type").and_then(Value::as_str);
        if told && before.is_some_and(|before| before != problem) {
            object.shift_remove("problem_type");
        } else if !told {
            object.insert("problem_type".into(), json!(problem));
        }
        let names = match self {
            Self::Score => {
                let before = object.get("id2label").map(in_order);
                let before = before.and_then(Result::ok);
                let before = before.filter(|names| names.len() == 1);
                before.unwrap_or_else(|| Self::numbered_names(1))
            }
            _ => self.names().to_vec(),
        };
        let indexed = || names.iter().enumerate();
        let by_index = indexed().map(|(index, name)| (index.to_string(), json!(name)));
        let by_name = indexed().map(|(index, name)| (name.clone(), json!(index)));
        object.insert("id2label".into(), Value::Object(by_index.collect()));
        object.insert("label2id".into(), Value::Object(by_name.collect()));
    }
}

/// Returns the default name of an output in transformers.
fn numbered_name(index: usize) -> String {
    format!("LABEL_{index}")
}

/// Returns the names of the indices 0, 1, … in this order.
///
/// # Errors
/// A description of what is expected.
fn in_order(names: &Value) -> Result<Vec<String>, String> {
    let expected = || "an object with a name for each index from 0".to_string();
    let names = names.as_object().filter(|names| !names.is_empty());
    let names = names.ok_or_else(expected)?;
    let name = |index: usize| names.get(&index.to_string());
    let mut ordered = Vec::with_capacity(names.len());
    for index in 0..names.len() {
        let Some(name) = name(index) else {
            let (outputs, last) = (names.len(), names.len() - 1);
            return Err(format!(
                "a name for each index: its {outputs} names are for the outputs 0 to {last} of the head, and {index} has \
                 none, so that no one can say which row of the head is which class; number the names from 0 without gaps, \
                 or give every row a name"
            ));
        };
        ordered.push(name.as_str().ok_or_else(expected)?.to_string());
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(json: Value) -> Result<Labels, ModelError> {
        let object = json.as_object().unwrap().clone();
        Labels::read(&ConfigKeys::new(Path::new("config.json"), object))
    }

    #[test]
    fn names_come_in_the_order_of_their_indices() {
        let labels = read(json!({"id2label": {"1": "b", "0": "a", "2": "c"}})).unwrap();
        assert_eq!(
            labels,
            Labels::Classes(vec!["a".into(), "b".into(), "c".into()])
        );
        assert_eq!(labels.outputs(), 3);
        assert_eq!(labels.name(1), Some("b"));
    }

    #[test]
    fn one_output_is_a_regression_unless_the_file_says_otherwise() {
        assert_eq!(
            read(json!({"id2label": {"0": "x"}})).unwrap(),
            Labels::Score
        );
        assert_eq!(read(json!({"num_labels": 1})).unwrap(), Labels::Score);
        let single = json!({"id2label": {"0": "x"}, "problem_type": "single_label_classification"});
        assert_eq!(read(single).unwrap(), Labels::Classes(vec!["x".into()]));
    }

    #[test]
    fn the_problem_decides_and_not_the_number_of_outputs() {
        let two = json!({"0": "joy", "1": "anger"});
        let of = |problem: &str| read(json!({"id2label": two, "problem_type": problem})).unwrap();
        let names = vec!["joy".to_string(), "anger".into()];
        assert_eq!(of("regression"), Labels::Scores(names.clone()));
        assert_eq!(of("multi_label_classification"), Labels::MultiLabel(names));
        let one = json!({"id2label": {"0": "x"}, "problem_type": "multi_label_classification"});
        assert_eq!(read(one).unwrap(), Labels::MultiLabel(vec!["x".into()]));
    }

    #[test]
    fn a_gap_in_the_indices_is_explained() {
        let error = read(json!({"id2label": {"0": "a", "2": "b"}})).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("0 to 1 of the head, and 1 has none"),
            "{message}"
        );
    }

    /// As in transformers 5: `BertConfig(id2label={"0": "x", "1": "y"}, num_labels=3).id2label`.
    #[test]
    fn a_number_of_labels_beats_names_of_another_number() {
        let both = json!({"id2label": {"0": "x", "1": "y"}, "num_labels": 3});
        assert_eq!(read(both).unwrap(), Labels::numbered(3));
    }

    #[test]
    fn a_single_number_keeps_its_name() {
        let mut object = Map::new();
        object.insert("id2label".into(), json!({"0": "similarity"}));
        Labels::Score.write(&mut object);
        assert_eq!(object["id2label"], json!({"0": "similarity"}));
        assert_eq!(object["problem_type"], "regression");
    }

    #[test]
    fn nothing_said_is_two_classes() {
        assert_eq!(read(json!({})).unwrap(), Labels::numbered(2));
        assert_eq!(read(json!({"num_labels": 5})).unwrap().outputs(), 5);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        for (json, key) in [
            (json!({"id2label": {"0": "a", "2": "b"}}), "id2label"),
            (json!({"id2label": {}}), "id2label"),
            (json!({"id2label": ["a"]}), "id2label"),
            (json!({"num_labels": 0}), "num_labels"),
            (json!({"problem_type": "ranking"}), "problem_type"),
            (json!({"problem_type": 2}), "problem_type"),
        ] {
            match read(json) {
                Err(ModelError::UnsupportedConfig { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn written_labels_are_read_again() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (labels, before) in [
            Labels::Score,
            Labels::Scores(names(&["joy", "anger"])),
            Labels::Classes(names(&["no", "yes"])),
            Labels::Classes(names(&["only"])),
            Labels::MultiLabel(names(&["joy", "anger"])),
            Labels::MultiLabel(names(&["only"])),
        ]
        .into_iter()
        .flat_map(|labels| PROBLEMS.map(|before| (labels.clone(), before)))
        {
            let mut object = Map::new();
            object.insert("problem_type".into(), json!(before));
            object.insert("num_labels".into(), json!(7));
            labels.write(&mut object);
            assert_eq!(read(Value::Object(object)).unwrap(), labels);
        }
    }
}
