//! Digest of the examples of a run, to tell whether a resumed run has the same.

use super::example::{Example, Target};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Longest list of classes in bytes that is kept as text.
const CLASSES_LIMIT: usize = 1 << 10;

/// Digest of tokenized examples: of all that a run reads of its data. Texts that become the same tokens are the same data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataDigest {
    /// Number of examples.
    pub examples: usize,
    /// Number of their tokens.
    pub tokens: usize,
    /// Hash of the tokens of each example, in any order.
    pub texts: String,
    /// Hash of the labels of each example, in any order.
    pub labels: String,
    /// Hash of each example with its label, in any order.
    pub pairs: String,
    /// Hash of each example with its label, in their order.
    pub order: String,
    /// Names of the classes in their order, or the hash of a long list.
    pub classes: String,
}

impl DataDigest {
    /// Returns the digest as text, a line for each part.
    pub(crate) fn lines(&self) -> String {
        let Self {
            examples,
            tokens,
            texts,
            labels,
            pairs,
            order,
            classes,
        } = self;
        format!(
            "examples {examples}\ntokens {tokens}\ntexts {texts}\nlabels {labels}\npairs {pairs}\norder {order}\nclasses {classes}"
        )
    }

    /// Computes the digest of examples whose classes have these names; none for data without classes.
    pub fn new(examples: &[Example], classes: &[String]) -> Self {
        let (mut texts, mut labels, mut pairs) = (0, 0, 0);
        let mut order = Sha256::new();
        for example in examples {
            let text = hash_of(|hash| text_into(hash, example));
            let label = hash_of(|hash| label_into(hash, example, classes));
            let pair = hash_of(|hash| {
                hash.update(text.to_le_bytes());
                hash.update(label.to_le_bytes());
            });
            order.update(pair.to_le_bytes());
            // A sum does not depend on the order.
            texts = text.wrapping_add(texts);
            labels = label.wrapping_add(labels);
            pairs = pair.wrapping_add(pairs);
        }
        let list = classes.join(", ");
        let classes = if list.len() > CLASSES_LIMIT {
            let count = classes.len();
            format!(
                "{count} classes, {}",
                hex(hash_of(|hash| hash.update(&list)))
            )
        } else {
            list
        };
        Self {
            examples: examples.len(),
            tokens: examples.iter().map(Example::len).sum(),
            texts: hex(texts),
            labels: hex(labels),
            pairs: hex(pairs),
            order: hex(first_half(order)),
            classes,
        }
    }

    /// Names what differs from the data of an earlier session; empty if nothing does.
    pub fn changes_since(&self, earlier: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.classes != earlier.classes {
            let named = |classes: &str| match classes {
                "" => "none".to_string(),
                classes => classes.into(),
            };
            let (now, before) = (named(&self.classes), named(&earlier.classes));
            changes.push(format!("the classes (it had: {before}; now: {now})"));
        }
        if self.texts != earlier.texts {
            let size = |data: &Self| format!("{} examples, {} tokens", data.examples, data.tokens);
            let (now, before) = (size(self), size(earlier));
            changes.push(if now == before {
                format!("the texts ({now}, as before)")
            } else {
                format!("the texts (it had: {before}; now: {now})")
            });
        }
        let same_texts = self.texts == earlier.texts;
        if self.labels != earlier.labels || (same_texts && self.pairs != earlier.pairs) {
            // A language model learns the completion of each prompt.
            changes.push(if self.classes.is_empty() {
                "the labels, or the beginnings of the completions".into()
            } else {
                "the labels".into()
            });
        }
        if same_texts && self.pairs == earlier.pairs && self.order != earlier.order {
            changes.push("the order of the examples".into());
        }
        changes
    }
}

fn text_into(hash: &mut Sha256, example: &Example) {
    let mut numbers = |values: &[u32]| {
        hash.update((values.len() as u64).to_le_bytes());
        values
            .iter()
            .for_each(|value| hash.update(value.to_le_bytes()));
    };
    numbers(example.tokens());
    numbers(example.type_ids());
    let words: Vec<u32> = example
        .words()
        .flat_map(|(position, word)| [position as u32, word as u32])
        .collect();
    numbers(&words);
}

