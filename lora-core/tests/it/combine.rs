//! Combined adapters equal those of PEFT's `add_weighted_adapter`.

use lora_core::combine::{CombineOn, CombineOptions, MajoritySign, Mix, combine};
use lora_core::file::{StoredAdapter, StoredFactors, StoredTensor};
use lora_core::files::Overwrite;
use std::path::PathBuf;
use test_support::compare::assert_within;

fn stored(name: &str) -> StoredAdapter {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/combine");
    StoredAdapter::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// `scale · B A`, row-major.
fn update(factors: &StoredFactors) -> Vec<f64> {
    let ([d_out, d_in], rank) = (factors.shape(), factors.rank());
    let at = |row: usize, column: usize| -> f64 {
        let terms = (0..rank).map(|i| {
            f64::from(factors.b.values[row * rank + i])
                * f64::from(factors.a.values[i * d_in + column])
        });
        terms.sum::<f64>() * factors.scale
    };
    let indices = (0..d_out).flat_map(|row| (0..d_in).map(move |column| (row, column)));
    indices.map(|(row, column)| at(row, column)).collect()
}

/// Asserts equality within what PEFT loses, which sums and decomposes in f32.
#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], what: &str) {
    assert_within(found, expected, |_| 2e-5, what);
}

fn doubles(tensor: &StoredTensor) -> Vec<f64> {
    tensor.values.iter().map(|&value| value.into()).collect()
}

const ALL: [&str; 3] = ["first", "second", "third"];

fn check(case: &str, names: &[&str], weights: &[f64], on: CombineOn, mix: Mix) {
    let adapters: Vec<StoredAdapter> = names.iter().map(|name| stored(name)).collect();
    let weighted: Vec<(&StoredAdapter, f64)> =
        adapters.iter().zip(weights.iter().copied()).collect();
    let options = CombineOptions {
        on,
        mix,
        ..CombineOptions::default()
    };
    let combined = combine(&weighted, &options).unwrap();
    let peft = stored(case);
    let names: Vec<&String> = combined.adapter.modules.keys().collect();
    assert_eq!(names, peft.modules.keys().collect::<Vec<_>>(), "{case}");
    for (module, expected) in &peft.modules {
        let found = &combined.adapter.modules[module];
        let what = format!("{case}, {module}");
        assert_near(&update(found), &update(expected), &what);
        if on == CombineOn::Factors {
            assert_near(&doubles(&found.a), &doubles(&expected.a), &what);
            assert_near(&doubles(&found.b), &doubles(&expected.b), &what);
        }
    }
    // It is a file like any other.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("combined");
    combined.adapter.save(&path, Overwrite::Refuse).unwrap();
    let again = StoredAdapter::read(&path).unwrap();
    for (module, factors) in &combined.adapter.modules {
        let what = format!("{case}, {module} read again");
        assert_near(&update(&again.modules[module]), &update(factors), &what);
    }
}

#[test]
fn combinations_are_those_of_peft() {
    let both = &ALL[..2];
    let total = MajoritySign::Total;
    let on_update = |rank| CombineOn::Update { rank };
    let cat = CombineOn::Concatenation;
    check("cat", &ALL, &[0.7, -0.4, 1.5], cat, Mix::Linear);
    check("linear", both, &[0.7, 0.4], CombineOn::Factors, Mix::Linear);
    check(
        "linear_negative",
        both,
        &[0.7, -0.4],
        CombineOn::Factors,
        Mix::Linear,
    );
    let ties = |density, majority| Mix::Ties { density, majority };
    check(
        "ties",
        both,
        &[0.7, 0.9],
        CombineOn::Factors,
        ties(0.6, total),
    );
    let frequency = ties(0.8, MajoritySign::Frequency);
    check(
        "ties_frequency",
        both,
        &[0.7, 0.9],
        CombineOn::Factors,
        frequency,
    );
    let prune = Mix::MagnitudePrune { density: 0.5 };
    check(
        "magnitude_prune",
        both,
        &[0.7, 0.9],
        CombineOn::Factors,
        prune,
    );
    check("svd", &ALL, &[0.7, -0.4, 1.5], on_update(None), Mix::Linear);
    check(
        "svd_2",
        &ALL,
        &[0.7, -0.4, 1.5],
        on_update(Some(2)),
        Mix::Linear,
    );
    check(
        "ties_svd",
        &ALL,
        &[0.7, 0.9, 1.1],
        on_update(Some(2)),
        ties(0.6, total),
    );
    check(
        "magnitude_prune_svd",
        &ALL,
        &[0.7, 0.9, 1.1],
        on_update(None),
        prune,
    );
}

