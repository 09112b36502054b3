//! Help, completions, manual pages, `lora env`, `--quiet`, and the files beside a trained adapter.

use crate::common::encoders::{data, encoder, learn};
use crate::common::{fail, lora, model, succeed, texts, train};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Widest line of a help.
const WIDTH: usize = 100;

/// Names of the commands below `command`, as its help lists them.
fn commands(command: &[&str]) -> Vec<String> {
    let help = succeed(lora(command).arg("-h").env_remove("COLUMNS"));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    // The explanation of a command goes on further to the right.
    let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(String::from)
        .collect()
}

/// Paths of all commands, the program itself as an empty one.
fn paths() -> Vec<Vec<String>> {
    let mut paths = vec![Vec::new()];
    for name in commands(&[]) {
        let inner = commands(&[&name]);
        paths.push(vec![name.clone()]);
        paths.extend(inner.into_iter().map(|inner| vec![name.clone(), inner]));
    }
    paths
}

#[test]
fn no_line_of_a_help_is_wider_than_a_page() {
    let paths = paths();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        for option in ["-h", "--help"] {
            let help = succeed(lora(&path).arg(option).env_remove("COLUMNS"));
            for line in help.lines() {
                assert!(line.chars().count() <= WIDTH, "{path:?} {option}: {line}");
            }
        }
    }
}

