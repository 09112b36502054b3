//! Tasks of encoders from the command line: tags of words, scores, GLUE, and predictions of each.

use crate::common::encoders::{
    FAMILIES, data, encoder, eval, learn, lines, numbers, outcome, predict, same_metrics, stdout,
    train,
};
use crate::common::{adapter, fail, fixtures, lora, succeed};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use test_support::tensors::json;

#[test]
fn words_are_tagged() {
    let dir = tempfile::tempdir().unwrap();
    let (tags, run) = (data("tags.conll"), dir.path().join("run"));
    let file = std::fs::read_to_string(&tags).unwrap();
    let sentences: Vec<Vec<(&str, &str)>> = file
        .split("\n\n")
        .map(|sentence| {
            sentence
                .lines()
                .map(|line| line.split_once(' ').unwrap())
                .collect()
        })
        .collect();
    for family in FAMILIES {
        let model = encoder(family, dir.path());
        let mut command = learn(&model, &tags, &run);
        command.args([
            "--task",
            "token-classification",
            "--epochs",
            "6",
            "--overwrite",
        ]);
        command.args(["--labels", "O,B-PER,I-PER,B-LOC,I-LOC", "--eval-data"]);
        let outcome = outcome(command.arg(&tags));
        let loss = |when: &str| outcome[when]["loss"].as_f64().unwrap();
        assert!(loss("after") < loss("before"), "{family}: {outcome}");
        let config = json(&run.join("adapter/adapter_config.json"));
        assert_eq!(config["task_type"], "TOKEN_CLS");

        // The task is told by the adapter.
        let predictions = dir.path().join(format!("{family}.jsonl"));
        let mut command = eval(&model, &tags);
        command.arg("--adapter").arg(run.join("adapter"));
        let output = succeed(command.arg("--predictions").arg(&predictions));
        same_metrics(&output, &outcome);
        assert!(output.contains("micro_f1"), "{output}");
        let evaluated = lines(&predictions);
        assert_eq!(evaluated.len(), sentences.len());
        for (line, sentence) in evaluated.iter().zip(&sentences) {
            let expected: Vec<Value> = sentence.iter().map(|(_, tag)| json!(tag)).collect();
            let found = line["label"].as_array().unwrap();
            // A word of twenty letters may be so many tokens that the end is cut off.
            assert!(found.len() + 4 > expected.len(), "{family}: {line}");
            assert_eq!(found[..], expected[..found.len()]);
            assert_eq!(line["logits"].as_array().unwrap().len(), found.len());
        }

        // The same from words alone, in lines and as data without tags.
        let texts: Vec<String> = sentences
            .iter()
            .map(|sentence| {
                sentence
                    .iter()
                    .map(|(word, _)| *word)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        let plain = dir.path().join("words.txt");
        std::fs::write(&plain, texts.join("\n")).unwrap();
        let bare = dir.path().join("bare.jsonl");
        let rows = texts
            .iter()
            .map(|text| json!({"tokens": text.split(' ').collect::<Vec<_>>()}).to_string() + "\n");
        std::fs::write(&bare, rows.collect::<String>()).unwrap();
        for (option, file) in [("--texts", &plain), ("--data", &bare), ("--data", &tags)] {
            let mut command = predict(&model);
            command.arg("--adapter").arg(run.join("adapter"));
            let output = stdout(command.arg("--json").arg(option).arg(file));
            let predicted: Vec<Value> = output
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            assert_eq!(predicted.len(), sentences.len(), "{family} {option}");
            for ((line, evaluated), sentence) in predicted.iter().zip(&evaluated).zip(&sentences) {
                let tags = line["prediction"].as_array().unwrap();
                let read = evaluated["prediction"].as_array().unwrap();
                assert_eq!(tags.len(), sentence.len(), "{family} {option}");
                assert_eq!(tags[..read.len()], read[..], "{family} {option}");
                assert!(tags[read.len()..].iter().all(Value::is_null), "{line}");
            }
        }
    }
}

/// `config.json` says what the head of a merged model is for.
#[test]
fn a_merged_model_for_words_is_known_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (tags, run) = (data("tags.conll"), dir.path().join("run"));
    let model = encoder("deberta", dir.path());
    let mut command = learn(&model, &tags, &run);
    command.args([
        "--task",
        "token-classification",
        "--max-steps",
        "3",
        "--merge",
    ]);
    let outcome = outcome(command.arg("--eval-data").arg(&tags));
    let merged = run.join("merged");
    same_metrics(&succeed(&mut eval(&merged, &tags)), &outcome);
    // Converted too it is one; and it is trained further as one.
    let half = dir.path().join("half");
    let mut convert = lora(["merge", "--device", "flex", "--dtype", "bf16", "--model"]);
    succeed(convert.arg(&merged).arg("--output").arg(&half));
    let tagged = stdout(predict(&half).args(["--text", "Ada lives here"]));
    assert_eq!(tagged.trim().split(' ').count(), 3);
    assert!(tagged.starts_with("Ada/"), "{tagged}");
    let mut command = learn(&half, &tags, &dir.path().join("more"));
    succeed(command.args(["--max-steps", "1"]));
}

#[test]
fn words_that_are_cut_off_or_have_no_token_have_no_tag() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("bert", dir.path());
    let run = dir.path().join("run");
    let mut command = learn(&model, &data("tags.conll"), &run);
    succeed(command.args(["--task", "token-classification", "--max-steps", "2"]));
    let tagged = |text: &str, more: &[&str]| {
        let mut command = predict(&model);
        command.arg("--adapter").arg(run.join("adapter")).args(more);
        stdout(command.args(["--text", text]))
    };
    // BERT's tokenizer drops a joiner of no width.
    let output = tagged("the \u{200d} river", &["--json"]);
    let line: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(line["words"].as_array().unwrap().len(), 3);
    let tags = line["prediction"].as_array().unwrap();
    assert!(
        tags[0].is_string() && tags[1].is_null() && tags[2].is_string(),
        "{line}"
    );
    let output = tagged("the the the the", &["--max-length", "4"]);
    let words: Vec<&str> = output.trim().split(' ').collect();
    assert!(
        words[0].starts_with("the/") && words[1].starts_with("the/"),
        "{output}"
    );
    assert_eq!(words[2..], ["the", "the"]);
}

