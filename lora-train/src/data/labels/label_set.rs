//! Classes of a task, by name and by index.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{TrainError, listed};
use lora_models::encoder::Labels;

/// Maximum number of classes of a task. A column of free text, taken for the labels, has more.
pub(super) const MAX_CLASSES: usize = 10_000;

/// Names of the classes, in the order of their indices. In configuration files it is the list
/// of the names.
///
/// # Examples
/// ```
/// use lora_train::data::LabelSet;
///
/// # fn main() -> Result<(), lora_train::TrainError> {
/// let labels = LabelSet::new(["negative", "positive"])?;
/// assert_eq!(labels.index("positive"), Some(1));
/// assert_eq!(labels.name(0), Some("negative"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelSet {
    names: Vec<String>,
    indices: HashMap<String, usize>,
    /// Classes by their [folded](folded) names; `None` for a name that several have.
    folded: HashMap<String, Option<usize>>,
}

impl LabelSet {
    /// Creates the classes of these names, indexed from 0 in this order.
    ///
    /// # Errors
    /// [`TrainError::Config`] if there is no name, an empty one, one twice, or more than 10000.
    pub fn new<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Result<Self, TrainError> {
        let error = |message: String| Err(TrainError::config("labels", message));
        let names = names.into_iter().take(MAX_CLASSES + 1);
        let names: Vec<String> = names.map(Into::into).collect();
        if names.is_empty() {
            return error("no label is named; name each class".to_string());
        }
        if names.len() > MAX_CLASSES {
            return error(format!("more than the {MAX_CLASSES} classes that are read"));
        }
        let mut indices = HashMap::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            // Labels are read from files without the white space around them.
            if name.trim() != name || name.is_empty() {
                return error(format!(
                    "the name of class {index}, `{name}`, is empty or has white space around it"
                ));
            }
            if let Some(first) = indices.insert(name.clone(), index) {
                return error(format!(
                    "the classes {first} and {index} are both named `{name}`; each needs a name of \
                     its own"
                ));
            }
        }
        let folded = fold_all(&names);
        Ok(Self {
            names,
            indices,
            folded,
        })
    }

    /// Creates the classes of these names, known to be different.
    pub(in crate::data) fn from_distinct(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let indices = names.iter().cloned().zip(0..).collect();
        let folded = fold_all(&names);
        Self {
            names,
            indices,
            folded,
        }
    }

    /// Returns the names, in the order of their indices.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of classes, at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns the name of class `index`.
    pub fn name(&self, index: usize) -> Option<&str> {
        self.names.get(index).map(String::as_str)
    }

    /// Returns the class of this name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.indices.get(name).copied()
    }

    /// Returns the class of this name, else of the only one that differs from it in case, spaces, `_` and `-` alone.
    ///
    /// ```
    /// use lora_train::data::LabelSet;
    ///
    /// # fn main() -> Result<(), lora_train::TrainError> {
    /// let labels = LabelSet::new(["NOT_ENTAILMENT", "Entailment"])?;
    /// assert_eq!(labels.find("not entailment"), Some(0));
    /// assert_eq!(labels.find("entail"), None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn find(&self, name: &str) -> Option<usize> {
        let alike = || self.folded.get(&folded(name)?).copied().flatten();
        self.index(name).or_else(alike)
    }

    /// Returns the class of each of these names or indices; `None` if one is unknown.
    pub(crate) fn find_all(&self, names: &[String]) -> Option<Vec<usize>> {
        names.iter().map(|name| self.resolve(name).ok()).collect()
    }

    /// Returns true if the names are those that transformers makes up for classes without names: `LABEL_0` and on.
    pub fn is_generic(&self) -> bool {
        Labels::is_numbered(&self.names)
    }

    /// Returns the class that a label in a file means: a name, or an index where no name is a number, which
    /// might mean either.
    ///
    /// # Errors
    /// A message on the label that lists the known ones.
    pub(super) fn resolve(&self, label: &str) -> Result<usize, String> {
        if let Some(class) = self.find(label) {
            return Ok(class);
        }
        let known = listed(&self.names);
        let has_numbers = self.names.iter().any(|name| whole_number(name).is_some());
        let Some(index) = whole_number(label).filter(|_| !has_numbers) else {
            return Err(format!("unknown label `{label}`; the labels are {known}"));
        };
        let (class, classes) = (usize::try_from(index), self.len());
        class.ok().filter(|class| *class < classes).ok_or_else(|| {
            let last = classes - 1;
            format!("class {index} is out of range; the {classes} classes, from 0 to {last}, are {known}")
        })
    }
}

impl TryFrom<Vec<String>> for LabelSet {
    type Error = TrainError;

    fn try_from(names: Vec<String>) -> Result<Self, TrainError> {
        Self::new(names)
    }
}

