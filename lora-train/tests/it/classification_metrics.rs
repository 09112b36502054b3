//! Classification, correlation and token classification against the numbers of scikit-learn, SciPy and seqeval, which
//! `fixtures/generate_classification_metrics.py` wrote to `fixtures/classification_metrics.json`.

use std::collections::BTreeMap;
use std::path::Path;

use lora_train::metric::{
    Average, ConfusionMatrix, TaskMetric, accuracy, class_scores, entities, f1, matthews,
    mean_absolute_error, mean_squared_error, multi_label, pearson, spearman, token_classification,
};
use serde::Deserialize;

/// Relative. Both sides compute in double precision by the same formulas; they differ by the order of at most 800
/// additions, each good to 1.1e-16. What is 0 there must be 0 here.
const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Fixture {
    classes: Vec<ClassCase>,
    values: Vec<ValueCase>,
    tokens: Vec<TokenCase>,
    sets: Vec<SetCase>,
}

/// Any number of classes for each example.
#[derive(Deserialize)]
struct SetCase {
    name: String,
    classes: usize,
    predictions: Vec<Vec<usize>>,
    labels: Vec<Vec<usize>>,
    #[serde(flatten)]
    metrics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct ClassCase {
    name: String,
    classes: usize,
    predictions: Vec<usize>,
    labels: Vec<usize>,
    accuracy: f64,
    f1_binary: Option<f64>,
    f1_macro: f64,
    f1_micro: f64,
    f1_weighted: f64,
    matthews: f64,
    class: Vec<usize>,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    support: Vec<usize>,
    confusion: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct ValueCase {
    name: String,
    /// In 1024ths, so that they are exact.
    predictions: Vec<i64>,
    labels: Vec<i64>,
    pearson: Option<f64>,
    spearman: Option<f64>,
    mse: f64,
    mae: f64,
}

impl ValueCase {
    fn values(&self) -> (Vec<f64>, Vec<f64>) {
        let exact = |values: &[i64]| values.iter().map(|&value| value as f64 / 1024.0).collect();
        (exact(&self.predictions), exact(&self.labels))
    }
}

#[derive(Deserialize)]
struct TokenCase {
    name: String,
    names: Vec<String>,
    predictions: Vec<Vec<usize>>,
    labels: Vec<Vec<usize>>,
    accuracy: f64,
    micro_f1: f64,
    macro_f1: f64,
    precision: f64,
    recall: f64,
    f1: f64,
    entities: Vec<Vec<[usize; 2]>>,
}

fn fixture() -> Fixture {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/classification_metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= TOLERANCE * expected.abs(),
        "{what}: {found:?}, expected {expected:?}"
    );
}

#[track_caller]
fn assert_close_or_undefined(what: &str, found: Option<f64>, expected: Option<f64>) {
    match (found, expected) {
        (Some(found), Some(expected)) => assert_close(what, found, expected),
        (found, expected) => assert_eq!(found, expected, "{what}"),
    }
}

#[test]
fn accuracy_f1_and_matthews_equal_scikit_learn() {
    for case in fixture().classes {
        let (name, p, l) = (&case.name, &case.predictions, &case.labels);
        assert_close(name, accuracy(p, l).unwrap(), case.accuracy);
        assert_close(name, f1(p, l, Average::Macro).unwrap(), case.f1_macro);
        assert_close(name, f1(p, l, Average::Micro).unwrap(), case.f1_micro);
        assert_close(name, f1(p, l, Average::Weighted).unwrap(), case.f1_weighted);
        assert_close_or_undefined(name, f1(p, l, Average::Binary).ok(), case.f1_binary);
        assert_close(name, matthews(p, l).unwrap(), case.matthews);
    }
}

#[test]
fn precision_recall_and_f1_of_each_class_equal_scikit_learn() {
    for case in fixture().classes {
        let name = &case.name;
        let scores = class_scores(&case.predictions, &case.labels).unwrap();
        let present: Vec<usize> = scores.iter().map(|score| score.class).collect();
        assert_eq!(present, case.class, "{name}");
        for (at, score) in scores.iter().enumerate() {
            assert_close(name, score.precision, case.precision[at]);
            assert_close(name, score.recall, case.recall[at]);
            assert_close(name, score.f1, case.f1[at]);
            assert_eq!(score.support, case.support[at], "{name}");
        }
    }
}

#[test]
fn the_confusion_matrix_equals_scikit_learn() {
    for case in fixture().classes {
        let matrix = ConfusionMatrix::new(&case.predictions, &case.labels, case.classes).unwrap();
        assert_eq!(matrix.classes(), case.confusion.len());
        for (label, row) in case.confusion.iter().enumerate() {
            assert_eq!(matrix.row(label), Some(&row[..]), "{}", case.name);
        }
    }
}

#[test]
fn correlations_and_errors_equal_scipy_and_scikit_learn() {
    for case in fixture().values {
        let (name, (p, l)) = (&case.name, &case.values());
        assert_close_or_undefined(name, pearson(p, l).unwrap(), case.pearson);
        assert_close_or_undefined(name, spearman(p, l).unwrap(), case.spearman);
        assert_close(name, mean_squared_error(p, l).unwrap(), case.mse);
        assert_close(name, mean_absolute_error(p, l).unwrap(), case.mae);
    }
}

#[test]
fn token_and_entity_scores_equal_scikit_learn_and_seqeval() {
    for case in fixture().tokens {
        let name = &case.name;
        let metrics = token_classification(&case.predictions, &case.labels, &case.names).unwrap();
        assert_close(name, metrics["accuracy"], case.accuracy);
        assert_close(name, metrics["micro_f1"], case.micro_f1);
        assert_close(name, metrics["macro_f1"], case.macro_f1);
        assert_close(name, metrics["precision"], case.precision);
        assert_close(name, metrics["recall"], case.recall);
        assert_close(name, metrics["f1"], case.f1);
        for (sequence, expected) in case.labels.iter().zip(&case.entities) {
            let tags: Vec<&str> = sequence.iter().map(|&tag| &*case.names[tag]).collect();
            let found: Vec<[usize; 2]> = entities(&tags).iter().map(|e| [e.start, e.end]).collect();
            assert_eq!(&found, expected, "{name}: {tags:?}");
        }
    }
}

#[test]
fn a_tasks_scores_are_those_of_its_metrics() {
    let fixture = fixture();
    for case in fixture.classes {
        let (name, p, l) = (&case.name, &case.predictions, &case.labels);
        let score = |metric: TaskMetric| {
            let metrics = metric.class_metrics(p, l, case.classes).unwrap();
            metric.score(&metrics).unwrap()
        };
        assert_close(name, score(TaskMetric::Accuracy), case.accuracy);
        assert_close(name, score(TaskMetric::Matthews), case.matthews);
        let f1 = case
            .f1_binary
            .filter(|_| case.classes == 2)
            .unwrap_or(case.f1_macro);
        let combined = (case.accuracy + f1) / 2.0;
        assert_close(name, score(TaskMetric::AccuracyAndF1), combined);
    }
    for case in fixture.values {
        let (name, (p, l)) = (&case.name, &case.values());
        let metric = TaskMetric::PearsonAndSpearman;
        let combined = case.pearson.zip(case.spearman).map(|(p, s)| (p + s) / 2.0);
        assert_close_or_undefined(
            name,
            metric.score(&metric.value_metrics(p, l).unwrap()),
            combined,
        );
        let metrics = TaskMetric::Regression.value_metrics(p, l).unwrap();
        assert_close(name, metrics["mae"], case.mae);
        assert_close_or_undefined(name, metrics.get("spearmanr").copied(), case.spearman);
    }
}

/// A fixture whose numbers are all alike, or that lacks the hard cases, would prove little.
#[test]
fn the_fixture_has_ties_undefined_correlations_and_distinct_scores() {
    let fixture = fixture();
    let distinct = |values: Vec<f64>| {
        let mut bits: Vec<u64> = values.into_iter().map(f64::to_bits).collect();
        bits.sort_unstable();
        bits.dedup();
        bits.len()
    };
    assert!(distinct(fixture.classes.iter().map(|case| case.f1_macro).collect()) > 10);
    assert!(distinct(fixture.classes.iter().map(|case| case.matthews).collect()) > 10);
    assert!(
        distinct(
            fixture
                .values
                .iter()
                .filter_map(|case| case.spearman)
                .collect()
        ) > 5
    );
    assert!(distinct(fixture.tokens.iter().map(|case| case.f1).collect()) > 5);
    assert!(fixture.values.iter().any(|case| case.pearson.is_none()));
    assert!(fixture.classes.iter().any(|case| case.f1_binary.is_none()));
    assert!(fixture.classes.iter().any(|case| case.matthews < -0.1));
}

#[test]
fn sets_of_classes_are_judged_as_in_scikit_learn() {
    for case in fixture().sets {
        let found = multi_label(&case.predictions, &case.labels, case.classes).unwrap();
        assert!(found.keys().eq(case.metrics.keys()), "{}", case.name);
        for (name, expected) in &case.metrics {
            assert_close(&format!("{}, {name}", case.name), found[name], *expected);
        }
    }
}
