//! Descriptions of files tell the contents, and what is unusual in them.

use crate::common::{fail, lora, model, succeed};
use lora_train::tools::{InspectOptions, inspect};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn options(path: impl AsRef<Path>) -> InspectOptions {
    InspectOptions {
        path: path.as_ref().into(),
        alpha: None,
        values: false,
        json: false,
    }
}

fn json_of(options: &InspectOptions) -> Value {
    serde_json::to_value(inspect(options).unwrap()).unwrap()
}

fn expected() -> Value {
    let path = root().join("lora-train/tests/fixtures/inspect/expected.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Both in f64, summed in another order.
fn close(found: &Value, expected: &Value, what: &str) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    let error = (found - expected).abs();
    assert!(
        error <= 1e-12 * (1.0 + expected.abs()),
        "{what}: {found} is not {expected}"
    );
}

/// The kinds of what is unusual, with the names that they are about.
fn unusual(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut all: Vec<(String, String)> = report["unusual"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| (text(&u["kind"]), text(&u["name"])))
        .collect();
    all.sort();
    all
}

#[test]
fn norms_are_those_of_pytorch() {
    let expected = expected();
    for (path, modules) in expected["norms"].as_object().unwrap() {
        let report = json_of(&options(root().join(path)));
        let found = report["modules"].as_array().unwrap();
        let modules = modules.as_object().unwrap();
        assert_eq!(found.len(), modules.len(), "{path}");
        for module in found {
            let name = module["module"].as_str().unwrap();
            let expected = &modules[name];
            for (key, of) in [
                ("scale", "scale"),
                ("norm_a", "a"),
                ("norm_b", "b"),
                ("norm_update", "update"),
            ] {
                close(&module[key], &expected[of], &format!("{path} {name} {key}"));
            }
        }
    }
}

#[test]
fn an_honest_adapter_is_described_and_nothing_is_unusual() {
    let adapters = root().join("lora-models/tests/fixtures/encoders/adapters");
    let report = json_of(&options(adapters.join("bert_ranks")));
    assert_eq!(report["kind"], "adapter");
    assert_eq!(report["format"], "peft");
    assert_eq!(report["peft_type"], "LORA");
    assert_eq!(report["unusual"], json!([]));
    let config: Value = serde_json::from_slice(
        &std::fs::read(adapters.join("bert_ranks/adapter_config.json")).unwrap(),
    )
    .unwrap();
    assert_eq!(report["config"], config);
    assert_eq!(report["settings"]["rank"], config["r"]);
    let ranks: Vec<&Value> = report["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| &module["rank"])
        .collect();
    assert!(ranks.iter().any(|rank| rank != &ranks[0]), "{ranks:?}");
    // Every adapter that PEFT wrote: nothing of it is unusual, but what is said to be.
    for entry in std::fs::read_dir(&adapters).unwrap() {
        let dir = entry.unwrap().path();
        if dir.is_dir() {
            let report = json_of(&options(&dir));
            assert_eq!(report["unusual"], json!([]), "{}", dir.display());
            assert!(report["parameters"].as_u64().unwrap() > 0);
        }
    }
}

/// A safetensors file of these tensors.
fn write_tensors(path: &Path, tensors: &[(&str, &[usize], Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        (
            *name,
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 37 + seed * 11) % 19) as f32 / 9.0 - 1.0)
        .collect()
}

const CONFIG: &str =
    r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q", "v"]}"#;

fn adapter(config: &str, tensors: &[(&str, &[usize], Vec<f32>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    write_tensors(&dir.path().join("adapter_model.safetensors"), tensors);
    dir
}

const QA: &str = "base_model.model.h.0.q.lora_A.weight";
const QB: &str = "base_model.model.h.0.q.lora_B.weight";
const VA: &str = "base_model.model.h.0.v.lora_A.weight";
const VB: &str = "base_model.model.h.0.v.lora_B.weight";

fn found(dir: &tempfile::TempDir) -> (Value, Vec<(String, String)>) {
    let report = json_of(&options(dir.path()));
    let unusual = unusual(&report);
    (report, unusual)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = expected.iter().map(|(k, n)| (k.to_string(), n.to_string()));
    owned.collect()
}

#[test]
fn zeros_and_what_is_no_number_are_named_with_counts() {
    let mut nan = values(8, 1);
    (nan[1], nan[4], nan[6]) = (f32::NAN, f32::INFINITY, f32::NAN);
    let dir = adapter(
        CONFIG,
        &[
            (QA, &[2, 4], nan),
            (QB, &[3, 2], values(6, 2)),
            (VA, &[2, 4], values(8, 3)),
            (VB, &[3, 2], vec![0.0; 6]),
        ],
    );
    let (report, unusual) = found(&dir);
    assert_eq!(unusual, pairs(&[("not_finite", QA), ("zero_b", "h.0.v")]));
    let message = report["unusual"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("2 values that are NaN and 1 that are infinite, of 8"),
        "{message}"
    );
    // What is not finite has no JSON number.
    assert_eq!(report["modules"][0]["norm_a"], Value::Null);
    assert_eq!(report["modules"][0]["norm_update"], Value::Null);
    assert_eq!(report["modules"][1]["norm_update"], 0.0);

    let dir = adapter(
        CONFIG,
        &[
            (QA, &[2, 4], vec![0.0; 8]),
            (QB, &[3, 2], values(6, 2)),
            (VA, &[2, 4], values(8, 3)),
            (VB, &[3, 2], values(6, 4)),
        ],
    );
    assert_eq!(found(&dir).1, pairs(&[("zero_a", "h.0.q")]));
}

#[test]
fn what_does_not_belong_together_is_named() {
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": ["q", "k"],
        "rank_pattern": {"o": 5}, "modules_to_save": ["score"], "use_dora": true}"#;
    let dir = adapter(
        config,
        &[
            (QA, &[3, 4], values(12, 1)),
            (QB, &[5, 3], values(15, 2)),
            (VA, &[2, 4], values(8, 3)),
            ("h.0.x.lora_A.weight", &[2, 4], values(8, 5)),
            ("base_model.model.h.0.lost", &[2], values(2, 6)),
        ],
    );
    assert_eq!(
        found(&dir).1,
        pairs(&[
            ("extra_tensor", "h.0.lost"),
            ("missing_tensor", "h.0.q"),
            ("missing_tensor", "h.0.v"),
            ("missing_tensor", "h.0.v"),
            ("missing_tensor", "h.0.x"),
            ("missing_tensor", "h.0.x"),
            ("no_prefix", "h.0.x.lora_A.weight"),
            ("not_a_target", "h.0.v"),
            ("not_a_target", "h.0.x"),
            ("rank", "h.0.q"),
            ("unmatched_entry", "k"),
            ("unmatched_entry", "o"),
            ("unmatched_entry", "score"),
        ])
    );
    // Factors that cannot be multiplied.
    let dir = adapter(
        CONFIG,
        &[(QA, &[2, 4], values(8, 1)), (QB, &[5, 3], values(15, 2))],
    );
    assert_eq!(
        found(&dir).1,
        pairs(&[("shape", "h.0.q"), ("unmatched_entry", "v")])
    );
}

#[test]
fn a_configuration_that_is_none_does_not_hide_the_tensors() {
    let tensors: [(&str, &[usize], Vec<f32>); 2] =
        [(QA, &[2, 4], values(8, 1)), (QB, &[3, 2], values(6, 2))];
    for config in ["{", "[]", "", &"[".repeat(100_000)] {
        let (report, unusual) = found(&adapter(config, &tensors));
        assert_eq!(unusual, pairs(&[("config", "")]));
        assert_eq!(report["modules"][0]["rank"], 2);
        // Nobody knows the scale: the norm is that of B A.
        assert_eq!(report["modules"][0]["scale"], Value::Null);
        assert!(report["modules"][0]["norm_update"].as_f64().unwrap() > 0.0);
    }
    // What is understood of a strange one is taken.
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q"],
        "layer_replication": [[0, 4]], "lora_dropout": "much"}"#;
    let (report, unusual) = found(&adapter(config, &tensors));
    assert_eq!(unusual, pairs(&[("config", "")]));
    assert_eq!(report["modules"][0]["scale"], 3.0);
    assert_eq!(report["settings"]["alpha"], 6.0);
}

#[test]
fn an_update_far_larger_than_the_others_stands_out() {
    let names: Vec<[String; 2]> = (0..5)
        .map(|i| ["A", "B"].map(|f| format!("base_model.model.h.{i}.q.lora_{f}.weight")))
        .collect();
    let tensors: Vec<(&str, &[usize], Vec<f32>)> = names
        .iter()
        .enumerate()
        .flat_map(|(i, [a, b])| {
            let times = if i == 3 { 100.0 } else { 1.0 };
            let large = values(6, 2).iter().map(|v| v * times).collect();
            let both: [(&str, &[usize], Vec<f32>); 2] =
                [(a, &[2, 4], values(8, 1)), (b, &[3, 2], large)];
            both
        })
        .collect();
    let config = CONFIG.replace(r#", "v""#, "");
    assert_eq!(
        found(&adapter(&config, &tensors)).1,
        pairs(&[("outlier", "h.3.q")])
    );
}

#[test]
fn files_that_cannot_be_parsed_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("adapter_config.json"), CONFIG).unwrap();
    // Without tensors it is still an adapter's configuration.
    let report = json_of(&options(dir.path()));
    assert_eq!(unusual(&report), pairs(&[("missing_tensor", "")]));
    assert_eq!(report["settings"]["targets"], json!(["q", "v"]));
    let weights = dir.path().join("adapter_model.safetensors");
    for bytes in [
        b"".as_slice(),
        b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
        b"\x02\0\0\0\0\0\0\0[]",
    ] {
        std::fs::write(&weights, bytes).unwrap();
        fail(
            lora(["inspect"]).arg(dir.path()),
            1,
            &["adapter_model.safetensors"],
        );
    }
}

#[test]
fn loralib_files_say_no_alpha() {
    let formats = root().join("lora-models/tests/fixtures/formats");
    let expected = expected();
    for (file, shape, parts) in [
        ("linear.bin", json!([7, 5]), Value::Null),
        ("merged.bin", json!([8, 5]), json!(2)),
    ] {
        let mut options = options(formats.join(file));
        let report = json_of(&options);
        assert_eq!(report["format"], "loralib");
        assert_eq!(unusual(&report), pairs(&[("no_alpha", "")]));
        let bare = report["modules"][0]["norm_update"].as_f64().unwrap();
        options.alpha = Some(6.0);
        let report = json_of(&options);
        assert_eq!(unusual(&report), []);
        let module = &report["modules"][0];
        assert_eq!(module["shape"], shape);
        assert_eq!(module.get("parts").cloned().unwrap_or_default(), parts);
        let name = module["module"].as_str().unwrap();
        close(
            &module["norm_update"],
            &expected["loralib"][file][name],
            file,
        );
        let scale = module["scale"].as_f64().unwrap();
        close(&module["norm_update"], &json!(bare * scale), file);
    }
}

#[test]
fn an_mlx_directory_has_its_scale() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.1}}"#;
    std::fs::write(dir.path().join("adapter_config.json"), config).unwrap();
    let tensors: [(&str, &[usize], Vec<f32>); 3] = [
        ("layers.0.q.lora_a", &[4, 2], values(8, 1)),
        ("layers.0.q.lora_b", &[2, 3], values(6, 2)),
        ("layers.0.norm", &[3], values(3, 3)),
    ];
    write_tensors(&dir.path().join("adapters.safetensors"), &tensors);
    let (report, unusual) = found(&dir);
    assert_eq!(report["format"], "mlx");
    assert_eq!(unusual, pairs(&[("extra_tensor", "layers.0.norm")]));
    let module = &report["modules"][0];
    assert_eq!(
        (&module["rank"], &module["scale"]),
        (&json!(2), &json!(20.0))
    );
    assert_eq!(module["shape"], json!([3, 4]));
    // 20 · ‖A B‖, summed up by hand.
    let (a, b) = (values(8, 1), values(6, 2));
    let mut squares = 0.0;
    for i in 0..4 {
        for j in 0..3 {
            let sum: f64 = (0..2)
                .map(|k| f64::from(a[2 * i + k]) * f64::from(b[3 * k + j]))
                .sum();
            squares += sum * sum;
        }
    }
    close(&module["norm_update"], &json!(20.0 * squares.sqrt()), "mlx");
}