/// Hashes a label with the names of its classes, so that another order of the classes is not another label.
fn label_into(hash: &mut Sha256, example: &Example, classes: &[String]) {
    let name = |class: &usize| match classes.get(*class) {
        Some(name) => name.clone(),
        None => class.to_string(),
    };
    let text = match example.target() {
        Target::Class(class) => format!("class {:?}", name(class)),
        Target::Tags(tags) => {
            let names: Vec<String> = tags.iter().map(name).collect();
            format!("tags {names:?}")
        }
        Target::Set(classes) => {
            let mut names: Vec<String> = classes.iter().map(name).collect();
            names.sort_unstable();
            format!("set {names:?}")
        }
        target => format!("{target:?}"),
    };
    hash.update(text);
}

/// Returns the first 128 bits of a SHA-256.
fn hash_of(fill: impl FnOnce(&mut Sha256)) -> u128 {
    let mut hash = Sha256::new();
    fill(&mut hash);
    first_half(hash)
}

fn first_half(hash: Sha256) -> u128 {
    let bytes = hash.finalize();
    bytes
        .iter()
        .take(16)
        .fold(0, |number, &byte| (number << 8) | u128::from(byte))
}

fn hex(number: u128) -> String {
    format!("{number:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::record::Origin;
    use std::path::Path;

    fn example(tokens: &[u32], target: Target) -> Example {
        let origin = Origin::new(Path::new("a.jsonl"), 1);
        Example::with_target(0, tokens.to_vec(), target, origin)
    }

    fn classes(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn three() -> Vec<Example> {
        vec![
            example(&[5, 6], Target::Class(0)),
            example(&[7], Target::Class(1)),
            example(&[5, 8, 9], Target::Class(1)),
        ]
    }

    #[track_caller]
    fn assert_changes(now: &[Example], names: &[&str], expected: &[&str]) {
        let before = DataDigest::new(&three(), &classes(&["no", "yes"]));
        let now = DataDigest::new(now, &classes(names));
        let changes = now.changes_since(&before);
        assert_eq!(changes.len(), expected.len(), "{changes:?}");
        for (change, expected) in changes.iter().zip(expected) {
            assert!(change.contains(expected), "{change}, not {expected}");
        }
        assert_eq!(now == before, expected.is_empty());
    }

    #[test]
    fn equal_data_has_no_changes() {
        assert_changes(&three(), &["no", "yes"], &[]);
    }

    #[test]
    fn another_text_of_the_same_length_is_named() {
        let mut other = three();
        other[1] = example(&[8], Target::Class(1));
        let expected = ["the texts (3 examples, 6 tokens, as before)"];
        assert_changes(&other, &["no", "yes"], &expected);
        other.push(example(&[8], Target::Class(1)));
        let expected = ["3 examples, 6 tokens; now: 4 examples, 7 tokens", "labels"];
        assert_changes(&other, &["no", "yes"], &expected);
    }

    #[test]
    fn other_labels_are_named_though_there_are_as_many_of_each() {
        let mut other = three();
        other[0] = example(&[5, 6], Target::Class(1));
        other[1] = example(&[7], Target::Class(0));
        assert_changes(&other, &["no", "yes"], &["the labels"]);
    }

    #[test]
    fn another_order_is_named() {
        let mut other = three();
        other.swap(0, 2);
        assert_changes(&other, &["no", "yes"], &["the order of the examples"]);
    }

    #[test]
    fn another_order_of_the_classes_is_not_another_label() {
        let other = [
            example(&[5, 6], Target::Class(1)),
            example(&[7], Target::Class(0)),
            example(&[5, 8, 9], Target::Class(0)),
        ];
        let expected = ["it had: no, yes; now: yes, no"];
        assert_changes(&other, &["yes", "no"], &expected);
    }

    #[test]
    fn completions_that_begin_elsewhere_are_other_data() {
        let with = |from| DataDigest::new(&[example(&[1, 2, 3], Target::Tokens { from })], &[]);
        let changes = with(2).changes_since(&with(1));
        assert_eq!(
            changes,
            ["the labels, or the beginnings of the completions"]
        );
    }

    #[test]
    fn a_long_list_of_classes_is_hashed() {
        let names: Vec<String> = (0..2000).map(|i| format!("class {i}")).collect();
        let digest = DataDigest::new(&[], &names);
        assert!(digest.classes.starts_with("2000 classes, ") && digest.classes.len() < 60);
    }
}
