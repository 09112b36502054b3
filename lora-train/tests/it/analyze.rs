//! The analysis of updates has the numbers of NumPy on dense matrices.

use crate::common::{fail, fixtures, json_of, lora, model, succeed};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn adapter(name: &str) -> PathBuf {
    root()
        .join("lora-models/tests/fixtures/adapters")
        .join(name)
}

fn analyze(model: &Path, adapter: &Path, args: &[&str]) -> Value {
    let mut command = lora(["analyze", "--json"]);
    command.arg("--model").arg(model);
    command.arg("--adapter").arg(adapter).args(args);
    json_of(&succeed(&mut command))
}

/// Asserts that all numbers of `expected` are in `found`.
fn same(expected: &Value, found: &Value, place: &str) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                same(value, &found[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            assert_eq!(expected.len(), found.len(), "{place}");
            for (index, pair) in expected.iter().zip(found).enumerate() {
                same(pair.0, pair.1, &format!("{place}[{index}]"));
            }
        }
        (Value::Number(expected), Value::Number(found)) => {
            let (expected, found) = (expected.as_f64().unwrap(), found.as_f64().unwrap());
            // Both in f64, and the file has twelve digits; singular directions of close values lose some.
            let error = (expected - found).abs() / expected.abs().max(1e-3);
            assert!(error < 1e-8, "{place}: {found} is not {expected}");
        }
        _ => assert_eq!(expected, found, "{place}"),
    }
}

#[test]
fn numbers_are_those_of_numpy() {
    let expected = std::fs::read(fixtures().join("analyze/expected.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
    for case in &expected {
        let path = |key: &str| Some(root().join(case[key].as_str()?));
        let against = path("against").map(|path| path.display().to_string());
        let args: Vec<&str> = against
            .iter()
            .flat_map(|path| ["--against", path])
            .collect();
        let report = analyze(&path("model").unwrap(), &path("adapter").unwrap(), &args);
        let matrices = report["matrices"].as_array().unwrap();
        let of_case = case["matrices"].as_object().unwrap();
        assert_eq!(matrices.len(), of_case.len());
        for matrix in matrices {
            let name = matrix["matrix"].as_str().unwrap();
            let mut expected = of_case[name].clone();
            let mut found = matrix.clone();
            for updates in [&mut expected, &mut found] {
                for update in updates["updates"].as_array_mut().unwrap() {
                    // The control beside it is random.
                    let grid = update["weight_similarity"].take();
                    update["weight_similarity"] = grid.get("update").cloned().unwrap_or(grid);
                }
            }
            same(&expected, &found, name);
        }
        let mut skipped: Vec<&str> = report["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let mut of_case: Vec<&str> = case["skipped"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        skipped.sort();
        of_case.sort();
        assert_eq!(skipped, of_case);
    }
}

#[test]
fn the_random_control_is_what_chance_gives() {
    let report = analyze(&model(), &adapter("all_linear"), &[]);
    let mut shares = Vec::new();
    for matrix in report["matrices"].as_array().unwrap() {
        let norm = matrix["weight_norm"].as_f64().unwrap();
        let shape = [0, 1].map(|i| matrix["shape"][i].as_f64().unwrap());
        for between in matrix["updates"][0]["between"].as_array().unwrap() {
            let n = between["directions"].as_f64().unwrap();
            let random = between["random"].as_f64().unwrap();
            // The mean of ‖UᵀWVᵀ‖² over random directions is n²/(d_out d_in) of ‖W‖².
            shares.push(random.powi(2) / (norm.powi(2) * n * n / shape[0] / shape[1]));
        }
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    // Some forty values with deviations of about one: the mean within three of its deviations.
    assert!(
        (mean - 1.0).abs() < 0.5,
        "{mean} of {} values",
        shares.len()
    );
    // The same seed gives the same numbers, and another others.
    let again = analyze(&model(), &adapter("all_linear"), &[]);
    assert_eq!(report, again);
    let other = analyze(&model(), &adapter("all_linear"), &["--seed", "7"]);
    let random =
        |report: &Value| report["matrices"][0]["updates"][0]["between"][0]["random"].clone();
    assert_ne!(random(&report), random(&other));
}

#[test]
fn figures_and_numbers_are_written_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (json, svg) = (dir.path().join("numbers.json"), dir.path().join("figures"));
    let command = || {
        let mut command = lora(["analyze", "--targets", "c_attn[q,v]", "--layers", "1"]);
        command.arg("--model").arg(model());
        command.arg("--adapter").arg(adapter("qv_slices"));
        command.arg("--against").arg(adapter("c_attn"));
        command.arg("--json").arg(&json).arg("--svg").arg(&svg);
        command
    };
    let table = succeed(&mut command());
    assert!(table.contains("transformer.h.1.attn.c_attn[v]"), "{table}");
    assert!(!table.contains("h.0.") && !table.contains("[k]"), "{table}");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["matrices"].as_array().unwrap().len(), 2);
    assert_eq!(report["matrices"][0]["layer"], 1);
    let mut names: Vec<String> = std::fs::read_dir(&svg)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 6, "{names:?}");
    assert_eq!(names[0], "adapters-transformer.h.1.attn.c_attn-q.svg");
    let figure = std::fs::read_to_string(svg.join(&names[0])).unwrap();
    assert!(
        figure.starts_with("<svg ") && figure.matches("<rect").count() > 64,
        "{figure}"
    );
    fail(&mut command(), 1, &["numbers.json"]);
    succeed(command().arg("--overwrite"));
    // A directory with files of somebody else is not replaced.
    for other in ["thesis.tex", "drawing.svg"] {
        std::fs::write(svg.join(other), "mine").unwrap();
        fail(command().arg("--overwrite"), 2, &["svg", other]);
        assert_eq!(std::fs::read(svg.join(other)).unwrap(), b"mine");
        std::fs::remove_file(svg.join(other)).unwrap();
    }
    succeed(command().arg("--overwrite"));
}

#[test]
fn what_does_not_fit_is_named() {
    let command = |name: &str| {
        let mut command = lora(["analyze"]);
        command.arg("--model").arg(model());
        command.arg("--adapter").arg(adapter(name));
        command
    };
    fail(
        command("c_attn").args(["--targets", "c_atn"]),
        2,
        &["c_atn", "c_attn[q]"],
    );
    fail(
        command("c_attn").args(["--layers", "5"]),
        2,
        &["layers", "0, 1"],
    );
    fail(
        command("c_attn").args(["--directions", "0"]),
        2,
        &["directions"],
    );
    // An adapter of a model with other widths.
    fail(&mut command("head_embed"), 2, &["matrix"]);
    fail(&mut command("nowhere"), 2, &["nowhere"]);
}
