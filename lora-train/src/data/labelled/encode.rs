//! Tokenization of records with labels.

use crate::data::encode::TruncationReport;
use crate::data::encoder::Encode;
use crate::data::example::{Example, Target};
use crate::data::labels::ClassWeights;
use crate::data::record::{Content, Label, Record};
use crate::error::TrainError;

/// Tokenizes texts, pairs and words, in their order.
///
/// The first token of a word carries its tag and the others none, as in the examples of transformers. A word that is cut
/// off has no tag.
///
/// # Errors
/// [`TrainError::DataLine`] for an input without tokens; the errors of the tokenizer.
pub fn encode_labelled(
    records: &[Record],
    encoder: &dyn Encode,
    max_length: usize,
    weights: &ClassWeights,
) -> Result<(Vec<Example>, TruncationReport), TrainError> {
    let texts: Vec<(&str, Option<&str>)> = records
        .iter()
        .filter_map(|record| record.content.texts())
        .collect();
    let mut texts = encoder.encode_inputs(&texts, max_length)?.into_iter();
    let mut report = TruncationReport {
        max_length,
        ..TruncationReport::default()
    };
    let mut examples = Vec::with_capacity(records.len());
    for record in records {
        let sequence = match &record.content {
            Content::Words { words } => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                encoder.encode_words(&words, max_length)?
            }
            // There is a sequence for each record of texts.
            _ => texts.next().unwrap_or_default(),
        };
        if sequence.ids.is_empty() {
            let message =
                "the text has no token, and the tokenizer puts none around it; leave the line out";
            return Err(record.origin.error(message));
        }
        report.examples += 1;
        report.examples_cut += usize::from(sequence.cut > 0);
        report.tokens_cut += sequence.cut;
        report.longest = report.longest.max(sequence.ids.len() + sequence.cut);

        let target = match &record.label {
            Some(Label::Class(class)) => Target::Class(*class),
            Some(Label::Set(classes)) => Target::Set(classes.clone()),
            Some(Label::Score(score)) => Target::Score(*score),
            Some(Label::Scores(scores)) => Target::Scores(scores.clone()),
            Some(Label::Tags(tags)) => Target::Tags(tags.clone()),
            None => Target::Unknown,
        };
        let index = examples.len();
        let mut example = Example::with_target(index, sequence.ids, target, record.origin.clone())
            .with_type_ids(sequence.type_ids)
            .with_adapter(record.adapter.as_deref());
        if !record.content.words().is_empty() {
            example = example.with_words(first_tokens(sequence.words));
        }
        let weight = match example.target() {
            Target::Class(class) => weights.of(*class),
            Target::Tags(_) => example.tags().map(|(_, tag)| weights.of(tag)).sum(),
            _ => 1.0,
        };
        examples.push(example.with_weight(weight));
    }
    Ok((examples, report))
}

/// Keeps each word at its first token only.
fn first_tokens(mut words: Vec<Option<u32>>) -> Vec<Option<u32>> {
    let mut last = None;
    for word in &mut words {
        let first = word.filter(|_| *word != last);
        last = word.or(last);
        *word = first;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::encoder::testing::Bytes;
    use crate::data::record::Origin;
    use std::path::Path;

    fn record(content: Content, label: Option<Label>) -> Record {
        let origin = Origin::new(Path::new("a.jsonl"), 1);
        Record::new(content, origin).with_label(label)
    }

    #[test]
    fn texts_become_examples_with_their_labels_and_what_is_cut_is_counted() {
        let text = |first: &str, second: Option<&str>, label| {
            let content = Content::from_texts(first.into(), second.map(String::from));
            record(content, label)
        };
        let records = [
            text("a", Some("bc"), Some(Label::Class(1))),
            text("abcdef", None, Some(Label::Score(2.5))),
            text("a", None, None).with_adapter(Some("de".into())),
        ];
        let weights = ClassWeights::given(vec![1.0, 3.0]);
        let (examples, report) = encode_labelled(&records, &Bytes, 7, &weights).unwrap();
        assert_eq!(examples[0].tokens(), [0, 97, 1, 0, 98, 99, 1]);
        assert_eq!(examples[0].type_ids(), [0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(
            (examples[0].target(), examples[0].weight()),
            (&Target::Class(1), 3.0)
        );
        assert_eq!(examples[1].target(), &Target::Score(2.5));
        assert_eq!(examples[2].target(), &Target::Unknown);
        assert_eq!(examples[2].index(), 2);
        assert_eq!(
            (examples[0].adapter(), examples[2].adapter()),
            (None, Some("de"))
        );
        assert_eq!(
            (report.examples_cut, report.tokens_cut, report.longest),
            (1, 1, 8)
        );
    }

    #[test]
    fn the_first_token_of_a_word_carries_its_tag() {
        let words = vec!["a".into(), "bb".into(), "c".into()];
        let record = record(Content::Words { words }, Some(Label::Tags(vec![2, 0, 1])));
        let weights = ClassWeights::given(vec![0.5, 1.0, 2.0]);
        let records = [record];
        let (examples, _) = encode_labelled(&records, &Bytes, 99, &weights).unwrap();
        assert_eq!(examples[0].tokens(), [0, 97, 98, 98, 99, 1]);
        let tags: Vec<(usize, usize)> = examples[0].tags().collect();
        assert_eq!(tags, [(1, 2), (2, 0), (4, 1)]);
        assert_eq!(examples[0].weight(), 3.5);
        // A word that is cut off has none.
        let (examples, _) = encode_labelled(&records, &Bytes, 5, &weights).unwrap();
        let words: Vec<(usize, usize)> = examples[0].words().collect();
        assert_eq!(words, [(1, 0), (2, 1)]);
        assert_eq!(examples[0].weight(), 2.5);
    }
}