#[test]
fn a_prefix_is_described_by_its_configuration() {
    let config = r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "num_layers": 2, "token_dim": 4}"#;
    for (rows, kinds) in [(3, vec![]), (2, vec![("shape", "prompt_embeddings")])] {
        let shape = [rows, 16];
        let tensors: [(&str, &[usize], Vec<f32>); 1] =
            [("prompt_embeddings", &shape, values(rows * 16, 1))];
        let (report, unusual) = found(&adapter(config, &tensors));
        assert_eq!(report["peft_type"], "PREFIX_TUNING");
        assert_eq!(unusual, pairs(&kinds));
        assert_eq!(report["saved"][0]["name"], "prompt_embeddings");
    }
}

#[test]
fn a_tree_lists_its_adapters() {
    let combine = root().join("lora-core/tests/fixtures/combine");
    let report = json_of(&options(&combine));
    assert_eq!(report["kind"], "adapters");
    let names = report["adapters"].as_array().unwrap();
    assert!(names.contains(&json!("first")) && names.contains(&json!("ties_svd")));
    // Below another adapter.
    let dir = adapter(
        CONFIG,
        &[(QA, &[2, 4], values(8, 1)), (QB, &[3, 2], values(6, 2))],
    );
    let below = dir.path().join("other");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("adapter_config.json"), CONFIG).unwrap();
    assert_eq!(found(&dir).0["adapters"], json!(["other"]));
}

