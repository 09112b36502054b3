//! Files of strangers: what they may not do to a terminal, to the user's other files, and to a run that reads them.

use crate::common::encoders::{classify, predict, with_tokenizer};
use crate::common::{eval_texts, fail, lora, metrics, model, succeed, text, texts, train};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use test_support::tensors::json as read;

/// OSC 52 sets the clipboard, CSI clears the screen, C1 is CSI in one character, and a line break forges a line.
const HOSTILE: &str = "x\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{9b}31m\r\u{7f}\u{202e}\nerror: forged";

/// Runs a command, and asserts that nothing that it prints acts on a terminal.
#[track_caller]
fn inactive(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = text(&output);
    let acts = |character: char| {
        character.is_control() && !"\n\t".contains(character) || character == '\u{202e}'
    };
    assert!(!text.contains(acts), "{command:?}\n{text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("error: forged")),
        "{command:?}\n{text}"
    );
    text
}

/// Runs a command as [`inactive`], and asserts that the hostile text is shown.
#[track_caller]
fn harmless(command: &mut Command) -> String {
    let text = inactive(command);
    assert!(
        text.contains(r"\u{9b}") || text.contains(r"\u009b"),
        "{command:?}\n{text}"
    );
    text
}

/// A copy of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Writes a safetensors file with one tensor of this name, and a note.
fn weights(path: &Path, name: &str, value: f32) {
    let header = json!({
        "__metadata__": {name: name},
        name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    });
    let header = header.to_string();
    let bytes = [
        &(header.len() as u64).to_le_bytes()[..],
        header.as_bytes(),
        &value.to_le_bytes(),
    ];
    fs::write(path, bytes.concat()).unwrap();
}

/// Changes a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(path);
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn names_and_notes_of_weights_reach_no_terminal_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| dir.path().join(format!("{name}.safetensors")));
    weights(&one, HOSTILE, 1.0);
    weights(&two, HOSTILE, 2.0);
    harmless(lora(["inspect", "--values"]).arg(&one));
    let json = harmless(lora(["inspect", "--json"]).arg(&one));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        report["tensors"][0]["name"], HOSTILE,
        "JSON keeps its value"
    );
    harmless(lora(["diff"]).arg(&one).arg(&two));
    harmless(lora(["diff", "--json"]).arg(&one).arg(&two));
    // In the text of an error.
    let bad = dir.path().join("bad");
    copy(&model(), &bad);
    edit(&bad.join("config.json"), |config| {
        config["activation_function"] = HOSTILE.into();
    });
    harmless(lora(["generate", "--prompt", "x", "--model"]).arg(&bad));
}

#[test]
fn names_in_an_adapter_reach_no_terminal_as_they_are() {
    let fixture =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../lora-core/tests/fixtures/peft_linear");
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("adapter");
    copy(&fixture, &adapter);
    let config = adapter.join("adapter_config.json");
    edit(&config, |config| {
        config["base_model_name_or_path"] = HOSTILE.into();
    });
    harmless(lora(["inspect"]).arg(&adapter));
    harmless(lora(["inspect", "--json"]).arg(&adapter));
    let changed = format!("{HOSTILE}2");
    let other = dir.path().join("other");
    copy(&adapter, &other);
    edit(&other.join("adapter_config.json"), |config| {
        config["base_model_name_or_path"] = changed.into();
        config["target_modules"] = json!([HOSTILE]);
    });
    harmless(lora(["diff"]).arg(&adapter).arg(&other));
    // Errors: a target that is nowhere, an unknown key, and broken JSON.
    let train = |adapter: &Path| {
        let mut command = train(&texts(), &dir.path().join("run"));
        command.arg("--adapter").arg(adapter);
        command
    };
    harmless(&mut train(&other));
    edit(&config, |config| config["use_rslora"] = HOSTILE.into());
    harmless(lora(["inspect"]).arg(&adapter));
}

#[test]
fn labels_and_paths_reach_no_terminal_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let base = with_tokenizer("roberta", &classify("roberta_full/init"), dir.path());
    edit(&base.join("config.json"), |config| {
        config["id2label"] =
            json!({"0": HOSTILE, "1": format!("{HOSTILE}1"), "2": format!("{HOSTILE}2")});
        config["label2id"] = json!({});
    });
    for json in [&["--text", "good"][..], &["--text", "good", "--json"]] {
        harmless(predict(&base).args(json));
    }
    harmless(lora(["inspect"]).arg(&base));
    // Paths, in errors and as arguments that are none.
    let path = dir.path().join(HOSTILE.replace('/', ""));
    harmless(lora(["inspect"]).arg(&path));
    // The parser of arguments leaves out what it takes for sequences.
    inactive(lora(["inspect", "x"]).arg(&path));
    inactive(
        lora(["train", "--model"])
            .arg(&base)
            .arg(format!("--{HOSTILE}")),
    );
}

