//! Sweeps: every combination is a run of its own, told in a table, and resumed.

use crate::common::{fail, fixtures, json_of, lora, metrics, model, succeed, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn recipe(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("recipe.toml");
    let data = fixtures().join("train20/train.jsonl");
    let text = format!(
        "model = {:?}\ndata = {data:?}\neval_data = {data:?}\noutput = \"out\"\ndevice = \"flex\"\nmax_length = 48\n\
         alpha = 6\nlr = 1e-2\nmax_steps = 3\nsave_steps = 2\n",
        model()
    );
    fs::write(&path, text).unwrap();
    path
}

fn sweep(recipe: &Path, args: &[&str]) -> Command {
    let mut command = lora(["sweep"]);
    command.arg(recipe).args(args);
    command
}

/// Compares values, numbers up to the last bits, which a reader of JSON may round otherwise.
fn are_same(first: &Value, second: &Value) -> bool {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            let mut keys = first.keys().chain(second.keys());
            keys.all(|key| match (first.get(key), second.get(key)) {
                (Some(first), Some(second)) => are_same(first, second),
                _ => false,
            })
        }
        (Value::Number(first), Value::Number(second)) => {
            let (first, second) = (first.as_f64().unwrap(), second.as_f64().unwrap());
            (first - second).abs() <= 1e-12 * first.abs()
        }
        _ => first == second,
    }
}

const GRID: [&str; 6] = [
    "--grid",
    "targets=c_attn[q]|c_attn[q,v]",
    "--grid",
    "rank=1,2",
    "--seeds",
    "2",
];

