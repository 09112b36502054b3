//! Tokens that a model lacks: unused, trained with `--new-tokens`, and brought by an adapter.

use crate::common::encoders::{data, encoder, eval as classify_eval, learn, outcome, same_metrics};
use crate::common::{fail, fixtures, lora, model, succeed};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const NEW: [&str; 2] = ["<user>", "<bot>"];

fn texts(dir: &Path, name: &str, wrap: impl Fn(&str) -> String) -> PathBuf {
    let source = std::fs::read_to_string(fixtures().join("train20/train.jsonl")).unwrap();
    let lines = source.lines().take(6).map(|line| {
        let object: Value = serde_json::from_str(line).unwrap();
        let text = object.as_object().unwrap().values().next().unwrap();
        json!({ "text": wrap(text.as_str().unwrap()) }).to_string()
    });
    let path = dir.join(name);
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

fn eval(model: &Path, adapter: Option<&Path>, data: &Path) -> std::process::Command {
    let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model).arg("--data").arg(data);
    if let Some(adapter) = adapter {
        command.arg("--adapter").arg(adapter);
    }
    command
}

/// The line with the loss.
fn loss(output: &str) -> String {
    let mut lines = output.lines();
    let line = lines.find(|line| line.starts_with("loss"));
    line.unwrap_or_else(|| panic!("{output}")).to_string()
}

/// Copies the fixture model with tokens more in its tokenizer than it has embeddings.
fn with_unused_tokens(dir: &Path) -> PathBuf {
    let copy = dir.join("base");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let path = copy.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for (token, id) in NEW.iter().zip(300..) {
        added.push(json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    }
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    copy
}

#[test]
fn tokens_without_an_embedding_matter_where_a_text_uses_one() {
    let dir = tempfile::tempdir().unwrap();
    let copy = with_unused_tokens(dir.path());
    let plain = texts(dir.path(), "plain.jsonl", |text| text.into());
    let expected = loss(&succeed(&mut eval(&model(), None, &plain)));
    assert_eq!(loss(&succeed(&mut eval(&copy, None, &plain))), expected);
    let uses = texts(dir.path(), "uses.jsonl", |text| format!("<bot>{text}"));
    fail(&mut eval(&copy, None, &uses), 1, &["<bot>", "--new-tokens"]);
}

/// A run that trains two new tokens, each of which is in every text; the files of the tokens and of the data.
fn with_new_tokens(dir: &Path) -> (std::process::Command, PathBuf, PathBuf) {
    let tokens = dir.join("tokens.txt");
    std::fs::write(&tokens, NEW.join("\n")).unwrap();
    let data = texts(dir, "data.jsonl", |text| format!("<user>{text}<bot>"));
    let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model()).arg("--data").arg(&data);
    command.arg("--output").arg(dir.join("run"));
    command.arg("--new-tokens").arg(&tokens);
    command.args(["--lr", "1e-2", "--rank", "2"]);
    (command, tokens, data)
}

#[test]
fn new_tokens_are_trained_saved_read_and_merged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let (mut command, tokens, data) = with_new_tokens(dir.path());
    command.args(["--max-steps", "3", "--layers", "0", "--merge"]);
    let shown = {
        let mut preview = lora(["preview", "--device", "flex", "--max-length", "48"]);
        preview.arg("--model").arg(model()).arg("--data").arg(&data);
        preview.arg("--new-tokens").arg(&tokens);
        succeed(&mut preview)
    };
    assert!(shown.contains("300  <user>"), "{shown}");
    succeed(&mut command);

    let adapter = out.join("adapter");
    let config = std::fs::read(adapter.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        config["trainable_token_indices"].as_array().unwrap().len(),
        2
    );
    assert_eq!(config["layers_to_transform"], json!([0]));
    let names: Vec<String> = crate::common::adapter(&adapter)
        .into_iter()
        .map(|(name, ..)| name)
        .filter(|name| !name.contains("lora_"))
        .collect();
    let rows = "base_model.model.transformer.wte.token_adapter.trainable_tokens_delta";
    assert_eq!(names, [rows]);
    // The rows start from one mean: they differ because the examples have the tokens at their places.
    let trained = crate::common::adapter(&adapter);
    let mut deltas = trained.iter().filter(|(name, ..)| name == rows);
    let (_, shape, values) = deltas.next().unwrap();
    let (first, second) = values.split_at(shape[1]);
    assert_ne!(first, second);

    let adapted = loss(&succeed(&mut eval(&model(), Some(&adapter), &data)));
    let merged = loss(&succeed(&mut eval(&out.join("merged"), None, &data)));
    assert_eq!(adapted, merged);
    let again = dir.path().join("again");
    let mut command = lora(["merge", "--device", "flex", "--verify"]);
    command
        .arg("--model")
        .arg(model())
        .arg("--adapter")
        .arg(&adapter);
    command.arg("--output").arg(&again);
    succeed(&mut command);
    assert_eq!(loss(&succeed(&mut eval(&again, None, &data))), adapted);
}