#[test]
fn scores_are_learned_and_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let (scores, run) = (data("scores.jsonl"), dir.path().join("run"));
    for family in FAMILIES {
        let model = encoder(family, dir.path());
        let mut command = learn(&model, &scores, &run);
        command.args([
            "--task",
            "regression",
            "--epochs",
            "10",
            "--overwrite",
            "--merge",
        ]);
        command.args(["--keep-best", "--eval-data"]);
        let outcome = outcome(command.arg(&scores));
        let mse = |when: &str| outcome[when]["mse"].as_f64().unwrap();
        assert!(mse("after") < mse("before"), "{family}: {outcome}");
        let mut command = eval(&model, &scores);
        let predictions = dir.path().join(format!("{family}.jsonl"));
        command.arg("--adapter").arg(run.join("adapter"));
        let output = succeed(command.arg("--predictions").arg(&predictions));
        same_metrics(&output, &outcome);
        let found = lines(&predictions);
        for (line, record) in found.iter().zip(lines(&scores)) {
            assert_eq!(line["label"], record["label"]);
            assert_eq!(
                numbers(&line["logits"]),
                [line["prediction"].as_f64().unwrap()]
            );
        }
        // The merged model is known to give scores.
        let output = stdout(
            predict(&run.join("merged"))
                .arg("--json")
                .arg("--data")
                .arg(&scores),
        );
        for (line, evaluated) in output.lines().zip(&found) {
            let line: Value = serde_json::from_str(line).unwrap();
            let [a, b] = [&line, evaluated].map(|line| line["prediction"].as_f64().unwrap());
            assert!((a - b).abs() < 1e-5, "{family}: {a} {b}");
        }
    }
}