#[test]
fn what_a_rank_cannot_hold_is_told() {
    let (first, third) = (stored("first"), stored("third"));
    let lost = |rank| {
        let options = CombineOptions {
            on: CombineOn::Update { rank: Some(rank) },
            ..CombineOptions::default()
        };
        let combined = combine(&[(&first, 1.0), (&third, 1.0)], &options).unwrap();
        let expected = update(
            &combine(&[(&first, 1.0), (&third, 1.0)], &CombineOptions::default())
                .unwrap()
                .adapter
                .modules["q"],
        );
        let found = update(&combined.adapter.modules["q"]);
        let norm = |values: Vec<f64>| values.iter().map(|v| v * v).sum::<f64>().sqrt();
        let missing = norm(found.iter().zip(&expected).map(|(f, e)| f - e).collect());
        let share = missing / norm(expected);
        let told = combined.truncation["q"];
        assert!((share - told).abs() < 1e-5, "{share} {told}");
        told
    };
    assert!(lost(1) > lost(3) && lost(3) > 1e-4);
    assert!(lost(5) < 1e-6);
}

#[test]
fn dare_depends_on_its_seed() {
    let (first, second) = (stored("first"), stored("second"));
    let with = |seed| {
        let options = CombineOptions {
            on: CombineOn::Factors,
            mix: Mix::DareTies {
                density: 0.5,
                majority: MajoritySign::Total,
            },
            seed,
            ..CombineOptions::default()
        };
        combine(&[(&first, 0.5), (&second, 0.5)], &options)
            .unwrap()
            .adapter
            .modules
    };
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

#[test]
fn what_cannot_be_combined_is_refused_with_the_reason() {
    let (first, third) = (stored("first"), stored("third"));
    let refused = |adapters: &[(&StoredAdapter, f64)], options: &CombineOptions| {
        combine(adapters, options).unwrap_err().to_string()
    };
    let factors = CombineOptions {
        on: CombineOn::Factors,
        ..CombineOptions::default()
    };
    let error = refused(&[(&first, 1.0), (&third, 1.0)], &factors);
    assert!(error.contains("ranks 2 and 3"), "{error}");

    let standard = CombineOptions::default();
    let mut dora = first.clone();
    let q = dora.modules.get_mut("q").unwrap();
    q.magnitude = Some(StoredTensor::new([6], vec![1.0; 6]));
    assert!(refused(&[(&dora, 1.0)], &standard).contains("DoRA on `q`"));

    let mut other = first.clone();
    let q = other.modules.get_mut("q").unwrap();
    q.b = StoredTensor::new([3, 2], vec![1.0; 6]);
    assert!(refused(&[(&first, 1.0), (&other, 1.0)], &standard).contains("one base model"));

    let head = |value: f32| {
        let mut adapter = first.clone();
        let tensor = StoredTensor::new([1], vec![value]);
        adapter.saved.insert("classifier.bias".into(), tensor);
        adapter
    };
    let (mut one, mut two) = (head(1.0), head(2.0));
    for (adapter, labels) in [(&mut one, "a"), (&mut two, "b")] {
        let labels = ("config.json".to_string(), labels.as_bytes().to_vec());
        adapter.options.companions = vec![labels];
    }
    let adapters = [(&one, 1.0), (&two, 1.0)];
    assert!(refused(&adapters, &standard).contains("classifier.bias"));
    let from_second = CombineOptions {
        saved_from: Some(1),
        ..CombineOptions::default()
    };
    let combined = combine(&adapters, &from_second).unwrap().adapter;
    assert_eq!(combined.saved["classifier.bias"].values, [2.0]);
    // The labels of the head come with it: they were those of the first adapter.
    assert_eq!(combined.options.companions[0].1, b"b");
    let combined = combine(&[(&first, 1.0), (&two, 1.0)], &standard).unwrap();
    assert_eq!(combined.adapter.options.companions[0].1, b"b");

    assert!(refused(&[], &standard).contains("no adapter"));
    assert!(refused(&[(&first, f64::NAN)], &standard).contains("NaN"));
    let dense = CombineOptions {
        on: CombineOn::Factors,
        mix: Mix::Ties {
            density: 1.5,
            majority: MajoritySign::Total,
        },
        ..CombineOptions::default()
    };
    assert!(refused(&[(&first, 1.0)], &dense).contains("density 1.5"));
}
