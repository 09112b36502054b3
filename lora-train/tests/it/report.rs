//! The page of a report has the numbers of `metrics.jsonl`, and event files those that TensorBoard reads.

use crate::common::encoders;
use crate::common::{fail, fixtures, lora, metrics, succeed, train};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Exact values of the cells in the table of a class, by row.
fn cells(page: &str, class: &str) -> Vec<Vec<f64>> {
    let start = page.find(&format!("<table class=\"{class}\">")).unwrap();
    let table = &page[start..start + page[start..].find("</table>").unwrap()];
    let body = table.split_once("<tbody>").unwrap().1;
    let rows = body.split("</tr>").filter(|row| row.contains("<tr>"));
    rows.map(|row| {
        let values = row.split("data-value=\"").skip(1);
        values
            .map(|value| value.split('"').next().unwrap().parse().unwrap())
            .collect()
    })
    .collect()
}

fn trained(dir: &Path, args: &[&str]) {
    let data = fixtures().join("train20/train.jsonl");
    let mut command = train(&data, dir);
    command.arg("--eval-data").arg(&data);
    command.args([
        "--max-steps",
        "6",
        "--eval-steps",
        "2",
        "--lr",
        "1e-2",
        "--generate-prompts",
        "4",
        "--max-new-tokens",
        "6",
    ]);
    succeed(command.args(args));
}

fn page(runs: &[&Path], output: &Path) -> String {
    let mut command = lora(["report"]);
    succeed(command.args(runs).arg("--output").arg(output));
    fs::read_to_string(output).unwrap()
}