fn glue(task: &str, file: &str) -> PathBuf {
    fixtures().join("glue/glue").join(task).join(file)
}

#[test]
fn tasks_of_glue_train_on_their_files_and_write_submissions() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("bert", dir.path());
    let names = ["entailment", "neutral", "contradiction"];
    for (task, folder, train_file, test, submission, metric) in [
        (
            "cola",
            "cola",
            "train.tsv",
            "test.tsv",
            "CoLA.tsv",
            "matthews_correlation",
        ),
        ("mrpc", "mrpc", "train.tsv", "test.tsv", "MRPC.tsv", "f1"),
        (
            "stsb",
            "stsb",
            "train.tsv",
            "test.tsv",
            "STS-B.tsv",
            "pearson",
        ),
        (
            "mnli",
            "mnli",
            "train.tsv",
            "test_matched.tsv",
            "MNLI-m.tsv",
            "accuracy",
        ),
        (
            "mnli-mm",
            "mnli",
            "dev_mismatched.tsv",
            "test_mismatched.tsv",
            "MNLI-mm.tsv",
            "accuracy",
        ),
    ] {
        let run = dir.path().join(task);
        let file = glue(folder, train_file);
        let name = format!("glue/{task}");
        let mut command = learn(&model, &file, &run);
        command.args(["--task", &name, "--max-steps", "6", "--eval-data"]);
        let outcome = outcome(command.arg(&file));
        assert!(outcome["after"][metric].is_number(), "{task}: {outcome}");

        let mut command = eval(&model, &file);
        command
            .args(["--task", &name, "--adapter"])
            .arg(run.join("adapter"));
        same_metrics(&succeed(&mut command), &outcome);
        let to_predict = |more: &[&str]| {
            let mut command = predict(&model);
            command
                .args(["--task", &name, "--adapter"])
                .arg(run.join("adapter"));
            command.arg("--data").arg(glue(folder, test)).args(more);
            command
        };
        let answers = dir.path().join("answers");
        let output = succeed(to_predict(&["--submission"]).arg(&answers));
        assert!(output.contains(submission), "{output}");
        let file = std::fs::read_to_string(answers.join(submission)).unwrap();
        let mut rows = file.lines();
        assert_eq!(rows.next(), Some("index\tprediction"));
        let predicted = stdout(&mut to_predict(&["--json"]));
        assert_eq!(rows.clone().count(), predicted.lines().count());
        for (index, (row, line)) in rows.zip(predicted.lines()).enumerate() {
            let line: Value = serde_json::from_str(line).unwrap();
            let (id, answer) = row.split_once('\t').unwrap();
            assert_eq!(id, index.to_string());
            match (folder, &line["prediction"]) {
                ("mnli", Value::String(name)) => {
                    assert!(names.contains(&answer) && name == answer, "{row}");
                }
                ("stsb", score) => {
                    let score = score.as_f64().unwrap().clamp(0.0, 5.0);
                    assert!(
                        (answer.parse::<f64>().unwrap() - score).abs() < 6e-4,
                        "{row}"
                    );
                }
                (_, class) => {
                    let config = json(&run.join("adapter/config.json"));
                    assert_eq!(&config["id2label"][answer], class);
                }
            }
        }
        // A second submission does not replace the first unasked.
        fail(
            to_predict(&["--submission"]).arg(&answers),
            1,
            &[submission],
        );
        succeed(to_predict(&["--overwrite", "--submission"]).arg(&answers));
    }
}