#[test]
fn models_and_files_of_weights_are_described_with_their_values_if_asked() {
    let fixtures = root().join("lora-models/tests/fixtures");
    let report = json_of(&options(model()));
    assert_eq!(
        (&report["kind"], &report["model_type"]),
        (&json!("model"), &json!("gpt2"))
    );
    assert_eq!(report["parameters"], 23232);
    assert_eq!(report["dtypes"]["F32"]["tensors"], 28);
    assert_eq!(report["values_read"], false);
    assert_eq!(report["tensors"].as_array().unwrap().len(), 28);
    // Shards and pickles are the same model.
    for other in ["gpt2_tied_sharded", "gpt2_tied_bin"] {
        let mut options = options(fixtures.join(other));
        options.values = true;
        let other = json_of(&options);
        assert_eq!(other["unusual"], json!([]));
        assert!(other["tensors"][0]["norm"].as_f64().unwrap() > 0.0);
    }
    let report = json_of(&options(fixtures.join("encoders/bert_seq")));
    assert!(report["labels"].as_array().unwrap().len() > 1);

    // A file alone: of weights, and with values that are none.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.safetensors");
    let tensors: [(&str, &[usize], Vec<f32>); 3] = [
        ("a", &[2], vec![f32::NAN, 1.0]),
        ("b.bias", &[1], vec![0.0]),
        ("c", &[1], vec![0.0]),
    ];
    write_tensors(&path, &tensors);
    assert_eq!(unusual(&json_of(&options(&path))), []);
    let mut options = options(&path);
    options.values = true;
    let report = json_of(&options);
    assert_eq!(report["kind"], "weights");
    assert_eq!(
        unusual(&report),
        pairs(&[("not_finite", "a"), ("zero", "c")])
    );
}

#[test]
fn a_model_with_a_configuration_that_is_not_supported_is_still_described() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        model().join("model.safetensors"),
        dir.path().join("model.safetensors"),
    )
    .unwrap();
    std::fs::write(
        dir.path().join("config.json"),
        r#"{"model_type": "falcon"}"#,
    )
    .unwrap();
    let report = json_of(&options(dir.path()));
    assert_eq!(report["model_type"], "falcon");
    assert_eq!(report["parameters"], 23232);
    assert_eq!(unusual(&report), pairs(&[("config", "")]));
}

#[test]
fn the_program_prints_text_or_json() {
    let dir = root().join("lora-core/tests/fixtures/combine/first");
    let text = succeed(lora(["inspect"]).arg(&dir));
    for words in ["PEFT LoRA adapter", "rank ", "  q:", "norms of A "] {
        assert!(text.contains(words), "{text}");
    }
    assert!(!text.contains("unusual"), "{text}");
    let json = succeed(lora(["inspect", "--json"]).arg(&dir));
    let report = serde_json::to_string(&inspect(&options(&dir)).unwrap()).unwrap();
    assert_eq!(json.trim_end(), report);
    fail(lora(["inspect", "--alpha", "inf"]).arg(&dir), 2, &["alpha"]);
}