#[test]
#[cfg(unix)]
fn a_link_to_elsewhere_is_not_copied_into_a_merged_model() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("id_rsa");
    fs::write(&secret, "secret").unwrap();
    let base = dir.path().join("base");
    let out = dir.path().join("out");
    let merge = |base: &Path| {
        let mut command = lora(["merge", "--device", "flex", "--overwrite", "--model"]);
        command.arg(base).arg("--output").arg(&out);
        command
    };
    for name in [
        "chat_template.jinja",
        "special_tokens_map.json",
        "added_tokens.json",
    ] {
        copy(&model(), &base);
        fs::write(&secret, "{}").unwrap();
        symlink(&secret, base.join(name)).unwrap();
        fail(
            &mut merge(&base),
            1,
            &[name, "id_rsa, outside of its directory"],
        );
        assert!(!out.exists());
        fs::remove_dir_all(&base).unwrap();
    }
    // A sparse file larger than any memory.
    copy(&model(), &base);
    let file = fs::File::create(base.join("chat_template.jinja")).unwrap();
    file.set_len(1 << 42).unwrap();
    fail(
        &mut merge(&base),
        1,
        &["chat_template.jinja", "larger than"],
    );

    // The Hub's cache consists of links to the files in its own folder.
    let repo = dir.path().join("models--org--model");
    let snapshot = repo.join("snapshots/0123456789abcdef0123456789abcdef01234567");
    fs::create_dir_all(&snapshot).unwrap();
    copy(&model(), &repo.join("blobs"));
    fs::write(repo.join("blobs/chat_template.jinja"), "{{ messages }}").unwrap();
    for entry in fs::read_dir(repo.join("blobs")).unwrap() {
        let name = entry.unwrap().file_name();
        symlink(Path::new("../../blobs").join(&name), snapshot.join(&name)).unwrap();
    }
    succeed(&mut merge(&snapshot));
    let template = fs::read_to_string(out.join("chat_template.jinja")).unwrap();
    assert_eq!(template, "{{ messages }}");
    let copied = fs::symlink_metadata(out.join("tokenizer.json")).unwrap();
    assert!(copied.is_file());
}

/// Waits until a condition holds.
#[track_caller]
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names of the checkpoints in an output directory.
fn checkpoints(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("step-")).collect();
    names.sort();
    names
}

/// A training of another base than the fixture model.
fn train_on(base: &Path, out: &Path) -> Command {
    let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(base).arg("--data").arg(texts());
    command.arg("--output").arg(out);
    command
}

/// A run that would take very long, on a copy of the model, and what is done to its weights after its first steps.
fn changed_while_training(
    options: &[&str],
    change: impl FnOnce(&Path),
) -> (String, PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (base, out) = (dir.path().join("base"), dir.path().join("run"));
    copy(&model(), &base);
    let mut command = train_on(&base, &out);
    command
        .args(["--epochs", "2000", "--save-steps", "2"])
        .args(options);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_for("checkpoint", || {
        child.try_wait().unwrap().is_some() || !checkpoints(&out).is_empty()
    });
    change(&base.join("model.safetensors"));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    (text(&output), out, dir)
}

/// Changes a byte of the last tensor in place. The length stays.
fn write_into(path: &Path) {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::End(-4)).unwrap();
    file.write_all(&0.5f32.to_le_bytes()).unwrap();
}

#[test]
fn a_base_that_changes_during_a_run_ends_it_before_anything_is_saved() {
    for options in [&[][..], &["--no-mmap"], &["--quantize", "int8"]] {
        let (message, out, _dir) = changed_while_training(options, write_into);
        for word in [
            "base/model.safetensors: the file changed",
            "it was written to",
        ] {
            assert!(message.contains(word), "{options:?}: {message}");
        }
        // What was saved before is there, and a step after it was not saved.
        let saved = checkpoints(&out);
        assert!((1..=2).contains(&saved.len()), "{saved:?}");
        assert!(!out.join("adapter").exists());
        let steps = metrics(&out).last().unwrap()["step"].as_u64().unwrap();
        let last = format!("step-{steps:08}");
        assert!(saved.iter().all(|step| *step < last), "{saved:?}, {steps}");
    }
    // Another file of the same length in its place, as `mv` puts it there.
    let (message, ..) = changed_while_training(&[], |path| {
        let other = path.with_extension("other");
        fs::copy(path, &other).unwrap();
        let file = fs::File::options().write(true).open(&other).unwrap();
        let modified = fs::metadata(path).unwrap().modified().unwrap();
        file.set_modified(modified).unwrap();
        fs::rename(&other, path).unwrap();
    });
    if cfg!(unix) {
        assert!(message.contains("another file took its place"), "{message}");
    }
}

#[test]
fn an_old_base_that_stays_as_it_is_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    copy(&model(), &base);
    let file = fs::File::options()
        .write(true)
        .open(base.join("model.safetensors"));
    file.unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let mut results = Vec::new();
    for options in [&[][..], &["--no-mmap"]] {
        let out = dir.path().join(format!("run{}", options.len()));
        let mut command = train_on(&base, &out);
        succeed(command.args(["--epochs", "1", "--merge"]).args(options));
        results.push(fs::read(out.join("merged/model.safetensors")).unwrap());
    }
    assert!(results[0] == results[1], "the weights depend on the map");
}

#[test]
fn what_is_read_without_a_map_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let [with, without] = ["with", "without"].map(|name| dir.path().join(name));
    let mapped = eval_texts(&model(), &with).output().unwrap();
    let read = eval_texts(&model(), &without)
        .arg("--no-mmap")
        .output()
        .unwrap();
    assert!(
        mapped.status.success() && read.status.success(),
        "{}",
        text(&read)
    );
    assert_eq!(fs::read(&with).unwrap(), fs::read(&without).unwrap());
    for command in ["inspect", "diff"] {
        let outputs = [&[][..], &["--no-mmap"]].map(|options| {
            let mut command = lora([command]);
            command.args(options).arg(model());
            if command.get_args().any(|name| name == "diff") {
                command.arg(model());
            }
            succeed(&mut command)
        });
        assert_eq!(outputs[0], outputs[1]);
    }
}