#[test]
fn each_combination_is_a_run_and_the_table_has_their_means() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path());
    let output = succeed(sweep(&recipe, &GRID).arg("--json"));
    let report = json_of(&output);
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    assert_eq!(groups[3]["values"], serde_json::json!(["c_attn[q,v]", "2"]));
    // Two layers, two slices, each with A [24, 2] and B [2, 24].
    assert_eq!(groups[3]["parameters"], 2 * 2 * 2 * (24 * 2));
    let runs = report["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 8);
    for (group, runs) in groups.iter().zip(runs.chunks(2)) {
        let losses: Vec<f64> = runs
            .iter()
            .map(|run| {
                // Those of the run's own file.
                let lines = fs::read_to_string(
                    Path::new(run["dir"].as_str().unwrap()).join("metrics.jsonl"),
                )
                .unwrap();
                let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
                assert_eq!(last["after"]["loss"], run["metrics"]["loss"]);
                last["after"]["loss"].as_f64().unwrap()
            })
            .collect();
        assert_ne!(losses[0], losses[1], "the seeds differ");
        let spread = &group["metrics"]["loss"];
        let mean = (losses[0] + losses[1]) / 2.0;
        let deviation = (losses[0] - losses[1]).abs() / 2f64.sqrt();
        assert!((spread["mean"].as_f64().unwrap() - mean).abs() < 1e-12);
        assert!((spread["deviation"].as_f64().unwrap() - deviation).abs() < 1e-12);
        assert_eq!(spread["count"], 2);
    }
    assert!(
        output.contains(" ± ") && output.contains("c_attn[q,v]"),
        "{output}"
    );

    // A second sweep does not touch the runs, and a resumed one leaves complete ones as they are.
    fail(&mut sweep(&recipe, &GRID), 1, &["runs", "already exists"]);
    let broken = Path::new(runs[2]["dir"].as_str().unwrap());
    let whole = metrics(broken);
    let path = broken.join("metrics.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = lines
        .lines()
        .filter(|line| !line.contains("\"step\":3"))
        .collect();
    fs::write(&path, kept.join("\n") + "\n").unwrap();
    fs::remove_dir_all(broken.join("checkpoints/step-00000003")).unwrap();
    let unstarted = Path::new(runs[7]["dir"].as_str().unwrap());
    fs::remove_dir_all(unstarted).unwrap();
    let time = |dir: &str| {
        fs::metadata(Path::new(dir).join("metrics.jsonl"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let untouched = runs[0]["dir"].as_str().unwrap();
    let before = time(untouched);
    let output = succeed(sweep(&recipe, &GRID).args(["--resume", "--json"]));
    assert_eq!(time(untouched), before);
    let again = json_of(&output);
    for (run, again) in runs.iter().zip(again["runs"].as_array().unwrap()) {
        assert_eq!(run["metrics"], again["metrics"], "{run}");
    }
    let numbers = |lines: &[Value]| -> Vec<String> {
        lines
            .iter()
            .filter_map(|line| Some(line.get("loss")?.to_string()))
            .collect()
    };
    assert_eq!(numbers(&metrics(broken)), numbers(&whole));

    // More values go on from the runs that are there; other options are no continuation.
    let more = [
        "--grid",
        "targets=c_attn[q]|c_attn[q,v]",
        "--grid",
        "rank=1,2,3",
        "--seeds",
        "1",
        "--resume",
    ];
    let output = succeed(&mut sweep(&recipe, &more));
    let table = output.lines().take_while(|line| !line.starts_with("run "));
    assert_eq!(table.count(), 7, "{output}");
    let other = [&GRID[..], &["--resume", "--lr", "1e-3"]].concat();
    fail(
        &mut sweep(&recipe, &other),
        2,
        &["resume", "lr = 0.01", "lr = 0.001"],
    );
}

#[test]
fn a_failed_run_is_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path());
    // The matrices of the model have no rank of 100.
    let args = [
        "--zip",
        "rank=1,100,2",
        "--zip",
        "targets=c_attn[q]|c_attn[q]|c_attn[q,v]",
        "--json",
    ];
    let output = sweep(&recipe, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let report = json_of(&printed);
    let states: Vec<&str> = report["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|run| run["state"].as_str())
        .collect();
    assert_eq!(states, ["complete", "failed", "complete"]);
    assert!(
        report["runs"][1]["error"]
            .as_str()
            .unwrap()
            .contains("rank 100"),
        "{report}"
    );
    assert!(printed.contains("failed: "), "{printed}");
    let saved: Value =
        serde_json::from_slice(&fs::read(dir.path().join("out/sweep.json")).unwrap()).unwrap();
    assert_eq!(saved, report);
}

#[test]
fn a_slip_in_the_grid_is_told_before_any_run() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path());
    for (args, words) in [
        (["--grid", "rank=1,2", "--grid", "rnak=1"], "rnak"),
        (
            ["--grid", "rank=1,2", "--grid", "dropout=0.5|1.5"],
            "dropout",
        ),
        (["--grid", "rank=1,2", "--zip", "rank=1,2"], "twice"),
        (["--grid", "rank=1,2", "--seeds", "0"], "seeds"),
    ] {
        fail(&mut sweep(&recipe, &args), 2, &[words]);
        assert!(!dir.path().join("out").exists(), "{words}");
    }
}

#[test]
fn a_diverged_run_counts_the_same_in_a_resumed_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path());
    // The weights are beyond f32 after a step with the second rate.
    let args = ["--grid", "lr=1e-2,1e30", "--max-steps", "1", "--json"];
    let first = json_of(&succeed(&mut sweep(&recipe, &args)));
    let diverged = &first["runs"][1];
    assert_eq!(diverged["state"], "complete", "{diverged}");
    assert_eq!(diverged["metrics"]["loss"], Value::Null, "{diverged}");
    let resumed = json_of(&succeed(sweep(&recipe, &args).arg("--resume")));
    for index in 0..2 {
        for of in ["groups", "runs"] {
            let [now, before] = [&resumed, &first].map(|report| &report[of][index]["metrics"]);
            assert!(are_same(now, before), "{of}: {now} is not {before}");
        }
    }

    // Of two seeds, one counts.
    let run = Path::new(first["runs"][0]["dir"].as_str().unwrap());
    let other = run.with_file_name("seed-43_lr-1e-2");
    let both = ["--grid", "lr=1e-2,1e30", "--max-steps", "1", "--seeds", "2"];
    succeed(sweep(&recipe, &both).arg("--resume"));
    let path = other.join("metrics.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    let last = lines.lines().last().unwrap();
    let mut value: Value = serde_json::from_str(last).unwrap();
    value["after"]["loss"] = Value::Null;
    fs::write(&path, lines.replace(last, &value.to_string())).unwrap();
    let output = succeed(sweep(&recipe, &both).args(["--resume", "--json"]));
    assert!(output.contains("(1 of 2)"), "{output}");
    let loss = &json_of(&output)["groups"][0]["metrics"]["loss"];
    assert_eq!(loss["count"], 1);
    let own = &first["runs"][0]["metrics"]["loss"];
    assert!(are_same(&loss["mean"], own), "{loss} is not {own}");
}

#[test]
fn results_have_the_runs_of_one_sweep_and_name_those_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path());
    let args = |more: &[&'static str]| [&["--max-steps", "1", "--json"], more].concat();
    let grid = args(&["--grid", "rank=1,2", "--seeds", "2"]);
    let first = json_of(&succeed(&mut sweep(&recipe, &grid)));
    // Fewer values and seeds: the complete runs stay in the results.
    let fewer = args(&["--grid", "rank=2,3", "--resume"]);
    let output = json_of(&succeed(&mut sweep(&recipe, &fewer)));
    let saved = || -> Value {
        serde_json::from_slice(&fs::read(dir.path().join("out/sweep.json")).unwrap()).unwrap()
    };
    assert_eq!(saved(), output);
    assert_eq!(output["runs"].as_array().unwrap().len(), 5);
    let group = |report: &Value, rank: &str| {
        let groups = report["groups"].as_array().unwrap();
        let found = groups.iter().find(|group| group["values"][0] == rank);
        found.unwrap().clone()
    };
    for rank in ["1", "2"] {
        let [now, before] = [&output, &first].map(|report| group(report, rank)["metrics"].clone());
        assert!(are_same(&now, &before), "{now} is not {before}");
    }
    assert_eq!(group(&output, "3")["complete"], 1);
    // Another grid is no continuation, nor are other options.
    let other = args(&["--grid", "alpha=2,4", "--resume"]);
    fail(
        &mut sweep(&recipe, &other),
        2,
        &["resume", "over rank", "over alpha"],
    );
    let other = args(&["--grid", "rank=4", "--resume", "--lr", "1e-3"]);
    fail(&mut sweep(&recipe, &other), 2, &["resume", "lr = 0.001"]);
    assert_eq!(saved(), output);

    let other = args(&["--grid", "alpha=2,4", "--overwrite"]);
    let report = json_of(&succeed(&mut sweep(&recipe, &other)));
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    let others = report["others"].as_array().unwrap();
    assert_eq!((others.len(), &others[0]), (5, &"seed-42_rank-1".into()));
    let page = dir.path().join("report.html");
    let mut command = lora(["report"]);
    command
        .arg(dir.path().join("out"))
        .arg("--output")
        .arg(&page);
    let output = command.output().unwrap();
    let told = text(&output);
    assert!(
        told.contains("2 runs; left out, of another sweep: seed-42_rank-1, "),
        "{told}"
    );
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("seed-42_alpha-4") && !page.contains("seed-42_rank-1"));
}

#[test]
fn a_sweep_without_scores_is_refused_before_any_run() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path());
    let whole = fs::read_to_string(&recipe).unwrap();
    let kept: Vec<&str> = whole
        .lines()
        .filter(|line| !line.starts_with("eval_data"))
        .collect();
    fs::write(&recipe, kept.join("\n")).unwrap();
    fail(
        &mut sweep(&recipe, &["--grid", "rank=1,2"]),
        2,
        &["eval_data", "score"],
    );
    assert!(!dir.path().join("out").exists());
}
