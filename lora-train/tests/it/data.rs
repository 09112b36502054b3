//! From files to batches, through the public interface only.

use std::path::{Path, PathBuf};

use lora_models::tokenizer::Sequence;
use lora_train::data::{
    Batch, BatchOrder, BatchPlan, Columns, Content, DataFormat, Encode, EncodingOptions, Example,
    MAX_LINE_BYTES, PairTemplate, Record, SampleBatch, SourceOptions, TextDocuments, collate,
    concatenate_records, encode_records, group_references, read_records,
};
use lora_train::error::TrainError;
use tempfile::TempDir;
use test_support::random::Random;

const EOS: u32 = 256;
const PAD: u32 = 257;

/// Each byte is a token.
struct Bytes;

impl Encode for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn encode_inputs(
        &self,
        _: &[(&str, Option<&str>)],
        _: usize,
    ) -> Result<Vec<Sequence>, TrainError> {
        unreachable!("texts of a language model are encoded in pieces")
    }

    fn encode_words(&self, _: &[&str], _: usize) -> Result<Sequence, TrainError> {
        unreachable!("texts of a language model are encoded in pieces")
    }
}

/// From the validation split of the E2E NLG Challenge (CC BY-SA 4.0).
const E2E: &str = "\
name : Alimentum | area : city centre | family friendly : no||There is a place in the city centre , Alimentum , that is not family - friendly . 
name : Alimentum | area : city centre | family friendly : no||Alimentum is not a family - friendly place , located in city centre . 
name : Alimentum | area : city centre | family friendly : no | near : Burger King||Near Burger King in city centre is the adult establishment Alimentum . 
name : Alimentum | area : city centre | family friendly : no||In the city centre there is a venue name Alimentum , this is not a family - friendly venue . 
";

/// In the manner of WikiText-2: blank lines, headings, one paragraph a line.
const WIKI: &str = " \n = Homarus gammarus = \n \n Homarus gammarus is a species of lobster . \n It may grow to 60 cm . \n \n = = Description = = \n";

fn write(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn contents(path: &Path, options: &SourceOptions) -> Vec<Content> {
    let records = read_records(path, options).unwrap();
    records.into_iter().map(|record| record.content).collect()
}

fn batches(examples: &[Example], plan: &BatchPlan, epoch: u64) -> Vec<Batch> {
    let members = |indices: Vec<usize>| {
        let members: Vec<&Example> = indices.iter().map(|&i| &examples[i]).collect();
        collate(&members, PAD)
    };
    plan.epoch(epoch).into_iter().map(members).collect()
}

fn plan(examples: &[Example], size: usize, order: BatchOrder) -> BatchPlan {
    let lengths = examples.iter().map(Example::len).collect();
    BatchPlan::new(lengths, size, order, 7).unwrap()
}

#[test]
fn a_file_of_pairs_becomes_batches_that_learn_completions_and_eos_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        &folder,
        "train.jsonl",
        "{\"prompt\": \"ab\", \"completion\": \" c\"}\n\n{\"prompt\": \"d\", \"completion\": \"\"}\n",
    );
    let records = read_records(&path, &SourceOptions::default()).unwrap();
    let options = EncodingOptions::default();
    let (examples, _) = encode_records(&records, &Bytes, Some(EOS), &options).unwrap();
    let batch = &batches(&examples, &plan(&examples, 2, BatchOrder::FileOrder), 0)[0];

    let (eos, pad) = (i64::from(EOS), i64::from(PAD));
    assert_eq!((batch.batch, batch.seq), (2, 5));
    assert_eq!(
        batch.input_ids,
        [97, 98, 32, 99, eos, 100, eos, pad, pad, pad]
    );
    // Each label at its own position, one after that it is predicted at; the others have none.
    let targets = batch.targets.classes();
    let labels: Vec<(i64, i64)> = std::iter::zip(&targets.rows, &targets.classes)
        .map(|(&row, &token)| (row + 1, token))
        .collect();
    assert_eq!(labels, [(2, 32), (3, 99), (4, eos), (6, eos)]);
    assert_eq!((batch.tokens, batch.counted_tokens()), (7, 4));
    assert_eq!(batch.origins[1].line(), 3);
}

#[test]
fn the_same_pairs_are_read_from_json_lines_csv_and_tsv() {
    let folder = tempfile::tempdir().unwrap();
    let jsonl = "{\"q\": \"one, \\\"two\\\"\", \"a\": \" three\", \"id\": 1}\n";
    let csv = "id,q,a\r\n1,\"one, \"\"two\"\"\", three\r\n";
    let tsv = "a\tid\tq\n three\t1\tone, \"two\"\n";
    let options = SourceOptions {
        columns: Columns::prompt_completion("q", "a"),
        ..SourceOptions::default()
    };
    let expected = [Content::PromptCompletion {
        prompt: "one, \"two\"".into(),
        completion: " three".into(),
    }];
    for (name, text) in [("a.jsonl", jsonl), ("a.csv", csv), ("a.tsv", tsv)] {
        let path = write(&folder, name, text);
        assert_eq!(contents(&path, &options), expected, "{name}");
    }
}

#[test]
fn e2e_lines_are_recognised_and_grouped_by_meaning_representation() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "valid.txt", E2E);
    let records = read_records(&path, &SourceOptions::default()).unwrap();
    assert_eq!(records.len(), 4);

    let groups = group_references(&records).unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(
        groups[0].prompt,
        "name : Alimentum | area : city centre | family friendly : no ||"
    );
    assert_eq!(groups[0].references.len(), 3);
    assert!(groups[0].references[2].starts_with("In the city centre"));
    assert!(groups[0].references[2].ends_with("venue ."));
    assert_eq!(groups[1].origin.line(), 3);
}