#[test]
fn texts_come_from_arguments_files_and_standard_input_and_pairs_by_a_tab() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("deberta", dir.path());
    let (pairs, run) = (data("pairs.jsonl"), dir.path().join("run"));
    succeed(learn(&model, &pairs, &run).args(["--epochs", "4"]));
    let command = || {
        let mut command = predict(&model);
        command.arg("--adapter").arg(run.join("adapter"));
        command
    };
    let expected = stdout(command().arg("--json").arg("--data").arg(&pairs));
    let first: Value = serde_json::from_str(expected.lines().next().unwrap()).unwrap();
    let scores = first["scores"].as_object().unwrap();
    let names: Vec<&String> = scores.keys().collect();
    assert_eq!(names, ["contradiction", "entailment", "neutral"]);
    let sum: f64 = scores.values().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{first}");
    let best = scores
        .iter()
        .max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap()));
    assert_eq!(first["prediction"], *best.unwrap().0);

    let records = lines(&pairs);
    let word = |record: &Value, key: &str| record[key].as_str().unwrap().to_string();
    let texts: Vec<String> = records
        .iter()
        .map(|r| word(r, "text") + "\t" + &word(r, "pair"))
        .collect();
    let file = dir.path().join("texts.txt");
    // Blank lines and the ends of lines of Windows mean nothing.
    std::fs::write(&file, texts.join("\r\n\n")).unwrap();
    assert_eq!(
        stdout(command().arg("--json").arg("--texts").arg(&file)),
        expected
    );
    let mut by_argument = command();
    for text in &texts {
        by_argument.arg("--text").arg(text);
    }
    assert_eq!(stdout(by_argument.arg("--json")), expected);
    for more in [&["--json"][..], &["--json", "--texts", "-"]] {
        let mut child = command();
        let child = child
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = child.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(texts.join("\n").as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
    // For people: the class and how likely it is.
    let output = stdout(command().args(["--text", &texts[0]]));
    let (class, p) = output.trim().split_once('\t').unwrap();
    assert_eq!(first["prediction"], class);
    assert!((p.parse::<f64>().unwrap() - scores[class].as_f64().unwrap()).abs() < 6e-5);
}

/// As the authors of LoRA did RTE: from the factors that MNLI left, with a head of its own.
#[test]
fn a_task_starts_from_the_adapter_of_another_with_a_fresh_head() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["bert", "v2"] {
        let model = encoder(family, dir.path());
        let at = |name: &str| dir.path().join(format!("{family}-{name}"));
        let run = |task: &str, name: &str| {
            let mut command = train(&model, &glue(task, "train.tsv"), &at(name));
            command.args(["--task", &format!("glue/{task}")]);
            command
        };
        succeed(run("mnli", "mnli").args(["--max-steps", "5"]));
        let start = at("mnli").join("adapter");
        let mut command = run("rte", "rte");
        command
            .args(["--fresh-head", "--max-steps", "4", "--lr", "0", "--adapter"])
            .arg(&start);
        succeed(command.arg("--eval-data").arg(glue("rte", "train.tsv")));
        let (before, after) = (adapter(&start), adapter(&at("rte").join("adapter")));
        let head = |name: &str| name.contains("classifier") || name.contains("pooler");
        let factors = |tensors: &[(String, Vec<usize>, Vec<f32>)]| {
            let factors = tensors.iter().filter(|(name, ..)| !head(name));
            factors.cloned().collect::<Vec<_>>()
        };
        assert_eq!(factors(&before), factors(&after), "{family}");
        let shape = |tensors: &[(String, Vec<usize>, Vec<f32>)], end: &str| {
            let mut found = tensors.iter().filter(|(name, ..)| name.ends_with(end));
            found.next().map(|(_, shape, _)| shape.clone())
        };
        assert_eq!(shape(&before, "classifier.weight"), Some(vec![3, 8]));
        assert_eq!(shape(&after, "classifier.weight"), Some(vec![2, 8]));
        assert!(
            shape(&after, "pooler.dense.weight").is_some(),
            "{family}: it starts afresh too"
        );
        let mut command = eval(&model, &glue("rte", "train.tsv"));
        command.args(["--task", "glue/rte", "--adapter"]);
        succeed(command.arg(at("rte").join("adapter")));
        // And on from there, with the head that it has.
        let mut command = run("rte", "more");
        command.args(["--max-steps", "2", "--adapter"]);
        succeed(command.arg(at("rte").join("adapter")));
    }
}
