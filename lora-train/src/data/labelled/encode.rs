//! From labelled records to tokenised examples.

use super::{Label, LabelledExample, LabelledRecord, Target, TokenRecord};
use crate::data::TruncationReport;
use crate::error::TrainError;

/// A text or a row of words as a tokenizer gives it, special tokens included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens.
    pub ids: Vec<u32>,
    /// The segment of each.
    pub type_ids: Vec<u32>,
    /// The word that each belongs to, where words were given.
    pub words: Vec<Option<u32>>,
    /// How many tokens were cut off.
    pub cut: usize,
}

/// A tokenizer, as far as labelled data needs one.
pub trait EncodeInputs {
    /// Texts, and pairs of texts, in at most `max_length` tokens each; of a pair the longer loses its
    /// end first.
    ///
    /// # Errors
    /// Whatever the tokenizer refuses.
    fn encode_inputs(
        &self,
        inputs: &[(&str, Option<&str>)],
        max_length: usize,
    ) -> Result<Vec<Encoded>, TrainError>;

    /// A row of words.
    ///
    /// # Errors
    /// Whatever the tokenizer refuses.
    fn encode_words(&self, words: &[&str], max_length: usize) -> Result<Encoded, TrainError>;
}

/// How much each class counts in the loss.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassWeights(Option<Vec<f64>>);

impl ClassWeights {
    /// Each class as given, in order.
    pub fn given(weights: Vec<f64>) -> Self {
        Self(Some(weights))
    }

    /// Each class by one over its share of the labels: `examples / (classes · count)`, scikit-learn's
    /// "balanced". A class that does not occur counts 1.
    ///
    /// ```
    /// use lora_train::data::ClassWeights;
    /// let weights = ClassWeights::balanced([0, 0, 0, 1].into_iter(), 2);
    /// assert_eq!((weights.of(0), weights.of(1)), (4.0 / 6.0, 2.0));
    /// ```
    pub fn balanced(labels: impl Iterator<Item = usize>, classes: usize) -> Self {
        let mut counts = vec![0usize; classes];
        for label in labels {
            if let Some(count) = counts.get_mut(label) {
                *count += 1;
            }
        }
        let total: usize = counts.iter().sum();
        let weight = |&count: &usize| match count {
            0 => 1.0,
            count => total as f64 / (classes * count) as f64,
        };
        Self(Some(counts.iter().map(weight).collect()))
    }

    /// The weight of a class; 1 where none are given.
    pub fn of(&self, class: usize) -> f64 {
        let weights = self.0.as_ref();
        weights.map_or(1.0, |weights| weights.get(class).copied().unwrap_or(1.0))
    }

    /// The weights, where they are given.
    pub fn values(&self) -> Option<&[f64]> {
        self.0.as_deref()
    }
}

/// Tokenises texts and pairs, in their order.
///
/// # Errors
/// Whatever the tokenizer refuses.
pub fn encode_labelled(
    records: &[LabelledRecord],
    encoder: &dyn EncodeInputs,
    max_length: usize,
    weights: &ClassWeights,
) -> Result<(Vec<LabelledExample>, TruncationReport), TrainError> {
    let inputs: Vec<(&str, Option<&str>)> = records
        .iter()
        .map(|record| (record.first.as_str(), record.second.as_deref()))
        .collect();
    let encoded = encoder.encode_inputs(&inputs, max_length)?;
    let mut report = report(max_length);
    let mut examples = Vec::with_capacity(records.len());
    for (record, encoded) in records.iter().zip(encoded) {
        count(&mut report, &encoded);
        let (target, weight) = match record.label {
            Some(Label::Class(class)) => (Target::Class(class), weights.of(class)),
            Some(Label::Score(score)) => (Target::Score(score), 1.0),
            None => (Target::Unknown, 1.0),
        };
        examples.push(LabelledExample {
            index: examples.len(),
            tokens: encoded.ids,
            type_ids: encoded.type_ids,
            target,
            weight,
            origin: record.origin.clone(),
        });
    }
    Ok((examples, report))
}

/// Tokenises rows of words. The first token of a word carries its tag, the others none, as in
/// transformers' examples; what is cut off carries none either.
///
/// # Errors
/// Whatever the tokenizer refuses.
pub fn encode_tagged(
    records: &[TokenRecord],
    encoder: &dyn EncodeInputs,
    max_length: usize,
    weights: &ClassWeights,
) -> Result<(Vec<LabelledExample>, TruncationReport), TrainError> {
    let mut report = report(max_length);
    let mut examples = Vec::with_capacity(records.len());
    for record in records {
        let words: Vec<&str> = record.words.iter().map(String::as_str).collect();
        let encoded = encoder.encode_words(&words, max_length)?;
        count(&mut report, &encoded);
        let (target, weight) = match &record.labels {
            None => (Target::Unknown, 1.0),
            Some(labels) => {
                let tags = tags(&encoded.words, labels);
                let weight = tags.iter().flatten().map(|&tag| weights.of(tag)).sum();
                (Target::Tags(tags), weight)
            }
        };
        examples.push(LabelledExample {
            index: examples.len(),
            tokens: encoded.ids,
            type_ids: encoded.type_ids,
            target,
            weight,
            origin: record.origin.clone(),
        });
    }
    Ok((examples, report))
}