/// Prefix-embedding of the paper, with virtual tokens before the prompt and trained tokens after it.
#[test]
fn virtual_tokens_stand_before_and_new_tokens_after_a_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let (tokens, data) = (dir.path().join("tokens.txt"), dir.path().join("data.jsonl"));
    std::fs::write(&tokens, NEW.join("\n")).unwrap();
    let lines = ["the cat", "a dog and", "one"].map(|text| {
        json!({ "prompt": format!("{text}<user><bot>"), "completion": " sat here" }).to_string()
    });
    std::fs::write(&data, lines.join("\n")).unwrap();
    let out = dir.path().join("run");
    let mut command = lora(["train", "--device", "flex", "--method", "prompt"]);
    command.args(["--virtual-tokens", "3", "--max-steps", "4", "--lr", "0.1"]);
    command.arg("--model").arg(model()).arg("--data").arg(&data);
    command.arg("--output").arg(&out);
    command.arg("--new-tokens").arg(&tokens);
    let shown = succeed(&mut command);
    let width = 24;
    assert!(
        shown.contains(&format!("{} of ", (3 + NEW.len()) * width)),
        "{shown}"
    );

    let adapter = out.join("adapter");
    let read = |file: &str| -> Value {
        serde_json::from_slice(&std::fs::read(adapter.join(file)).unwrap()).unwrap()
    };
    let config = read("adapter_config.json");
    assert_eq!(config["trainable_token_indices"], json!([300, 301]));
    assert_eq!(config["target_modules"], json!([]));
    assert_eq!(read("prompt/adapter_config.json")["num_virtual_tokens"], 3);
    let names: Vec<String> = (crate::common::adapter(&adapter).into_iter())
        .map(|(name, ..)| name)
        .collect();
    let rows = "base_model.model.transformer.wte.token_adapter.trainable_tokens_delta";
    assert_eq!(names, [rows]);

    // Merged, the rows are in the embedding, and the virtual tokens stay beside it.
    let trained = loss(&succeed(&mut eval(&model(), Some(&adapter), &data)));
    let merged = dir.path().join("merged");
    let mut command = lora(["merge", "--device", "flex", "--adapter"]);
    command.arg(&adapter).arg("--model").arg(model());
    command.arg("--output").arg(&merged);
    succeed(&mut command);
    let beside = merged.join("prompt");
    assert_eq!(
        loss(&succeed(&mut eval(&merged, Some(&beside), &data))),
        trained
    );
    // Each kind matters.
    assert_ne!(loss(&succeed(&mut eval(&merged, None, &data))), trained);
    let prompt = adapter.join("prompt");
    let without_rows = loss(&succeed(&mut eval(&model(), Some(&prompt), &data)));
    assert_ne!(without_rows, trained);
}

#[test]
fn a_count_selects_the_last_tokens_and_more_training_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let plain = texts(dir.path(), "plain.jsonl", |text| text.into());
    let run = |name: &str| {
        let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
        command
            .arg("--model")
            .arg(model())
            .arg("--data")
            .arg(&plain);
        command.arg("--output").arg(dir.path().join(name));
        command.args(["--max-steps", "1", "--lr", "1e-2"]);
        command
    };
    succeed(run("first").args(["--new-tokens", "3", "--rank", "2"]));
    let first = dir.path().join("first/adapter");
    succeed(run("second").arg("--adapter").arg(&first));
    let indices = |adapter: &Path| -> Value {
        let bytes = std::fs::read(adapter.join("adapter_config.json")).unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        config["trainable_token_indices"].clone()
    };
    assert_eq!(indices(&first).as_array().unwrap().len(), 3);
    assert_eq!(indices(&dir.path().join("second/adapter")), indices(&first));
    fail(run("third").args(["--new-tokens", "0"]), 2, &["new_tokens"]);
}

/// The path of the file was relative to the working directory, and a part of what a resumed run compared.
#[test]
fn a_recipe_names_tokens_beside_it_and_a_resumed_run_compares_them() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let tokens = write("tokens.txt", &NEW.join("\n"));
    texts(dir.path(), "data.jsonl", |text| format!("<user>{text}"));
    let base = model();
    let recipe = |steps: usize, tokens: &str| {
        let text = format!(
            "model = {base:?}\ndata = \"data.jsonl\"\nmax_length = 48\nrank = 2\nsave_steps = 1\nschedule = \"constant\"\n\
             max_steps = {steps}\nnew_tokens = {tokens}\ndevice = \"flex\"\n"
        );
        write("recipe.toml", &text)
    };
    let run = |recipe: &Path, more: &[&str]| {
        let mut command = lora(["train"]);
        // A working directory without the files of the recipe.
        command.current_dir(model()).arg(recipe);
        command
            .arg("--output")
            .arg(dir.path().join("run"))
            .args(more);
        command
    };
    let first = recipe(2, "\"tokens.txt\"");
    succeed(&mut run(&first, &[]));
    let saved = std::fs::read_to_string(dir.path().join("run/recipe.toml")).unwrap();
    assert!(
        saved.contains(&format!("new_tokens = {tokens:?}")),
        "{saved}"
    );
    // The same tokens in another place are the same run; one that no text uses is not.
    let resume = ["--resume"];
    write("moved.txt", &format!("{}\n", NEW.join("\r\n")));
    succeed(&mut run(&recipe(2, "\"moved.txt\""), &resume));
    write("tokens.txt", "<user>\n<other>\n");
    let words = ["other options", "new_tokens = 2 tokens"];
    fail(&mut run(&recipe(2, "\"tokens.txt\""), &resume), 1, &words);
    fail(&mut run(&recipe(2, "2"), &resume), 1, &words);

    // Tokens in the place of what the run writes.
    let within = dir.path().join("run/adapter/tokens.txt");
    std::fs::write(&within, NEW.join("\n")).unwrap();
    let mut command = run(&recipe(2, "\"run/adapter/tokens.txt\""), &["--overwrite"]);
    fail(&mut command, 2, &["which this run reads"]);
    assert!(within.exists());
    succeed(&mut run(&recipe(1, "2"), &["--overwrite"]));
}