#[test]
fn the_page_has_the_numbers_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    trained(&first, &["--rank", "2"]);
    trained(&second, &["--rank", "4"]);
    let output = dir.path().join("report.html");
    let page = page(&[&first, &second], &output);
    let lines = metrics(&first);
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    let steps: Vec<&Value> = lines
        .iter()
        .filter(|line| line.get("loss").is_some())
        .collect();
    let shown = cells(&page, "steps");
    assert_eq!(shown.len(), steps.len());
    for (row, step) in shown.iter().zip(&steps) {
        let keys = ["step", "epoch", "loss", "lr", "grad_norm", "seconds"];
        assert_eq!(*row, keys.map(|key| number(step, key)), "{step}");
    }
    let evaluations: Vec<&Value> = lines
        .iter()
        .filter(|line| line.get("eval").is_some())
        .collect();
    for (row, evaluation) in cells(&page, "evaluations").iter().zip(&evaluations) {
        let mut expected = vec![number(evaluation, "step")];
        expected.extend(
            evaluation["eval"]
                .as_object()
                .unwrap()
                .values()
                .filter_map(Value::as_f64),
        );
        expected.push(number(evaluation, "eval_seconds"));
        assert_eq!(*row, expected);
    }
    // The scores of both runs: before and after, without the change.
    let all = |dir: &Path| -> Vec<Value> {
        let text = fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let (of_first, of_second) = (all(&first), all(&second));
    let names = of_first[0]["before"].as_object().unwrap().keys();
    for (name, row) in names.zip(cells(&page, "scores")) {
        let values = [&of_first, &of_second].map(|lines| {
            [
                &lines[0]["before"][name],
                &lines[lines.len() - 1]["after"][name],
            ]
            .map(|v| v.as_f64().unwrap())
        });
        assert_eq!(row, values.concat(), "{name}");
    }
    let results = cells(&page, "results");
    assert_eq!(
        results[1][1],
        of_second.last().unwrap()["trainable"].as_f64().unwrap()
    );
    let last = of_first.last().unwrap();
    assert_eq!(
        (&last["metric"], &last["on_host"]),
        (&"bleu".into(), &true.into())
    );
    assert!(
        page.contains("<td>bleu</td>"),
        "the score of generated texts"
    );
    let text = of_first.last().unwrap()["texts"][0]["references"][0]
        .as_str()
        .unwrap()
        .trim()
        .to_string();
    assert!(page.contains(&text), "{text}");
    // Options that differ come first.
    let settings = page.split("class=\"settings\"").nth(1).unwrap();
    let first_option = settings.split("<th scope=\"row\"").nth(1).unwrap();
    assert!(
        first_option.starts_with(" class=\"differs\">rank<"),
        "{first_option}"
    );
    for outside in ["<script", "http://", "https://", "src=", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let mut again = lora(["report"]);
    again.arg(&first).arg("--output").arg(&output);
    fail(&mut again, 1, &["report.html"]);
    succeed(again.arg("--overwrite"));
}

#[test]
fn a_classification_has_its_confusion_matrix_and_hostile_labels_are_text() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data.jsonl");
    let hostile = "<img src=x onerror=alert(1)>";
    let line =
        |text: &str, label: &str| serde_json::json!({"text": text, "label": label}).to_string();
    let lines = [
        line("good food", hostile),
        line("bad food", "b"),
        line("good", hostile),
    ];
    fs::write(&data, lines.join("\n")).unwrap();
    let out = dir.path().join("<b>run");
    let mut command = lora(["train", "--device", "flex", "--max-steps", "2"]);
    command
        .arg("--model")
        .arg(encoders::encoder("bert", dir.path()));
    command
        .arg("--data")
        .arg(&data)
        .arg("--eval-data")
        .arg(&data)
        .arg("--output")
        .arg(&out);
    succeed(&mut command);
    let page = page(&[&out], &dir.path().join("report.html"));
    assert!(!page.contains("<img") && !page.contains("<b>run"), "markup");
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    let matrix = page.split("class=\"confusion\"").nth(1).unwrap();
    let counts = matrix.split("data-value=\"").skip(1).take(4);
    let counts: usize = counts
        .map(|c| c.split('"').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(counts, 3);
}

#[test]
fn a_sweep_is_one_page_and_what_is_no_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for name in ["a", "b"] {
        let run = out.join("runs").join(name);
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"loss\":2.5}\n").unwrap();
    }
    let page = page(&[&out], &dir.path().join("report.html"));
    assert!(
        page.contains("<h1>2 runs</h1>") && page.contains("not ended"),
        "{page}"
    );
    let mut command = lora(["report", "--output"]);
    command
        .arg(dir.path().join("other.html"))
        .arg(dir.path().join("nowhere"));
    fail(&mut command, 2, &["nowhere", "metrics.jsonl"]);
    fs::write(
        out.join("runs/b/metrics.jsonl"),
        "{\"step\":1,\"loss\":2.5}\nbroken\n",
    )
    .unwrap();
    let mut command = lora(["report", "--output"]);
    command.arg(dir.path().join("other.html")).arg(&out);
    fail(&mut command, 1, &["metrics.jsonl, line 2"]);
}

#[test]
fn tensorboard_gets_a_file_for_each_session() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    trained(&out, &["--tensorboard", "--save-steps", "3"]);
    let folder = out.join("tensorboard");
    let files = || {
        fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect::<Vec<_>>()
    };
    let [file] = &files()[..] else {
        panic!("{:?}", files())
    };
    let bytes = fs::read(file).unwrap();
    let count = |tag: &str| {
        bytes
            .windows(tag.len())
            .filter(|window| *window == tag.as_bytes())
            .count()
    };
    assert_eq!((count("train/loss"), count("train/grad_norm")), (6, 6));
    // Before the first step, and three evaluations.
    assert_eq!(count("eval/perplexity"), 4);
    // The option changes no number: a run is resumed with it and without.
    let data = fixtures().join("train20/train.jsonl");
    let mut command = train(&data, &out);
    command.arg("--eval-data").arg(&data);
    command.args([
        "--max-steps",
        "6",
        "--eval-steps",
        "2",
        "--lr",
        "1e-2",
        "--save-steps",
        "3",
        "--resume",
    ]);
    command.args(["--generate-prompts", "4", "--max-new-tokens", "6"]);
    succeed(&mut command);
    assert_eq!(files().len(), 1);
    succeed(command.arg("--tensorboard"));
    assert_eq!(files().len(), 2);
    let recipe = fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(recipe.contains("tensorboard = true"), "{recipe}");
}