/// The tag of each token: that of its word, on the word's first token.
fn tags(words: &[Option<u32>], labels: &[usize]) -> Vec<Option<usize>> {
    let mut before = None;
    let mut tags = Vec::with_capacity(words.len());
    for &word in words {
        let first = word.filter(|_| word != before);
        tags.push(first.and_then(|word| labels.get(word as usize).copied()));
        before = word.or(before);
    }
    tags
}

fn report(max_length: usize) -> TruncationReport {
    TruncationReport {
        max_length,
        ..TruncationReport::default()
    }
}

fn count(report: &mut TruncationReport, encoded: &Encoded) {
    report.examples += 1;
    report.examples_cut += usize::from(encoded.cut > 0);
    report.tokens_cut += encoded.cut;
    report.longest = report.longest.max(encoded.ids.len() + encoded.cut);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Origin;
    use std::path::Path;

    /// Each word is a token, one more for each letter past the third; 0 and 1 around the whole.
    struct Words;

    impl EncodeInputs for Words {
        fn encode_inputs(
            &self,
            inputs: &[(&str, Option<&str>)],
            max_length: usize,
        ) -> Result<Vec<Encoded>, TrainError> {
            let words = |text: &str| text.split(' ').map(|w| w.len() as u32).collect();
            let encode = |&(first, second): &(&str, Option<&str>)| {
                let mut ids: Vec<u32> = words(first);
                let split = ids.len();
                ids.extend(second.map(words).unwrap_or_default());
                let cut = ids.len().saturating_sub(max_length);
                ids.truncate(max_length);
                let type_ids = (0..ids.len()).map(|at| u32::from(at >= split)).collect();
                Encoded {
                    ids,
                    type_ids,
                    words: Vec::new(),
                    cut,
                }
            };
            Ok(inputs.iter().map(encode).collect())
        }

        fn encode_words(&self, words: &[&str], _max_length: usize) -> Result<Encoded, TrainError> {
            let mut encoded = Encoded {
                ids: vec![0],
                words: vec![None],
                ..Encoded::default()
            };
            for (index, word) in words.iter().enumerate() {
                for _ in 0..word.len().div_ceil(3) {
                    encoded.ids.push(7);
                    encoded.words.push(Some(index as u32));
                }
            }
            encoded.ids.push(1);
            encoded.words.push(None);
            encoded.type_ids = vec![0; encoded.ids.len()];
            Ok(encoded)
        }
    }

    fn origin() -> Origin {
        Origin::new(Path::new("a.jsonl"), 1)
    }

    #[test]
    fn texts_become_examples_with_their_labels_and_what_is_cut_is_counted() {
        let record = |first: &str, second: Option<&str>, label| LabelledRecord {
            first: first.into(),
            second: second.map(String::from),
            label,
            id: None,
            origin: origin(),
        };
        let records = [
            record("a bb", Some("ccc"), Some(Label::Class(1))),
            record("a b c d e", None, Some(Label::Score(2.5))),
            record("a", None, None),
        ];
        let weights = ClassWeights::given(vec![1.0, 3.0]);
        let (examples, report) = encode_labelled(&records, &Words, 4, &weights).unwrap();
        assert_eq!(examples[0].tokens, [1, 2, 3]);
        assert_eq!(examples[0].type_ids, [0, 0, 1]);
        assert_eq!(
            (&examples[0].target, examples[0].weight),
            (&Target::Class(1), 3.0)
        );
        assert_eq!(examples[1].target, Target::Score(2.5));
        assert_eq!(examples[2].target, Target::Unknown);
        assert_eq!(examples[2].index, 2);
        assert_eq!(
            (report.examples_cut, report.tokens_cut, report.longest),
            (1, 1, 5)
        );
    }

    #[test]
    fn the_first_token_of_a_word_carries_its_tag() {
        let record = TokenRecord {
            words: vec!["a".into(), "bbbb".into(), "ccc".into()],
            labels: Some(vec![2, 0, 1]),
            origin: origin(),
        };
        let weights = ClassWeights::default();
        let (examples, _) = encode_tagged(&[record], &Words, 99, &weights).unwrap();
        let tags = vec![None, Some(2), Some(0), None, Some(1), None];
        assert_eq!(examples[0].target, Target::Tags(tags));
        assert_eq!(examples[0].weight, 3.0);
    }
}