#[test]
fn every_shell_completes_every_command_and_every_command_has_a_page() {
    let names = commands(&[]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeed(&mut lora(["completions", shell]));
        for name in &names {
            assert!(script.contains(name.as_str()), "{shell} lacks {name}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("share/man1");
    succeed(lora(["man", "--output"]).arg(&pages));
    let written: BTreeSet<String> = fs::read_dir(&pages)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<String> = paths()
        .into_iter()
        .map(|path| {
            let names: Vec<&str> = ["lora"]
                .into_iter()
                .chain(path.iter().map(String::as_str))
                .collect();
            format!("{}.1", names.join("-"))
        })
        .collect();
    assert_eq!(written, expected);
    let page = fs::read_to_string(pages.join("lora-train.1")).unwrap();
    assert!(
        page.contains(".TH") && page.contains("lora\\-train"),
        "{page}"
    );
    assert_eq!(succeed(&mut lora(["man", "train"])), page);
    assert!(succeed(&mut lora(["man", "bench", "step"])).contains("checkpoint\\-activations"));
    // Nothing is overwritten unasked, and a name that is none is named.
    fail(
        lora(["man", "--output"]).arg(&pages),
        1,
        &["lora.1", "exists"],
    );
    succeed(lora(["man", "--overwrite", "--output"]).arg(&pages));
    fail(&mut lora(["man", "breed"]), 2, &["`breed`", "lora --help"]);
}

#[test]
fn the_environment_names_version_backends_and_device() {
    let text = succeed(&mut lora(["env", "--device", "flex"]));
    for word in [env!("CARGO_PKG_VERSION"), "commit", "0.22", "flex", "CPU"] {
        assert!(text.contains(word), "{text}");
    }
    let json = succeed(&mut lora(["env", "--device", "flex", "--json"]));
    let facts: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(facts["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(facts["device"]["runtime"], "flex");
    assert!(facts["device"]["max_buffer_mib"].is_null() && facts["failure"].is_null());
    assert!(facts["threads"].as_u64().unwrap() > 0);
    assert!(
        facts["features"]
            .as_array()
            .unwrap()
            .contains(&"flex".into())
    );
    if !cfg!(feature = "rocm") {
        fail(
            &mut lora(["env", "--device", "rocm"]),
            2,
            &["`rocm` is not compiled in"],
        );
    }
}

#[test]
fn the_long_version_has_the_facts_of_the_build_and_the_short_one_is_a_line() {
    let version = env!("CARGO_PKG_VERSION");
    let short = succeed(&mut lora(["-V"]));
    assert_eq!(short.trim(), format!("lora {version}"));
    let long = succeed(&mut lora(["--version"]));
    let first = format!("lora {version}");
    let starts = [first.as_str(), "commit", "Burn", "system", "features"];
    assert_eq!(long.lines().count(), starts.len(), "{long}");
    for (line, start) in long.lines().zip(starts) {
        assert!(line.starts_with(start), "{long}");
    }
    assert!(long.lines().last().unwrap().contains("flex"), "{long}");
    // Pages and completions do not depend on the build.
    assert!(!succeed(&mut lora(["man"])).contains("features  flex"));
}

#[test]
fn an_upload_without_a_token_or_the_feature_is_refused_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let push = |directory: &Path, repository: &str| {
        let mut command = lora(["push"]);
        command.arg(directory).arg(repository);
        // Nothing listens there.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9");
        command.env("HF_HOME", dir.path()).env_remove("HF_TOKEN");
        command.env_remove("HF_TOKEN_PATH");
        command.env_remove("HF_HUB_OFFLINE");
        command
    };
    let expected = if cfg!(feature = "hub") {
        "HF_TOKEN"
    } else {
        "--features hub"
    };
    fail(
        &mut push(dir.path(), "me/adapter"),
        1,
        &["me/adapter", expected],
    );
    fail(
        &mut push(dir.path(), "a/b/c"),
        1,
        &["not a valid name of a repository"],
    );
}

#[test]
fn a_quiet_run_prints_results_only() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, options: &[&str]| {
        let mut command = train(&texts(), &dir.path().join(name));
        command
            .args(["--rank", "2", "--max-steps", "1"])
            .args(options);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let read = |bytes| String::from_utf8(bytes).unwrap();
        (read(output.stdout), read(output.stderr))
    };
    let (_, notes) = run("loud", &[]);
    assert!(notes.contains("device    CPU (flex)\n"), "{notes}");
    for option in ["--quiet", "-q"] {
        let (results, notes) = run(option, &[option]);
        assert!(results.contains("saved "), "{results}");
        assert_eq!(notes, "");
    }
    let mut refused = train(&texts(), &dir.path().join("loud"));
    fail(refused.arg("--quiet"), 1, &["error: ", "loud"]);
}

fn card(adapter: &Path) -> String {
    fs::read_to_string(adapter.join("README.md")).unwrap()
}

#[test]
fn tokenizer_and_card_are_beside_a_trained_adapter() {
    let dir = tempfile::tempdir().unwrap();
    // A model in the Hub's cache, with a template of its own.
    let snapshot = "models--org--small/snapshots/0123456789abcdef0123456789abcdef01234567";
    let base = dir.path().join(snapshot);
    fs::create_dir_all(&base).unwrap();
    for file in fs::read_dir(model()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), base.join(file.file_name())).unwrap();
    }
    fs::write(
        base.join("chat_template.jinja"),
        "{{ messages[0].content }}",
    )
    .unwrap();
    let out = dir.path().join("run");
    let mut command = lora([
        "train",
        "--device",
        "flex",
        "--max-length",
        "48",
        "--max-steps",
        "2",
    ]);
    command.args(["--rank", "3", "--alpha", "5", "--targets", "c_attn"]);
    command.arg("--model").arg(&base).arg("--output").arg(&out);
    command
        .arg("--data")
        .arg(texts())
        .arg("--eval-data")
        .arg(texts());
    succeed(&mut command);
    let adapter = out.join("adapter");
    for name in ["tokenizer.json", "chat_template.jinja"] {
        assert_eq!(
            fs::read(adapter.join(name)).unwrap(),
            fs::read(base.join(name)).unwrap()
        );
    }
    let text = card(&adapter);
    let header = "---\nlibrary_name: peft\nbase_model: org/small\npipeline_tag: text-generation\ntags:\n\
                  - base_model:adapter:org/small\n- lora\n- transformers\n---\n\n# Adapter of org/small\n";
    assert!(text.starts_with(header), "{text}");
    for part in [
        "LoRA with rank 3 and alpha 5 on c_attn",
        "AutoModelForCausalLM.from_pretrained(\"org/small\")",
        "| steps | 2 |",
        "| data | train.jsonl |",
        "| perplexity | ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // No path of this machine is in a file that is made to be published.
    let config = fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
    assert!(
        config.contains("\"base_model_name_or_path\": \"org/small\""),
        "{config}"
    );
    let here = dir.path().to_str().unwrap();
    assert!(
        !text.contains(here) && !config.contains(here),
        "{text}{config}"
    );
    // The checkpoints stay as small as they were.
    let checkpoints = fs::read_dir(out.join("checkpoints")).unwrap();
    for checkpoint in checkpoints {
        assert!(
            !checkpoint
                .unwrap()
                .path()
                .join("adapter/tokenizer.json")
                .exists()
        );
    }
    // The tokenizer beside the adapter is the base's, so nothing is said of it.
    let mut generation = lora([
        "generate",
        "--device",
        "flex",
        "--prompt",
        "Aromi",
        "--max-new-tokens",
        "2",
    ]);
    generation
        .arg("--model")
        .arg(&base)
        .arg("--adapter")
        .arg(&adapter);
    let output = generation.output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && !notes.contains("tokenizer beside"),
        "{notes}"
    );
}

#[test]
fn a_prefix_and_a_local_base_have_a_card_without_a_name_on_the_hub() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut command = train(&texts(), &out);
    succeed(command.args(["--prefix-only", "--prefix", "3", "--max-steps", "1"]));
    let adapter = out.join("adapter");
    assert!(adapter.join("tokenizer.json").is_file());
    let text = card(&adapter);
    assert!(
        text.starts_with(
            "---\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n- transformers\n---\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("Trained for gpt2_tied: prefix: 3 virtual tokens in 2 layers"),
        "{text}"
    );
}

#[test]
fn the_card_of_a_classifier_names_its_head_and_the_number_of_classes() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["bert", "roberta"] {
        let (base, out) = (encoder(family, dir.path()), dir.path().join(family));
        let pairs = data("pairs.jsonl");
        let mut command = learn(&base, &pairs, &out);
        succeed(command.args(["--task", "classification", "--max-steps", "1"]));
        let text = card(&out.join("adapter"));
        let model = format!(
            "AutoModelForSequenceClassification.from_pretrained(\"{family}-model\", num_labels=3)"
        );
        for part in [
            model.as_str(),
            "text-classification",
            "fully trained classifier",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
