//! Every example runs, and does what it says.

use burn::tensor::Device;
use lora_examples::application::Writer;
use lora_examples::{classify, fine_tune, foreign_module, merge_and_export, multi_adapter};
use lora_train::jobs::Predicted;
use lora_train::progress::Screen;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn a_foreign_module_learns_a_new_task_by_its_adapters() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = foreign_module::run(&dir.path().join("adapter")).unwrap();
    assert!(outcome.after < 0.1 * outcome.before, "{outcome:?}");
    assert!((outcome.merged - outcome.after).abs() < 1e-4, "{outcome:?}");
    assert!(
        (outcome.reloaded - outcome.after).abs() < 1e-5,
        "{outcome:?}"
    );
    assert!(outcome.percent < 15.0, "{outcome:?}");
}

#[test]
fn the_shipped_model_is_fine_tuned_from_a_program_and_used_in_an_application() {
    let dir = tempfile::tempdir().unwrap();
    let summary = fine_tune::run(dir.path(), 3, &mut Screen::quiet()).unwrap();
    assert_eq!(summary.steps, 3);
    let model = fine_tune::folder().join("models/wiki-gpt2");
    let prompt = "name[Aromi], eatType[coffee shop] ||";
    let write = |adapter: Option<&PathBuf>| {
        let adapter = adapter.map(PathBuf::as_path);
        Writer::open(&model, adapter, Device::flex())
            .unwrap()
            .write(prompt, 8)
            .unwrap()
    };
    assert!(!write(None).is_empty());
    assert!(!write(Some(&summary.weights)).is_empty());
}

#[test]
fn several_adapters_share_a_base_and_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = multi_adapter::run(dir.path(), 15).unwrap();
    assert_eq!(outcome.names, ["restaurant", "review"]);
    assert_eq!(outcome.mixed, outcome.one_by_one, "{outcome:?}");
    assert_eq!(outcome.merged, outcome.one_by_one[1..], "{outcome:?}");
    assert_eq!(outcome.base_again, outcome.one_by_one[0], "{outcome:?}");
    for (at, text) in outcome.one_by_one.iter().enumerate() {
        assert!(!outcome.one_by_one[..at].contains(text), "{outcome:?}");
    }
    for name in &outcome.names {
        assert!(
            outcome
                .tree
                .join(name)
                .join("adapter_model.safetensors")
                .is_file()
        );
    }
}

#[test]
fn an_encoder_learns_to_classify_sentences_and_says_what_new_ones_are() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = classify::run(None, dir.path(), &mut Screen::quiet()).unwrap();

    let held_out = fine_tune::folder().join("data/family/eval.jsonl");
    let text = std::fs::read_to_string(held_out).unwrap();
    let mut counts = BTreeMap::<String, usize>::new();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let label = record["label"].as_str().unwrap();
        *counts.entry(label.into()).or_default() += 1;
    }
    let most = *counts.values().max().unwrap() as f64;
    let majority = most / text.lines().count() as f64;
    // Seeds were seen to reach 83 to 90 %, and half is chance: other rounding is like another seed.
    assert!(majority <= 0.5, "{counts:?}");
    assert!(outcome.before < 0.7, "{outcome:?}");
    assert!(outcome.after > 0.75, "{outcome:?}");

    let classes = outcome.predicted.iter().map(|predicted| match predicted {
        Predicted::Class { prediction, .. } => prediction.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(classes.collect::<Vec<_>>(), ["yes", "no"]);
    assert!(outcome.adapter.join("adapter_model.safetensors").is_file());
}

#[test]
fn an_adapter_is_merged_checked_exported_and_taken_off_again() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = merge_and_export::run(dir.path(), 8, &mut Screen::quiet()).unwrap();
    assert!(outcome.adapted != outcome.base, "{outcome:?}");
    assert_eq!(outcome.full.texts, outcome.adapted);
    // Logits of some ten: sums in another order in f32, weights with eight significant bits in bf16.
    assert!(outcome.full.difference < 1e-3, "{outcome:?}");
    assert!(outcome.half.difference < 1.0, "{outcome:?}");
    assert!(
        outcome.half.difference > outcome.full.difference,
        "{outcome:?}"
    );
    for exported in [&outcome.full, &outcome.half] {
        assert!(exported.check.passed() && exported.check.rows == 4);
        for file in ["model.safetensors", "config.json", "tokenizer.json"] {
            assert!(exported.dir.join(file).is_file(), "{file}");
        }
    }
    let size = |exported: &merge_and_export::Exported| {
        let file = exported.dir.join("model.safetensors");
        std::fs::metadata(file).unwrap().len() as f64
    };
    let share = size(&outcome.half) / size(&outcome.full);
    assert!((0.49..0.52).contains(&share), "{share}");
    assert!(outcome.unmerged);
}

/// The programs themselves, which `cargo test` builds beside this test.
#[test]
fn the_application_answers_prompts_on_standard_input() {
    let target = std::env::current_exe().unwrap();
    let program = target
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/application");
    let mut child = Command::new(program)
        .arg(fine_tune::folder().join("models/wiki-gpt2"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"The film\nThe city\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().lines().count() >= 2);
}