#[test]
fn the_e2e_template_can_be_that_of_microsoft_lora() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "valid.txt", E2E);
    let options = SourceOptions {
        template: Some(PairTemplate::microsoft_lora()),
        ..SourceOptions::default()
    };
    let Content::PromptCompletion { prompt, completion } = &contents(&path, &options)[0] else {
        panic!("not a pair");
    };
    assert!(
        prompt.ends_with("family friendly : no<|endoftext|>"),
        "{prompt}"
    );
    assert!(completion.starts_with(" There is"), "{completion}");
}

#[test]
fn plain_text_is_packed_without_losing_a_token_but_the_remainder() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "wiki.txt", WIKI);
    for documents in [
        TextDocuments::Line,
        TextDocuments::Block,
        TextDocuments::File,
    ] {
        let options = SourceOptions {
            documents,
            ..SourceOptions::default()
        };
        let records = read_records(&path, &options).unwrap();
        let (examples, report) = concatenate_records(&records, &Bytes, Some(EOS), 16).unwrap();

        let mut stream: Vec<u32> = Vec::new();
        for record in &records {
            let Content::Text { text } = &record.content else {
                panic!("not a text");
            };
            stream.extend(text.bytes().map(u32::from));
            stream.push(EOS);
        }
        assert_eq!(report.tokens, stream.len());
        assert_eq!(report.documents, records.len());
        stream.truncate(stream.len() - report.tokens_dropped);
        let packed: Vec<u32> = examples.iter().flat_map(|e| e.tokens().to_vec()).collect();
        assert_eq!(packed, stream, "{documents:?}");
        assert!(examples.iter().all(|e| e.label_tokens() == 15));
    }
}

#[test]
fn the_first_malformed_line_is_named_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("a.jsonl", "{\"text\": \"a\"}\n\n{\"text\": 5}\n"),
        ("a.csv", "text\n\na\"b\n"),
        ("a.tsv", "text\n\na\tb\n"),
        ("a.txt", "a||b\n\nplain\n"),
    ] {
        let path = write(&folder, name, text);
        let error = read_records(&path, &SourceOptions::default()).unwrap_err();
        let TrainError::DataLine { line, .. } = error else {
            panic!("{name}: {error}");
        };
        assert_eq!(line, 3, "{name}");
    }
}

#[test]
fn a_line_without_end_is_refused_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "disk.img", vec![b'a'; MAX_LINE_BYTES + 10]);
    for format in ["jsonl", "csv", "tsv", "e2e", "text", "auto"] {
        let options = SourceOptions {
            format: format.parse().unwrap(),
            ..SourceOptions::default()
        };
        let error = read_records(&path, &options).unwrap_err();
        assert!(error.to_string().contains("16 MiB"), "{format}: {error}");
    }
}

#[test]
fn noise_is_an_error_or_records_but_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let alphabet = b"\"\",\t||\n\r{}[]:\\a \xEF\xBB\xBF\xC3\xA9\xFFtext";
    let mut random = Random::new(1);
    for _ in 0..500 {
        let mut noise = b"text,prompt\n".to_vec();
        noise.truncate(random.below(13));
        for _ in 0..random.below(97) {
            noise.push(*random.choose(alphabet));
        }
        let path = write(&folder, "noise.txt", &noise);
        for format in ["auto", "jsonl", "csv", "tsv", "e2e", "text"] {
            let options = SourceOptions {
                format: format.parse::<DataFormat>().unwrap(),
                ..SourceOptions::default()
            };
            if let Ok(records) = read_records(&path, &options) {
                assert!(!records.is_empty());
            }
        }
    }
}

#[test]
fn every_token_to_learn_is_learned_once_an_epoch_whatever_the_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, "valid.txt", E2E.repeat(10));
    let records = read_records(&path, &SourceOptions::default()).unwrap();
    let options = EncodingOptions {
        max_length: 120,
        ..EncodingOptions::default()
    };
    let (examples, report) = encode_records(&records, &Bytes, Some(EOS), &options).unwrap();
    assert!(report.examples_cut > 0, "{report}");

    let expected: usize = examples.iter().map(Example::label_tokens).sum();
    for order in [
        BatchOrder::FileOrder,
        BatchOrder::Shuffled,
        BatchOrder::GroupedByLength,
    ] {
        let batches = batches(&examples, &plan(&examples, 3, order), 1);
        let learned: usize = batches.iter().map(SampleBatch::counted_tokens).sum();
        assert_eq!(learned, expected, "{order:?}");
        let mut indices: Vec<usize> = batches.iter().flat_map(|b| b.indices.clone()).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..examples.len()).collect::<Vec<_>>());
    }
}

#[test]
fn a_resumed_run_finds_the_batches_of_its_epoch_again() {
    let records: Vec<Record> = (1..=40)
        .map(|line| {
            let origin = lora_train::data::Origin::new(Path::new("a.txt"), line);
            Record::text("x".repeat(line), origin)
        })
        .collect();
    let options = EncodingOptions::default();
    let (examples, _) = encode_records(&records, &Bytes, Some(EOS), &options).unwrap();
    let first = plan(&examples, 4, BatchOrder::GroupedByLength);
    let through: Vec<Vec<Batch>> = (0..4).map(|e| batches(&examples, &first, e)).collect();
    let resumed = plan(&examples, 4, BatchOrder::GroupedByLength);
    assert_eq!(batches(&examples, &resumed, 3), through[3]);
    assert_ne!(through[2], through[3]);
}
