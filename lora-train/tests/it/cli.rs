//! The program from the outside: arguments, output, and errors.

use crate::common::{
    self, adapter, encoders, fail, fixtures, lora, losses, metrics, model, succeed, train,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_run_leaves_what_it_promises_and_a_better_model() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut command = train(&data(), &out);
    command.arg("--eval-data").arg(data());
    command.args([
        "--epochs",
        "4",
        "--lr",
        "1e-2",
        "--targets",
        "c_attn[q,v],c_fc",
        "--rank",
        "4",
    ]);
    command.args([
        "--alpha",
        "8",
        "--generate-prompts",
        "6",
        "--max-new-tokens",
        "8",
        "--merge",
    ]);
    let output = succeed(&mut command);
    for word in ["perplexity", "bleu", "rouge_l", "generated", "reference"] {
        assert!(output.contains(word), "{output}");
    }
    for file in [
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "metrics.jsonl",
        "recipe.toml",
        "merged/model.safetensors",
        "merged/config.json",
        "merged/tokenizer.json",
        "checkpoints",
    ] {
        assert!(out.join(file).exists(), "{file}");
    }
    let evaluations: Vec<f64> = metrics(&out)
        .iter()
        .filter_map(|line| line.get("eval")?.get("loss")?.as_f64())
        .collect();
    assert_eq!(evaluations.len(), 4);
    assert!(evaluations[3] < 0.9 * evaluations[0], "{evaluations:?}");

    // The adapter on the base and the merged model score the same, as the run said.
    let eval = |with_adapter: bool, predictions: &Path| {
        let mut command = lora(["eval", "--device", "flex", "--max-length", "48"]);
        command
            .arg("--data")
            .arg(data())
            .arg("--predictions")
            .arg(predictions);
        if with_adapter {
            command
                .arg("--model")
                .arg(model())
                .arg("--adapter")
                .arg(out.join("adapter"))
        } else {
            command.arg("--model").arg(out.join("merged"))
        };
        succeed(&mut command);
        let text = std::fs::read_to_string(predictions).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| {
                (
                    line["loss"].as_f64().unwrap(),
                    line["tokens"].as_u64().unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    let with_adapter = eval(true, &dir.path().join("a.jsonl"));
    let merged = eval(false, &dir.path().join("b.jsonl"));
    assert_eq!(with_adapter.len(), 28);
    let tokens: u64 = with_adapter.iter().map(|(_, tokens)| tokens).sum();
    let nll: f64 = with_adapter
        .iter()
        .map(|(loss, tokens)| loss * *tokens as f64)
        .sum();
    assert!((nll / tokens as f64 - evaluations[3]).abs() < 1e-5);
    for ((a, _), (b, _)) in with_adapter.iter().zip(&merged) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }

    let inspected = succeed(lora(["inspect"]).arg(out.join("adapter")));
    assert!(
        inspected.contains("transformer.h.1.attn.c_attn"),
        "{inspected}"
    );
    let inspected = succeed(lora(["inspect"]).arg(model()));
    assert!(inspected.contains("23232 parameters"), "{inspected}");

    // Nothing is overwritten without being asked.
    fail(&mut train(&data(), &out), 1, &["already exists"]);
    let own = out.join("adapter");
    let mut command = train(&data(), &out);
    command
        .arg("--overwrite")
        .arg("--adapter")
        .arg(&own)
        .args(["--max-steps", "1"]);
    fail(&mut command, 2, &["output", "which this run reads"]);
    assert!(own.join("adapter_model.safetensors").exists());
    // The recipe that it wrote does the same again.
    let before = adapter(&out.join("adapter"));
    succeed(
        lora(["train"])
            .arg(out.join("recipe.toml"))
            .arg("--overwrite"),
    );
    assert_eq!(adapter(&out.join("adapter")), before);
}

#[test]
fn a_recipe_can_be_overridden_by_flags() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = format!(
        "model = {:?}\ndata = {:?}\noutput = \"run\"\nrank = 2\nalpha = 6.0\nmax_steps = 2\n\
         max_length = 48\ntargets = [\"c_proj\"]\n[rank_pattern]\n\"mlp.c_proj\" = 3\n",
        model(),
        data()
    );
    let recipe = write(dir.path(), "recipe.toml", &recipe);
    succeed(lora(["train"]).arg(&recipe).args(["--alpha", "9"]));
    let config = std::fs::read(dir.path().join("run/adapter/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["lora_alpha"], 9);
    assert_eq!(config["r"], 2);
    assert_eq!(config["rank_pattern"].as_object().unwrap().len(), 2);
}

#[test]
fn an_adapter_to_start_from_keeps_its_shape_and_takes_the_dropout_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let init = fixtures().join("train20/init");
    let run = |name: &str| {
        let mut command = train(&data(), &dir.path().join(name));
        command
            .arg("--adapter")
            .arg(&init)
            .args(["--max-steps", "1", "--dropout", "0.3"]);
        command
    };
    succeed(run("same").args(["--rank", "3", "--alpha", "5", "--targets", "c_attn,c_fc"]));
    let config = std::fs::read(dir.path().join("same/adapter/adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        (&config["r"], &config["lora_dropout"]),
        (&json!(3), &json!(0.3))
    );
    fail(run("rank").args(["--rank", "4"]), 2, &["adapter", "rank"]);
    fail(
        run("targets").args(["--targets", "c_attn"]),
        2,
        &["adapter", "targets"],
    );
}

#[test]
fn every_format_of_data_trains() {
    let dir = tempfile::tempdir().unwrap();
    let files = [
        write(
            dir.path(),
            "a.csv",
            "prompt,completion\n\"name, Aromi\",\" Aromi is a pub.\"\n",
        ),
        write(dir.path(), "b.tsv", "text\nAromi is a pub.\n"),
        write(dir.path(), "c.txt", "name[Aromi]||Aromi is a pub.\n"),
        write(dir.path(), "d.jsonl", "{\"text\": \"Aromi is a pub.\"}\n"),
    ];
    for (index, file) in files.iter().enumerate() {
        let out = dir.path().join(index.to_string());
        succeed(train(file, &out).args(["--max-steps", "1"]));
        assert_eq!(losses(&out).len(), 1);
    }
}

#[test]
fn generation_prints_continuations() {
    let out = succeed(
        lora([
            "generate",
            "--device",
            "flex",
            "--max-new-tokens",
            "5",
            "--json",
        ])
        .arg("--model")
        .arg(model())
        .args([
            "--prompt",
            "name[Aromi]",
            "--prompt",
            "The",
            "--temperature",
            "0.8",
        ]),
    );
    let lines: Vec<Value> = out
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0]["prompt"], "name[Aromi]");
}

#[test]
fn the_place_of_kept_kernels_is_named_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let cache = |options: &[&str]| {
        let mut command = lora(["cache"]);
        command
            .current_dir(dir.path())
            .env("XDG_CACHE_HOME", dir.path());
        let output = command.args(options).output().unwrap();
        assert!(output.status.success(), "{}", common::text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let found: Value = serde_json::from_str(&cache(&["--json"])).unwrap();
    assert_eq!(
        (&found["bytes"], &found["removed"]),
        (&json!(0), &json!(false))
    );
    match found["path"].as_str() {
        Some(path) => {
            assert!(path.ends_with(".db"), "{path}");
            assert!(cache(&["--clear"]).contains("nothing is kept"));
        }
        None => assert!(cache(&["--clear"]).contains("no GPU backend")),
    }
}

#[test]
fn bad_usage_is_two_and_names_the_option() {
    fail(&mut lora(["train"]), 2, &["--model"]);
    fail(&mut lora(["train", "--rank", "many"]), 2, &["--rank"]);
    fail(&mut lora(["train", "--nonsense"]), 2, &["--nonsense"]);
    fail(&mut lora(["frobnicate"]), 2, &["frobnicate"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    fail(
        train(&data(), &out).args(["--batch-size", "0"]),
        2,
        &["batch_size"],
    );
    let recipe = |text: &str| {
        let files = format!(
            "model = {:?}\ndata = {:?}\noutput = {out:?}\n",
            model(),
            data()
        );
        let mut command = lora(["train"]);
        command.arg(write(
            dir.path(),
            "recipe.toml",
            &format!("{files}{text}\n"),
        ));
        command
    };
    fail(
        &mut recipe("device = \"flex\"\nmax_length = 4096"),
        2,
        &["max_length", "64 tokens"],
    );
    fail(&mut recipe("device = \"rocm\""), 2, &["--features rocm"]);
    fail(&mut recipe("device = \"abacus\""), 2, &["abacus"]);
    fail(&mut recipe("rnak = 3"), 2, &["rnak"]);
    assert!(
        !out.exists(),
        "a run that cannot start leaves nothing behind"
    );
}

#[test]
fn bad_data_and_files_fail_with_the_place_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let bad = write(
        dir.path(),
        "bad.jsonl",
        "{\"text\": \"fine\"}\n{\"text\": 7}\n",
    );
    fail(&mut train(&bad, &out), 1, &["bad.jsonl", "line 2"]);
    let empty = write(dir.path(), "empty.jsonl", "");
    fail(&mut train(&empty, &out), 1, &["empty.jsonl"]);
    let columns = write(dir.path(), "columns.csv", "a,b\n1,2\n");
    fail(&mut train(&columns, &out), 1, &["columns.csv", "`a`, `b`"]);
    fail(
        train(&data(), &out).args(["--targets", "c_atn"]),
        1,
        &["c_atn", "c_attn"],
    );
    fail(train(&data(), &out).args(["--rank", "25"]), 1, &["rank 25"]);
    let nowhere = dir.path().join("nowhere");
    fail(lora(["inspect"]).arg(&nowhere), 1, &["nowhere"]);
    fail(
        train(&data(), &out).arg("--adapter").arg(&nowhere),
        1,
        &["nowhere", "no such directory"],
    );
    assert!(!out.exists());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_names_step_and_batch() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut command = train(&data(), &out);
    command.args([
        "--lr",
        "1e30",
        "--max-grad-norm",
        "0",
        "--schedule",
        "constant",
    ]);
    command.args([
        "--targets",
        "all-linear",
        "--no-shuffle",
        "--batch-size",
        "4",
    ]);
    fail(&mut command, 1, &["loss at step", "train.jsonl"]);
    assert!(!out.join("adapter").exists());
}

#[test]
fn early_stopping_ends_the_run_and_keeps_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut command = train(&data(), &out);
    command
        .arg("--eval-data")
        .arg(fixtures().join("train20/train.jsonl"));
    // A rate at which the loss soon gets worse again.
    command.args([
        "--lr",
        "0.3",
        "--schedule",
        "constant",
        "--eval-steps",
        "2",
        "--max-steps",
        "200",
    ]);
    command.args(["--early-stopping", "3"]);
    let output = succeed(&mut command);
    assert!(output.contains("stopped early"), "{output}");
    let lines = metrics(&out);
    let evaluations: Vec<(u64, f64)> = lines
        .iter()
        .filter_map(|line| Some((line["step"].as_u64()?, line.get("eval")?["loss"].as_f64()?)))
        .collect();
    let best = evaluations
        .iter()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap();
    assert_eq!(evaluations.last().unwrap().0, best.0 + 6);
    let kept = out.join(format!("checkpoints/best-{:08}/adapter", best.0));
    assert_eq!(adapter(&out.join("adapter")), adapter(&kept));
}

#[test]
fn all_weights_can_be_trained_from_scratch_and_the_model_loads() {
    let dir = tempfile::tempdir().unwrap();
    let texts = "Aromi is a pub in the city centre.\n\n".repeat(60);
    let texts = write(dir.path(), "texts.txt", &texts);
    let out = dir.path().join("run");
    let mut command = train(&texts, &out);
    command.args([
        "--full",
        "--from-scratch",
        "--concatenate",
        "--format",
        "text",
        "--lr",
        "1e-2",
    ]);
    command.args(["--batch-size", "4", "--epochs", "8"]);
    succeed(&mut command);
    let losses = losses(&out);
    let of = |text: &String| text.parse::<f64>().unwrap();
    assert!(
        of(losses.last().unwrap()) < 0.3 * of(&losses[0]),
        "{losses:?}"
    );
    let mut generate = lora([
        "generate",
        "--prompt",
        "Aromi is a",
        "--max-new-tokens",
        "12",
    ]);
    let text = succeed(generate.arg("--model").arg(out.join("model")));
    assert!(text.contains("Aromi is a pub in the"), "{text}");
    // The same model in half precision.
    let half = dir.path().join("half");
    let mut convert = lora(["merge", "--dtype", "f16"]);
    succeed(
        convert
            .arg("--model")
            .arg(out.join("model"))
            .arg("--output")
            .arg(&half),
    );
    let inspected = succeed(lora(["inspect"]).arg(half));
    assert!(inspected.contains("28 F16"), "{inspected}");
}

/// Runs the README's commands for a model and data of one's own, on `model` and `data` under the names they have there.
pub fn readme(kind: &str, model: &Path, data: &Path) -> usize {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let block = readme.split(&format!("<!-- own {kind}")).nth(1).unwrap();
    let block = block.split("```sh\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap().replace("\\\n", " ");
    let dir = tempfile::tempdir().unwrap();
    let name = block.split("--model ").nth(1).unwrap();
    let copy = dir.path().join(name.split(' ').next().unwrap());
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(model).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    for name in ["train.jsonl", "valid.jsonl"] {
        std::fs::copy(data, dir.path().join(name)).unwrap();
    }
    let prompts = "{\"prompt\": \"Aromi is a\", \"adapter\": \"b\"}\n{\"prompt\": \"Once\"}\n";
    write(dir.path(), "prompts.jsonl", prompts);
    let lines = block.lines();
    lines
        .map(|line| {
            let line = line.strip_prefix("cargo run --release -- ").unwrap();
            // Every second part stands in quotation marks.
            let parts = line.split('"').enumerate();
            let words = parts.flat_map(|(index, part)| match index % 2 {
                0 => part.split_whitespace().collect(),
                _ => vec![part],
            });
            succeed(lora(words).current_dir(dir.path()));
        })
        .count()
}

#[test]
fn the_commands_of_the_readme_work_on_files_of_ones_own() {
    assert_eq!(readme("gpt2", &model(), &data()), 6);
    assert_eq!(readme("kinds", &model(), &data()), 8);
    assert_eq!(readme("many", &model(), &data()), 6);
    let dir = tempfile::tempdir().unwrap();
    let roberta = encoders::encoder("roberta", dir.path());
    assert_eq!(
        readme("encoder", &roberta, &encoders::data("texts.jsonl")),
        4
    );
}