impl From<LabelSet> for Vec<String> {
    fn from(labels: LabelSet) -> Self {
        labels.names
    }
}

/// Returns the names that transformers makes up for classes without names.
pub(in crate::data) fn numbered(count: usize) -> Vec<String> {
    Labels::numbered_names(count)
}

/// Returns a name in lower case without spaces, `_` and `-`; `None` for a number, in which these have a meaning, and for a name
/// of nothing else.
fn folded(name: &str) -> Option<String> {
    if name.parse::<f64>().is_ok() {
        return None;
    }
    let plain = name
        .chars()
        .filter(|c| !matches!(c, '_' | '-') && !c.is_whitespace());
    let plain = plain.collect::<String>().to_lowercase();
    (!plain.is_empty()).then_some(plain)
}

/// Returns the classes by their folded names.
fn fold_all(names: &[String]) -> HashMap<String, Option<usize>> {
    let mut all: HashMap<String, Option<usize>> = HashMap::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(name) = folded(name) {
            let known = all.entry(name);
            known
                .and_modify(|class| *class = None)
                .or_insert(Some(index));
        }
    }
    all
}

/// Returns the whole number that a label is, if it is written in the usual way: `07` and `+7` are names.
pub(super) fn whole_number(label: &str) -> Option<i64> {
    let number: i64 = label.parse().ok()?;
    (number.to_string() == label).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> LabelSet {
        LabelSet::new(names.iter().copied()).unwrap()
    }

    #[test]
    fn names_and_indices_are_each_others_inverse() {
        let labels = set(&["b", "a", "c"]);
        assert_eq!(labels.len(), 3);
        for (index, name) in labels.names().iter().enumerate() {
            assert_eq!(labels.index(name), Some(index));
            assert_eq!(labels.name(index), Some(name.as_str()));
        }
        assert_eq!((labels.index("d"), labels.name(3)), (None, None));
    }

    #[test]
    fn a_name_twice_an_empty_one_and_none_are_refused() {
        for (names, reason) in [
            (vec!["a", "b", "a"], "0 and 2 are both named `a`"),
            (vec!["a", ""], "class 1"),
            (vec!["a "], "white space"),
            (vec![], "no label"),
        ] {
            let message = LabelSet::new(names).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
        let many = (0..=MAX_CLASSES).map(|index| index.to_string());
        let message = LabelSet::new(many).unwrap_err().to_string();
        assert!(message.contains("more than the 10000"), "{message}");
    }

    #[test]
    fn a_label_is_a_name_before_it_is_an_index() {
        let named = set(&["negative", "positive"]);
        assert_eq!(named.resolve("positive"), Ok(1));
        assert_eq!(named.resolve("0"), Ok(0));
        for index in ["2", "-1"] {
            let message = named.resolve(index).unwrap_err();
            assert!(message.contains("out of range"), "{message}");
            assert!(message.contains("`negative`, `positive`"), "{message}");
        }
        let message = named.resolve("01").unwrap_err();
        assert!(message.contains("unknown label `01`"), "{message}");

        // Stars from 1 to 3: `1` is class 0 and `0`, an index, is none.
        let stars = set(&["1", "2", "3"]);
        assert_eq!(stars.resolve("1"), Ok(0));
        let message = stars.resolve("0").unwrap_err();
        assert!(message.contains("unknown label `0`"), "{message}");
    }

    #[test]
    fn case_spaces_and_underscores_do_not_part_names_unless_two_differ_in_them() {
        let labels = set(&["not_entailment", "B-PER", "Good", "good", "-1", "1"]);
        for (name, class) in [
            ("Not Entailment", Some(0)),
            ("NOT-ENTAILMENT", Some(0)),
            ("b-per", Some(1)),
            ("good", Some(3)),
            ("GOOD", None),
            ("-1", Some(4)),
            ("1", Some(5)),
            ("--", None),
        ] {
            assert_eq!(labels.find(name), class, "{name}");
        }
    }

    #[test]
    fn only_the_names_that_transformers_makes_up_are_generic() {
        assert!(set(&["LABEL_0", "LABEL_1"]).is_generic());
        assert!(!set(&["LABEL_1", "LABEL_0"]).is_generic());
        assert!(!set(&["LABEL_0", "other"]).is_generic());
    }

    #[test]
    fn a_configuration_file_holds_the_list_of_names() {
        let labels: LabelSet = serde_json::from_str(r#"["x", "y"]"#).unwrap();
        assert_eq!(labels, set(&["x", "y"]));
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"["x","y"]"#);
        let error = serde_json::from_str::<LabelSet>(r#"["x", "x"]"#).unwrap_err();
        assert!(error.to_string().contains("both named `x`"));
    }
}
