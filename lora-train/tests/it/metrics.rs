//! BLEU and ROUGE-L against the numbers of sacrebleu and `rouge_score`, which
//! `fixtures/generate.py` wrote to `fixtures/metrics.json`.

use std::path::Path;

use lora_train::metric::{corpus_bleu, corpus_rouge_l, rouge_l};
use serde::Deserialize;

/// Both sides compute in double precision by the same formulas; they differ in the last bits only,
/// by the order of additions and by the libraries' `exp` and `ln`. Scores go up to 100.
const TOLERANCE: f64 = 1e-10;

#[derive(Deserialize)]
struct Case {
    name: String,
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    bleu: ExpectedBleu,
    rouge_l: ExpectedRouge,
}

#[derive(Deserialize)]
struct ExpectedBleu {
    score: f64,
    precisions: [f64; 4],
    bp: f64,
    sys_len: usize,
    ref_len: usize,
}

#[derive(Deserialize)]
struct ExpectedRouge {
    f1: f64,
    each: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics.json");
    let text = std::fs::read_to_string(path).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    cases
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn bleu_equals_sacrebleu() {
    for case in cases() {
        let name = &case.name;
        let bleu = corpus_bleu(&case.hypotheses, &case.references).unwrap();
        assert_eq!(bleu.hypothesis_length, case.bleu.sys_len, "{name}");
        assert_eq!(bleu.reference_length, case.bleu.ref_len, "{name}");
        assert_close(name, bleu.brevity_penalty, case.bleu.bp);
        for (found, expected) in bleu.precisions.iter().zip(case.bleu.precisions) {
            assert_close(name, *found, expected);
        }
        assert_close(name, bleu.score, case.bleu.score);
    }
}

#[test]
fn rouge_l_equals_rouge_score() {
    for case in cases() {
        let name = &case.name;
        assert_eq!(case.rouge_l.each.len(), case.hypotheses.len(), "{name}");
        let items = case.hypotheses.iter().zip(&case.references);
        for ((hypothesis, references), expected) in items.zip(&case.rouge_l.each) {
            assert_close(name, rouge_l(hypothesis, references).f1, *expected);
        }
        let rouge = corpus_rouge_l(&case.hypotheses, &case.references).unwrap();
        assert_close(name, rouge.f1, case.rouge_l.f1);
    }
}

/// A fixture whose scores are all alike would let a metric pass that returns a constant.
#[test]
fn the_fixture_tells_scores_apart_and_has_several_references() {
    let cases = cases();
    let distinct = |value: fn(&Case) -> f64| {
        let mut bits: Vec<u64> = cases.iter().map(|case| value(case).to_bits()).collect();
        bits.sort_unstable();
        bits.dedup();
        bits.len()
    };
    assert!(distinct(|case| case.bleu.score) > 4);
    assert!(distinct(|case| case.rouge_l.f1) > 4);
    assert!(distinct(|case| case.bleu.bp) > 1);
    assert!(cases.iter().any(|case| {
        let counts: Vec<usize> = case.references.iter().map(Vec::len).collect();
        counts.iter().any(|count| *count != counts[0])
    }));
}
