//! What the outputs of a head are called.

use serde_json::{Map, Value, json};

/// The outputs of a head: classes with names, or one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Classes, by index.
    Classes(Vec<String>),
    /// One number: a regression.
    Score,
}

impl Default for Labels {
    /// Two classes, as in transformers.
    fn default() -> Self {
        Self::numbered(2)
    }
}

impl Labels {
    /// Classes without names of their own: `LABEL_0`, `LABEL_1`, …, as transformers calls them.
    pub fn numbered(count: usize) -> Self {
        Self::Classes((0..count).map(|index| format!("LABEL_{index}")).collect())
    }

    /// Number of outputs.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes(names) => names.len(),
            Self::Score => 1,
        }
    }

    /// The name of a class.
    pub fn name(&self, index: usize) -> Option<&str> {
        match self {
            Self::Classes(names) => names.get(index).map(String::as_str),
            Self::Score => None,
        }
    }

    /// Reads `id2label`, `num_labels` and `problem_type` of a `config.json`.
    ///
    /// # Errors
    /// What is wrong with which key: (key, value, expected).
    pub(crate) fn read(
        object: &Map<String, Value>,
    ) -> Result<Self, (&'static str, String, String)> {
        let problem = object.get("problem_type").and_then(Value::as_str);
        if problem == Some("multi_label_classification") {
            let expected = "single_label_classification or regression";
            return Err((
                "problem_type",
                "multi_label_classification".into(),
                expected.into(),
            ));
        }
        let names = match object.get("id2label") {
            None | Some(Value::Null) => None,
            Some(Value::Object(names)) => Some(in_order(names).ok_or_else(|| {
                let expected = "an object with a name for each index from 0 on";
                ("id2label", "not that".to_string(), expected.to_string())
            })?),
            Some(other) => {
                let expected = "an object with a name for each index from 0 on";
                return Err(("id2label", other.to_string(), expected.into()));
            }
        };
        let count = object.get("num_labels").and_then(Value::as_u64);
        let names = match (names, count) {
            (Some(names), _) => names,
            (None, Some(count)) if (1..=1 << 20).contains(&count) => {
                return Ok(match count {
                    1 if problem != Some("single_label_classification") => Self::Score,
                    count => Self::numbered(count as usize),
                });
            }
            (None, Some(count)) => {
                let expected = "a number from 1 on".to_string();
                return Err(("num_labels", count.to_string(), expected));
            }
            (None, None) => return Ok(Self::default()),
        };
        // One output is a regression, unless the file says otherwise: as in transformers.
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
        let by_index: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (index.to_string(), json!(name)))
            .collect();
        let by_name: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(index, name)| (name.clone(), json!(index)))
            .collect();
        object.insert("id2label".into(), Value::Object(by_index));
        object.insert("label2id".into(), Value::Object(by_name));
    }
}

/// The names of indices 0, 1, …, whatever their order in the file; `None` where one is missing.
fn in_order(names: &Map<String, Value>) -> Option<Vec<String>> {
    let name = |index: usize| names.get(&index.to_string())?.as_str().map(String::from);
    let all = (0..names.len()).map(name).collect::<Option<Vec<_>>>();
    all.filter(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<Labels, (&'static str, String, String)> {
        Labels::read(json.as_object().unwrap())
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
            assert_eq!(read(json).unwrap_err().0, key);
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
            assert_eq!(Labels::read(&object).unwrap(), labels);
        }
    }
}
