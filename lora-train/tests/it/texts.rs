//! Scores of generated texts against the numbers of sacrebleu, NLTK, pycocoevalcap, `rouge_score`, the E2E challenge and `WikiSQL`, which
//! `fixtures/texts/generate.py` wrote.

use crate::common::{fail, fixtures, json_of, lora, succeed};
use lora_train::data::SqlTables;
use lora_train::metric::{
    Rouge, SqlScorer, corpus_bleu, corpus_cider, corpus_nist, corpus_rouge_l_coco, corpus_ter,
};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Both sides compute in double precision by the same formulas; they differ by the order of additions.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Case {
    name: String,
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    bleu_lower: Option<f64>,
    nist: Option<f64>,
    nltk_nist: Option<f64>,
    cider: Option<f64>,
    rouge_l_coco: Option<f64>,
    ter: ExpectedTer,
    rouge_1: f64,
    rouge_2: f64,
    rouge_l: f64,
}

#[derive(Deserialize)]
struct ExpectedTer {
    score: f64,
    edits: usize,
    reference_length: f64,
}

fn texts(name: &str) -> PathBuf {
    fixtures().join("texts").join(name)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn cases() -> Vec<Case> {
    read(&texts("scores.json"))
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn nist_equals_the_e2e_challenge_s_and_nltk_s() {
    let mut compared = [0, 0];
    for case in cases() {
        let found = corpus_nist(&case.hypotheses, &case.references).unwrap();
        for (count, expected) in compared.iter_mut().zip([case.nist, case.nltk_nist]) {
            if let Some(expected) = expected {
                assert_close(&case.name, found, expected);
                *count += usize::from(expected > 0.5);
            }
        }
    }
    assert!(compared.iter().all(|count| *count > 4), "{compared:?}");
}

#[test]
fn bleu_of_lower_case_equals_the_e2e_challenge_s() {
    let lower = |text: &String| text.to_lowercase();
    let mut compared = 0;
    for case in cases() {
        if let Some(expected) = case.bleu_lower {
            let hypotheses: Vec<_> = case.hypotheses.iter().map(lower).collect();
            let references = case.references.iter();
            let references: Vec<Vec<_>> = references
                .map(|list| list.iter().map(lower).collect())
                .collect();
            let found = corpus_bleu(&hypotheses, &references).unwrap().score;
            assert_close(&case.name, found, expected);
            compared += 1;
        }
    }
    assert!(compared > 3);
}

#[test]
fn cider_equals_pycocoevalcap_s_with_stanford_s_tokenizer() {
    let mut distinct = Vec::new();
    for case in cases() {
        if let Some(expected) = case.cider {
            let found = corpus_cider(&case.hypotheses, &case.references).unwrap();
            assert_close(&case.name, found, expected);
            distinct.push(expected.to_bits());
        }
    }
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > 8, "{distinct:?}");
}

#[test]
fn rouge_l_of_table_3_equals_pycocoevalcap_s_with_stanford_s_tokenizer() {
    let mut differ = 0;
    for case in cases() {
        if let Some(expected) = case.rouge_l_coco {
            let found = corpus_rouge_l_coco(&case.hypotheses, &case.references).unwrap();
            assert_close(&case.name, found, expected);
            let other = Rouge::l().corpus(&case.hypotheses, &case.references);
            differ += usize::from((other.unwrap().f1 - expected).abs() > 0.01);
        }
    }
    assert!(differ > 3, "{differ}");
}

/// Sums over hash maps gave other last digits in every run.
#[test]
fn scores_are_the_same_to_the_last_bit_each_time() {
    for case in cases() {
        let scores = || {
            let scores = [
                corpus_nist(&case.hypotheses, &case.references),
                corpus_cider(&case.hypotheses, &case.references),
            ];
            scores.map(|score| score.unwrap().to_bits())
        };
        let first = scores();
        for _ in 0..4 {
            assert_eq!(scores(), first, "{}", case.name);
        }
    }
}

#[test]
fn ter_equals_sacrebleu_s() {
    for case in cases() {
        let found = corpus_ter(&case.hypotheses, &case.references).unwrap();
        assert_eq!(found.edits, case.ter.edits, "{}", case.name);
        assert_close(
            &case.name,
            found.reference_length,
            case.ter.reference_length,
        );
        assert_close(&case.name, found.score, case.ter.score);
    }
}

#[test]
fn rouge_of_stems_equals_rouge_score_s() {
    for case in cases() {
        for (rouge, expected) in [
            (Rouge::n(1), case.rouge_1),
            (Rouge::n(2), case.rouge_2),
            (Rouge::l(), case.rouge_l),
        ] {
            let rouge = rouge.with_stemmer();
            let found = rouge.corpus(&case.hypotheses, &case.references).unwrap();
            assert_close(&case.name, found.f1, expected);
        }
    }
}

#[test]
fn queries_are_right_where_wikisql_s_evaluation_says_so() {
    #[derive(Deserialize)]
    struct Query {
        text: String,
        reference: String,
        logical_form: bool,
        execution: bool,
    }
    let tables = SqlTables::beside(&texts("data/wikisql.jsonl")).unwrap();
    let queries: Vec<Query> = read(&texts("wikisql.json"));
    for (at, query) in queries.iter().enumerate() {
        let id = if at < 6 { "1-100-1" } else { "2-200-2" };
        let mut scorer = SqlScorer::new(&tables).unwrap();
        scorer.add(id, &query.text, &query.reference).unwrap();
        let share = |right: bool| f64::from(u8::from(right));
        assert_eq!(
            scorer.logical_form().unwrap(),
            share(query.logical_form),
            "{}",
            query.text
        );
        assert_eq!(
            scorer.execution(),
            Some(share(query.execution)),
            "{}",
            query.text
        );
    }
}

fn scores(output: &str) -> BTreeMap<String, f64> {
    serde_json::from_value(json_of(output)["scores"].clone()).unwrap()
}

/// The predictions of a file are scored without a model, each by all references of its prompt.
#[test]
fn texts_of_a_file_are_scored() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let queries: Vec<Value> = read(&texts("wikisql.json"));
    let lines: Vec<&str> = queries
        .iter()
        .map(|q| q["text"].as_str().unwrap())
        .collect();
    let found = write("queries.txt", &(lines.join("\n") + "\n"));
    let run = |texts: &Path, data: &Path| {
        let mut command = lora(["score", "--json"]);
        command.arg(texts).arg("--data").arg(data);
        command
    };
    let data = texts("data/wikisql.jsonl");
    let right = |key: &str| {
        let right = queries.iter().filter(|query| query[key] == true).count();
        right as f64 / queries.len() as f64
    };
    let output = succeed(&mut run(&found, &data));
    let expected = [
        ("execution".to_string(), right("execution")),
        ("logical_form".to_string(), right("logical_form")),
    ];
    assert_eq!(scores(&output), BTreeMap::from(expected));

    // With prompts, in any order.
    let e2e = write("e2e.txt", "a : b||One .\na : b||Uno .\nc : d||Two .\n");
    let json = "{\"prompt\": \"c : d<|endoftext|>\", \"text\": \" Two .\\n\\n\"}\n{\"prompt\": \"a : b<|endoftext|>\", \"text\": \"Uno .\"}\n";
    let found = write("found.jsonl", json);
    let template = ["--template", "microsoft-lora"];
    let output = succeed(run(&found, &e2e).args(template));
    assert_eq!(
        (scores(&output)["ter"], scores(&output)["rouge_l"]),
        (0.0, 100.0)
    );
    fail(
        &mut run(&found, &e2e),
        1,
        &["found.jsonl, line 1", "template"],
    );
    let one = write("one.jsonl", json.lines().next().unwrap());
    fail(
        run(&one, &e2e).args(template),
        1,
        &["e2e.txt, line 1", "one.jsonl"],
    );
    let short = write("short.txt", "Two .\n");
    fail(&mut run(&short, &e2e), 1, &["1 texts for the 2 prompts"]);
}
