//! Files that are not as they should be, in the commands: read, or refused by an error that names the file and the way out.

use crate::common::{eval_texts, lora, model, succeed, text, texts, train};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command that must fail, and returns what it printed.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?}\n{}", text(&output));
    text(&output)
}

/// An adapter directory with a pickle of the fixtures in the place of its tensors.
fn pickled(form: &str) -> TempDir {
    let fixtures = root().join("lora-core/tests/fixtures");
    let dir = tempfile::tempdir().unwrap();
    for (from, to) in [
        (
            "peft_linear/adapter_config.json".into(),
            "adapter_config.json",
        ),
        (format!("spellings/{form}.bin"), "adapter_model.bin"),
    ] {
        std::fs::copy(fixtures.join(from), dir.path().join(to)).unwrap();
    }
    dir
}

#[test]
fn a_pickled_adapter_is_converted_compared_combined_and_described() {
    let safe = root().join("lora-core/tests/fixtures/peft_linear");
    for form in ["saved", "state_dict", "compiled", "nested"] {
        let dir = pickled(form);
        let out = dir.path().join("out");
        let converted = succeed(lora(["convert"]).arg(dir.path()).arg("--output").arg(&out));
        assert!(converted.contains("converted 2 modules"), "{converted}");
        // Not a bit of the factors is lost.
        succeed(lora(["diff"]).arg(&safe).arg(&out));
        succeed(lora(["diff"]).arg(&safe).arg(dir.path()));
        let inspected = lora(["inspect", "--json"])
            .arg(dir.path())
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&inspected.stdout).unwrap();
        assert_eq!(
            report["modules"].as_array().unwrap().len(),
            2,
            "{form}: {report}"
        );
        let kinds = report["unusual"].as_array().unwrap().iter();
        let kinds: Vec<&str> = kinds
            .map(|unusual| unusual["kind"].as_str().unwrap())
            .collect();
        assert!(kinds.contains(&"pickled"), "{form}: {kinds:?}");
        assert_eq!(
            kinds.contains(&"spelling"),
            form != "saved",
            "{form}: {kinds:?}"
        );
    }
    let (dir, out) = (pickled("state_dict"), tempfile::tempdir().unwrap());
    let out = out.path().join("sum");
    succeed(
        lora(["combine"])
            .arg(dir.path())
            .arg(&safe)
            .arg("--output")
            .arg(&out),
    );
}

#[test]
fn nothing_is_converted_to_nothing() {
    let dir = pickled("empty");
    let out = dir.path().join("out");
    let message = refused(lora(["convert"]).arg(dir.path()).arg("--output").arg(&out));
    assert!(message.contains("holds no tensors"), "{message}");
    assert!(!out.exists());
}

/// A copy of the model with a value that is no number.
fn not_a_number(dir: &Path) {
    for entry in std::fs::read_dir(model()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_weight_that_is_no_number_ends_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad");
    std::fs::create_dir(&bad).unwrap();
    not_a_number(&bad);
    let out = dir.path().join("out");
    let with = |name: &str| {
        let mut command = lora([name]);
        command.arg("--model").arg(&bad).args(["--device", "flex"]);
        command
    };
    let mut commands = [
        with("eval"),
        with("generate"),
        with("train"),
        with("bench"),
        lora(["diff"]),
    ];
    commands[0].arg("--data").arg(texts());
    commands[1].args(["--prompt", "x", "--max-new-tokens", "4"]);
    commands[2]
        .arg("--data")
        .arg(texts())
        .arg("--output")
        .arg(&out);
    commands[3] = lora(["bench", "load", "--device", "flex", "--model"]);
    commands[3].arg(&bad);
    commands[4].arg(&bad).arg(&bad);
    for command in &mut commands {
        let message = refused(command);
        assert!(message.contains("model.safetensors: tensor `"), "{message}");
        assert!(message.contains("not finite, such as NaN"), "{message}");
    }
}

#[test]
fn a_directory_in_the_place_of_another_is_told_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    succeed(train(&texts(), &run).args(["--max-steps", "1"]));
    let eval = |model: &Path, adapter: Option<&Path>| {
        let mut command = eval_texts(model, &dir.path().join("predictions"));
        if let Some(adapter) = adapter {
            command.arg("--adapter").arg(adapter);
        }
        refused(&mut command)
    };
    let adapter = run.join("adapter");
    let message = eval(&model(), Some(&run));
    assert!(
        message.contains(&adapter.display().to_string()),
        "{message}"
    );
    let message = eval(&model(), Some(&run.join("checkpoints/step-00000001")));
    assert!(message.contains("step-00000001/adapter"), "{message}");
    let message = eval(&model(), Some(&model()));
    assert!(
        message.contains("give it as the model (`--model`)"),
        "{message}"
    );
    let message = eval(&model(), Some(&dir.path().join("none")));
    assert!(message.contains("there is no such directory"), "{message}");
    let message = eval(&adapter, None);
    assert!(
        message.contains("this is an adapter; give its base"),
        "{message}"
    );
    let message = eval(&run, None);
    assert!(message.contains("it holds adapters"), "{message}");
    let message = eval(model().parent().unwrap(), None);
    let encoder = "it has no config.json itself; give ";
    assert!(
        message.contains(encoder) && message.contains("or one of"),
        "{message}"
    );
}

#[test]
fn a_model_type_that_is_not_supported_lists_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "t5"}"#).unwrap();
    for command in ["plan", "eval"] {
        let mut command = lora([command]);
        command.arg("--model").arg(dir.path());
        if command.get_args().next().is_some_and(|name| name == "eval") {
            command.arg("--data").arg(texts());
        }
        let message = refused(&mut command);
        for name in [
            "gpt2",
            "bert",
            "roberta",
            "xlm-roberta",
            "deberta",
            "deberta-v2",
        ] {
            assert!(message.contains(name), "{name}: {message}");
        }
    }
}
