//! Digest of the examples of a run, to tell whether a resumed run has the same.

use super::example::{Example, Target};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

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
    /// Digests of the files, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileDigest>,
}

/// Digest of the examples of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Name of the file, without its folder.
    pub name: String,
    /// Hash of each example with its label, in any order.
    pub pairs: String,
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
            files,
        } = self;
        let files = files
            .iter()
            .map(|file| format!("\nfile {} {}", file.name, file.pairs));
        format!(
            "examples {examples}\ntokens {tokens}\ntexts {texts}\nlabels {labels}\npairs {pairs}\norder {order}\nclasses {classes}{}",
            files.collect::<String>()
        )
    }

    /// Computes the digest of examples whose classes have these names; none for data without classes.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Example>, classes: &[String]) -> Self {
        let mut builder = DigestBuilder::new(classes);
        examples
            .into_iter()
            .for_each(|example| builder.add(example));
        builder.finish()
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
            let files = self.changed_files(earlier);
            changes.push(if now == before {
                format!("the texts ({now}, as before){files}")
            } else {
                format!("the texts (it had: {before}; now: {now}){files}")
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

    /// Names the files whose examples differ, where there are several.
    fn changed_files(&self, earlier: &Self) -> String {
        let pairs = self.files.iter().zip(&earlier.files);
        let changed = pairs.filter(|(now, before)| now.pairs != before.pairs);
        let names: Vec<&str> = changed.map(|(now, _)| now.name.as_str()).collect();
        if names.is_empty() || self.files.len() != earlier.files.len() {
            return String::new();
        }
        format!(" in {}", names.join(", "))
    }
}

/// Digest of examples that come one by one.
pub(super) struct DigestBuilder<'a> {
    classes: &'a [String],
    examples: usize,
    tokens: usize,
    texts: u128,
    labels: u128,
    pairs: u128,
    order: Sha256,
    /// Files in their order, with the sum of their pairs.
    files: Vec<(Arc<Path>, u128)>,
}

impl<'a> DigestBuilder<'a> {
    /// Starts without an example.
    pub(super) fn new(classes: &'a [String]) -> Self {
        Self {
            classes,
            examples: 0,
            tokens: 0,
            texts: 0,
            labels: 0,
            pairs: 0,
            order: Sha256::new(),
            files: Vec::new(),
        }
    }

    /// Adds the next example.
    pub(super) fn add(&mut self, example: &Example) {
        let text = hash_of(|hash| text_into(hash, example));
        let label = hash_of(|hash| label_into(hash, example, self.classes));
        let pair = hash_of(|hash| {
            hash.update(text.to_le_bytes());
            hash.update(label.to_le_bytes());
        });
        self.order.update(pair.to_le_bytes());
        // A sum does not depend on the order.
        self.texts = text.wrapping_add(self.texts);
        self.labels = label.wrapping_add(self.labels);
        self.pairs = pair.wrapping_add(self.pairs);
        self.examples += 1;
        self.tokens += example.len();
        let path = example.origin().path();
        match self.files.last_mut() {
            Some((last, pairs)) if **last == *path => *pairs = pair.wrapping_add(*pairs),
            _ => self.files.push((example.origin().shared_path(), pair)),
        }
    }

    /// Returns the digest.
    pub(super) fn finish(self) -> DataDigest {
        let list = self.classes.join(", ");
        let classes = if list.len() > CLASSES_LIMIT {
            let count = self.classes.len();
            format!(
                "{count} classes, {}",
                hex(hash_of(|hash| hash.update(&list)))
            )
        } else {
            list
        };
        let name = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into()
        };
        let files = self.files.iter().map(|(path, pairs)| FileDigest {
            name: name(path),
            pairs: hex(*pairs),
        });
        DataDigest {
            examples: self.examples,
            tokens: self.tokens,
            texts: hex(self.texts),
            labels: hex(self.labels),
            pairs: hex(self.pairs),
            order: hex(first_half(self.order)),
            classes,
            files: if self.files.len() > 1 {
                files.collect()
            } else {
                Vec::new()
            },
        }
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
