//! Adapters and weights are compared exactly, through their factors.

use crate::common::{fail, lora, model, succeed, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn formats(name: &str) -> PathBuf {
    root().join("lora-models/tests/fixtures/formats").join(name)
}

fn combined(name: &str) -> PathBuf {
    root().join("lora-core/tests/fixtures/combine").join(name)
}

/// Runs `lora diff`, asserts its exit code, and returns the JSON.
fn diff(first: &Path, second: &Path, args: &[&str], code: i32) -> Value {
    let mut command = lora(["diff", "--json"]);
    let output = command.arg(first).arg(second).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["same"], json!(code == 0));
    report
}

#[test]
fn differences_are_those_of_pytorch_s_dense_updates() {
    let expected = root().join("lora-train/tests/fixtures/inspect/expected.json");
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    for pair in expected["differences"].as_array().unwrap() {
        let path = |key: &str| root().join(pair[key].as_str().unwrap());
        let report = diff(&path("first"), &path("second"), &[], 1);
        let modules = pair["modules"].as_object().unwrap();
        let found = report["modules"].as_array().unwrap();
        assert_eq!(found.len(), modules.len());
        for module in found {
            let expected = &modules[module["module"].as_str().unwrap()];
            for key in ["relative", "cosine", "subspace"] {
                let error = module[key].as_f64().unwrap() - expected[key].as_f64().unwrap();
                // Both in f64.
                assert!(error.abs() < 1e-12, "{key}: {module} is not {expected}");
            }
        }
    }
}

#[test]
fn an_adapter_is_the_same_as_itself_and_as_its_conversions() {
    let report = diff(&combined("first"), &combined("first"), &[], 0);
    assert_eq!(report["kind"], "adapters");
    assert_eq!(report["modules"][0]["relative"], 0.0);

    // From pickled loralib to PEFT and mlx-lm: not a bit of the factors is lost.
    let dir = tempfile::tempdir().unwrap();
    let (peft, mlx) = (dir.path().join("peft"), dir.path().join("mlx"));
    let merged = formats("merged.bin");
    let known = ["--alpha", "6", "--slices", "q,v"];
    succeed(
        lora(["convert"])
            .arg(&merged)
            .args(known)
            .arg("--output")
            .arg(&peft),
    );
    let report = diff(&merged, &peft, &known, 0);
    assert_eq!(report["modules"][0]["same"], true);
    let mut command = lora(["convert", "--to", "mlx"]);
    succeed(command.arg(&peft).arg("--output").arg(&mlx));
    let report = diff(&peft, &mlx, &[], 1);
    // The slices are noted in PEFT's file alone; what is computed is the same.
    assert_eq!(report["modules"][0]["same"], true);
    assert_eq!(report["config"][0]["field"], "metadata.lora_core.slices");
    fail(lora(["diff"]).args([&merged, &peft]), 2, &["alpha"]);
}

#[test]
fn an_adapter_for_llama_cpp_needs_its_base_and_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("gguf");
    let convert = |from: &Path, options: &[&str]| {
        let mut command = lora(["convert"]);
        command.arg(from).args(options).arg("--output").arg(&output);
        command
    };
    let model = root().join("lora-models/tests/fixtures/gpt2_tied");
    let model = ["--to", "gguf", "--model", model.to_str().unwrap()];
    let adapter = root().join("lora-train/tests/fixtures/train20/init");
    // It names no base that is here.
    let mut command = convert(&adapter, &["--to", "gguf"]);
    fail(&mut command, 1, &["tiny-gpt2-tied", "no such directory"]);
    let wrong = ["--model", "base"];
    fail(&mut convert(&adapter, &wrong), 2, &["`model`", "--to gguf"]);
    let printed = succeed(&mut convert(&adapter, &model));
    assert!(printed.contains("converted"), "{printed}");
    let bytes = std::fs::read(output.join("adapter.gguf")).unwrap();
    assert!(bytes.starts_with(b"GGUF\x03"));
    fail(&mut convert(&adapter, &model), 1, &["already exists"]);
    let gguf = output.join("adapter.gguf");
    let mut command = lora(["convert", "--from", "gguf"]);
    command
        .arg(&gguf)
        .arg("--output")
        .arg(dir.path().join("back"));
    fail(&mut command, 2, &["written only"]);
}

#[test]
fn what_one_of_them_has_alone_is_named() {
    let report = diff(&combined("first"), &combined("third"), &[], 1);
    assert_eq!(report["modules_only_in"], json!([["v"], []]));
    let text = text(
        &lora(["diff"])
            .args([combined("first"), combined("third")])
            .output()
            .unwrap(),
    );
    assert!(
        text.contains("v: adapted in") && text.contains("differ"),
        "{text}"
    );
}

#[test]
fn a_tolerance_takes_values_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let changed = dir.path().join("changed");
    std::fs::create_dir(&changed).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(combined("first").join(name), changed.join(name)).unwrap();
    }
    let path = changed.join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    let value = f32::from_le_bytes(bytes[last..].try_into().unwrap());
    bytes[last..].copy_from_slice(&(value * (1.0 + 1e-6)).to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let report = diff(&combined("first"), &changed, &[], 1);
    let relative = |report: &Value| -> Vec<f64> {
        let modules = report["modules"].as_array().unwrap().iter();
        modules.map(|m| m["relative"].as_f64().unwrap()).collect()
    };
    let different = relative(&report).into_iter().filter(|r| *r > 0.0);
    let different: Vec<f64> = different.collect();
    assert!(different.len() == 1 && different[0] < 1e-5, "{different:?}");
    diff(&combined("first"), &changed, &["--tolerance", "1e-5"], 0);
    // A configuration is not a value.
    let config = changed.join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("\"lora_dropout\": 0.0", "\"lora_dropout\": 0.5"),
    )
    .unwrap();
    let report = diff(&combined("first"), &changed, &["--tolerance", "1e-5"], 1);
    assert_eq!(report["config"][0]["field"], "dropout");
}

#[test]
fn weights_are_compared_by_name_shape_type_and_value() {
    let fixtures = root().join("lora-models/tests/fixtures");
    let report = diff(&model(), &fixtures.join("gpt2_tied_sharded"), &[], 0);
    assert_eq!(report["kind"], "weights");
    assert_eq!(report["tensors"].as_array().unwrap().len(), 28);
    let report = diff(&model(), &fixtures.join("gpt2_tied_f16"), &[], 1);
    let tensor = &report["tensors"][0];
    assert_eq!(tensor["dtypes"], json!(["F32", "F16"]));
    // Half precision keeps 11 bits.
    let relative = tensor["relative"].as_f64().unwrap();
    assert!(relative > 0.0 && relative < 1e-3, "{relative}");
    let report = diff(&model(), &fixtures.join("encoders/bert_seq"), &[], 1);
    assert_ne!(report["tensors_only_in"], json!([[], []]));
}

#[test]
fn trouble_has_its_own_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    fail(
        lora(["diff"]).arg(combined("first")).arg(model()),
        2,
        &["two of a kind"],
    );
    fail(lora(["diff"]).arg(model()).arg(&nowhere), 2, &["nowhere"]);
    fail(
        lora(["diff", "--tolerance=-1"]).args([model(), model()]),
        2,
        &["tolerance"],
    );
    fail(
        lora(["diff", "--alpha", "3"]).args([combined("first"), combined("third")]),
        2,
        &["alpha"],
    );
}