/// Texts with classes or scores, each with the new tokens around it.
fn labelled(dir: &Path, name: &str) -> PathBuf {
    let source = std::fs::read_to_string(data(name)).unwrap();
    let lines = source.lines().take(12).map(|line| {
        let mut object: Value = serde_json::from_str(line).unwrap();
        let text = object["text"].as_str().unwrap();
        object["text"] = json!(format!("<user>{text}<bot>"));
        object.to_string()
    });
    let path = dir.join(name);
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

/// The merged classifier had more rows than its configuration said, and a new head lost the tokens that the texts were encoded with.
#[test]
fn classifiers_learn_new_tokens_which_stay_with_a_new_head() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.txt");
    std::fs::write(&tokens, NEW.join("\n")).unwrap();
    let (texts, scores) = (
        labelled(dir.path(), "texts.jsonl"),
        labelled(dir.path(), "scores.jsonl"),
    );
    for (name, base) in [("gpt2", model()), ("bert", encoder("bert", dir.path()))] {
        let at = |run: &str| dir.path().join(format!("{name}-{run}"));
        let mut command = learn(&base, &texts, &at("classes"));
        command.args(["--task", "classification", "--max-steps", "2", "--merge"]);
        command.arg("--new-tokens").arg(&tokens);
        let trained = outcome(command.arg("--eval-data").arg(&texts));
        let adapter = at("classes").join("adapter");
        let merged = at("classes").join("merged");
        same_metrics(&succeed(&mut classify_eval(&merged, &texts)), &trained);
        let with = |adapter: &Path, data: &Path| {
            let mut command = classify_eval(&base, data);
            command.arg("--adapter").arg(adapter);
            succeed(&mut command)
        };
        same_metrics(&with(&adapter, &texts), &trained);

        let mut command = learn(&base, &scores, &at("scores"));
        command.args(["--task", "regression", "--fresh-head", "--max-steps", "2"]);
        command.arg("--adapter").arg(&adapter);
        let trained = outcome(command.arg("--eval-data").arg(&scores));
        let further = at("scores").join("adapter");
        assert!(further.join("tokenizer.json").exists() || name == "bert");
        same_metrics(&with(&further, &scores), &trained);
    }
}

/// The tokenizer was lost on the way: the new tokens were split into others without a word.
#[test]
fn the_tokenizer_of_an_adapter_goes_with_it_and_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut command, _, data) = with_new_tokens(dir.path());
    succeed(command.args(["--max-steps", "2"]));
    let adapter = dir.path().join("run/adapter");
    let expected = loss(&succeed(&mut eval(&model(), Some(&adapter), &data)));

    let converted = dir.path().join("converted");
    let mut command = lora(["convert"]);
    succeed(command.arg(&adapter).arg("--output").arg(&converted));
    let combined = dir.path().join("combined");
    let mut command = lora(["combine", "--weights", "1,0"]);
    command.arg(&adapter).arg(&converted);
    succeed(command.arg("--output").arg(&combined));
    for adapter in [&converted, &combined] {
        let output = succeed(&mut eval(&model(), Some(adapter), &data));
        assert_eq!(loss(&output), expected);
        assert!(output.contains("with 2 more tokens"), "{output}");
    }

    for entry in std::fs::read_dir(&converted).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("adapter_") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let warning = "rows for 302 tokens, and the tokenizer of the base has 300";
    let output = succeed(&mut eval(&model(), Some(&converted), &data));
    assert!(output.contains(warning), "{output}");
    let mut command = lora(["train", "--device", "flex", "--max-length", "48"]);
    command.arg("--model").arg(model()).arg("--data").arg(&data);
    command.arg("--adapter").arg(&converted);
    command.arg("--output").arg(dir.path().join("more"));
    let output = succeed(command.args(["--max-steps", "1"]));
    assert_eq!(output.matches(warning).count(), 1, "{output}");
}
