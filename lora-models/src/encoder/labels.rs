//! Names of a head's outputs.

use crate::ModelError;
use crate::config_keys::ConfigKeys;
use serde_json::{Map, Value, json};

/// Limit for `num_labels`.
const MAX_NUMBERED: u64 = 1 << 20;

/// Outputs of a head: named classes, or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Names of the classes, by index.
    Classes(Vec<String>),
    /// A single number, for regression.
    Score,
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
        Self::Classes(numbered(count))
    }

    /// Returns the number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes(names) => names.len(),
            Self::Score => 1,
        }
    }

    /// Returns the name of a class.
    pub fn name(&self, index: usize) -> Option<&str> {
        match self {
            Self::Classes(names) => names.get(index).map(String::as_str),
            Self::Score => None,
        }
    }

    /// Reads `id2label`, `num_labels` and `problem_type` of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError::UnsupportedConfig`] for a key with an unsupported value.
    pub(crate) fn read(keys: &ConfigKeys<'_>) -> Result<Self, ModelError> {
        let object = keys.object();
        let problem = object.get("problem_type").and_then(Value::as_str);
        if let Some(problem @ "multi_label_classification") = problem {
            let expected = "single_label_classification or regression";
            return Err(keys.refuse("problem_type", problem, expected));
        }
        let id2label = object.get("id2label").filter(|names| !names.is_null());
        let count = object.get("num_labels").and_then(Value::as_u64);
        let names = match (id2label, count) {
            (Some(names), _) => names.as_object().and_then(in_order).ok_or_else(|| {
                let expected = "an object with a name for each index from 0";
                keys.refuse("id2label", names, expected)
            })?,
            (None, Some(count @ 1..=MAX_NUMBERED)) => numbered(count as usize),
            (None, Some(count)) => {
                return Err(keys.refuse("num_labels", count, format!("1 to {MAX_NUMBERED}")));
            }
            (None, None) => return Ok(Self::default()),
        };
        // One output is a regression by default, as in transformers.
        if names.len() == 1 && problem != Some("single_label_classification") {
            return Ok(Self::Score);
        }
        Ok(Self::Classes(names))
    }

    /// Writes `id2label`, `label2id` and, for a regression, `problem_type`.
    pub(crate) fn write(&self, object: &mut Map<String, Value>) {
        object.shift_remove("num_labels");
        let names = match self {
            Self::Classes(names) => {
                if object.get("problem_type").and_then(Value::as_str) == Some("regression") {
                    object.shift_remove("problem_type");
                }
                names.clone()
            }
            Self::Score => {
                object.insert("problem_type".into(), json!("regression"));
                vec!["LABEL_0".into()]
            }
        };
        let indexed = || names.iter().enumerate();
        let by_index = indexed().map(|(index, name)| (index.to_string(), json!(name)));
        let by_name = indexed().map(|(index, name)| (name.clone(), json!(index)));
        object.insert("id2label".into(), Value::Object(by_index.collect()));
        object.insert("label2id".into(), Value::Object(by_name.collect()));
    }
}

/// Returns the default names of transformers.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("LABEL_{index}")).collect()
}

/// Returns the names of the indices 0, 1, … in this order; `None` if one is missing.
fn in_order(names: &Map<String, Value>) -> Option<Vec<String>> {
    let name = |index: usize| names.get(&index.to_string())?.as_str().map(String::from);
    let all = (0..names.len()).map(name).collect::<Option<Vec<_>>>();
    all.filter(|names| !names.is_empty())
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
            (
                json!({"problem_type": "multi_label_classification"}),
                "problem_type",
            ),
        ] {
            match read(json) {
                Err(ModelError::UnsupportedConfig { key: found, .. }) => assert_eq!(found, key),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn written_labels_are_read_again() {
        for labels in [
            Labels::Score,
            Labels::Classes(vec!["no".into(), "yes".into()]),
        ] {
            let mut object = Map::new();
            object.insert("problem_type".into(), json!("regression"));
            object.insert("num_labels".into(), json!(7));
            labels.write(&mut object);
            assert_eq!(read(Value::Object(object)).unwrap(), labels);
        }
    }
}
