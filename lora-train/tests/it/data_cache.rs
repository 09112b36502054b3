//! Training data that is tokenized once into a mapped file: the results are those of data in memory.

use crate::common::{adapter, encoders, fail, json_of, losses, metrics, succeed, texts, train};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DISK: [&str; 2] = ["--data-cache", "disk"];

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn run(data: &[String], output: &Path, more: &[&str]) -> Command {
    let mut command = train(Path::new(&data[0]), output);
    for path in &data[1..] {
        command.args(["--data", path]);
    }
    command.args(["--rank", "2", "--batch-size", "3", "--epochs", "2"]);
    command.args(more);
    command
}

fn tokens(output: &Path) -> PathBuf {
    output.join("tokens/train.tokens")
}

fn evaluations(output: &Path) -> Vec<String> {
    let lines = metrics(output).into_iter();
    lines.map(|line| line["eval"].to_string()).collect()
}

#[test]
fn results_on_disk_equal_those_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let given = texts().display().to_string();
    let lines = fs::read_to_string(texts()).unwrap();
    let chat = |n: usize| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"a pub {n}\"}}, {{\"role\": \"assistant\", \"content\": \"the {n}\"}}, \
             {{\"role\": \"user\", \"content\": \"b\"}}, {{\"role\": \"assistant\", \"content\": \"cheap\"}}]}}\n"
        )
    };
    let chats: String = (0..9).map(chat).collect();
    let chats = write(dir.path(), "chats.jsonl", &chats)
        .display()
        .to_string();
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let template = write(dir.path(), "template.jinja", template);
    let template = template.display().to_string();
    let plain = write(dir.path(), "plain.txt", &lines).display().to_string();
    let few: Vec<&str> = lines.lines().take(9).collect();
    let few = write(dir.path(), "few.jsonl", &few.join("\n"));
    let shares = [format!("{given}:2"), format!("{}:1", few.display())];
    let cases: [(&str, &[String], &[&str]); 5] = [
        ("pairs", std::slice::from_ref(&given), &["--loss-on-prompt"]),
        ("chats", &[chats], &["--chat-template", &template]),
        (
            "stream",
            &[plain],
            &["--concatenate", "--format", "text", "--documents", "line"],
        ),
        (
            "split",
            std::slice::from_ref(&given),
            &["--eval-split", "5", "--max-examples", "12"],
        ),
        ("mix", &shares, &["--packing", "--no-group-by-length"]),
    ];
    for (name, data, options) in cases {
        let [memory, disk] = ["memory", "disk"].map(|place| {
            let output = dir.path().join(format!("{name}-{place}"));
            let mut command = run(data, &output, options);
            succeed(command.args(["--data-cache", place]));
            output
        });
        assert!(losses(&memory).len() > 2, "{name}");
        assert_eq!(losses(&memory), losses(&disk), "{name}");
        assert_eq!(evaluations(&memory), evaluations(&disk), "{name}");
        assert_eq!(
            adapter(&memory.join("adapter")),
            adapter(&disk.join("adapter")),
            "{name}"
        );
        assert!(!memory.join("tokens").exists() && tokens(&disk).exists());
        // A checkpoint of one is that of the other.
        let mut command = run(data, &disk, options);
        succeed(command.args(["--data-cache", "memory", "--resume"]));
    }
}

#[test]
fn the_tokens_are_used_again_until_the_data_or_the_options_change() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(texts()).unwrap();
    let data = write(dir.path(), "data.jsonl", &text);
    let given = [data.display().to_string()];
    let output = dir.path().join("run");
    let options = ["--eval-split", "3", "--save-steps", "4"];
    let again = |more: &[&str]| {
        let mut command = run(&given, &output, &options);
        succeed(command.args(DISK).args(more))
    };
    let first = again(&[]);
    let shown = tokens(&output).display().to_string();
    assert!(
        first.contains(&format!("tokens    {shown}: 25 examples in ")),
        "{first}"
    );
    let (whole, report) = (
        adapter(&output.join("adapter")),
        "data.jsonl: 25 examples, 9 cut",
    );
    assert!(first.contains(report), "{first}");
    let written = fs::read(tokens(&output)).unwrap();

    let reused = format!("tokens    {shown}: 25 examples of an earlier run");
    let last = fs::read_dir(output.join("checkpoints")).unwrap();
    let last = last.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::remove_dir_all(last).unwrap();
    for more in [&["--resume"][..], &["--overwrite"]] {
        let printed = again(more);
        for part in [&*reused, report, "eval data 3 of 28 records"] {
            assert!(printed.contains(part), "{printed}");
        }
        assert_eq!(adapter(&output.join("adapter")), whole);
    }
    // A copy of the data at another place.
    let copy = write(dir.path(), "copy.jsonl", &text);
    let mut command = run(&[copy.display().to_string()], &output, &options);
    let printed = succeed(command.args(DISK).arg("--overwrite"));
    assert!(printed.contains(&reused), "{printed}");

    let anew = |printed: String, reason: &str| {
        let line = format!("tokens    {shown}: {reason}");
        assert!(printed.contains(&line), "{printed}");
        assert!(printed.contains("it is written anew"), "{printed}");
    };
    for more in [
        &["--no-eos"][..],
        &["--loss-on-prompt"],
        &["--eval-split-seed", "3"],
    ] {
        let printed = again(&[&["--overwrite"], more].concat());
        anew(printed, "it is of other data or options");
    }
    anew(again(&["--overwrite"]), "it is of other data or options");
    assert_eq!(fs::read(tokens(&output)).unwrap(), written);
    let mut damaged = written.clone();
    damaged[80] ^= 1;
    fs::write(tokens(&output), &damaged).unwrap();
    anew(again(&["--overwrite"]), "it is damaged: ");
    fs::write(tokens(&output), &written[..100]).unwrap();
    anew(again(&["--overwrite"]), "it is damaged: ");
    assert_eq!(fs::read(tokens(&output)).unwrap(), written);
    write(dir.path(), "data.jsonl", &text.replacen("coffee", "tea", 1));
    anew(again(&["--overwrite"]), "it is of other data or options");
    // A run that fails leaves the tokens of the one before.
    let before = fs::read(tokens(&output)).unwrap();
    write(dir.path(), "data.jsonl", &(text + "{\"tex\": 1}\n"));
    let mut command = run(&given, &output, &["--overwrite"]);
    fail(command.args(DISK), 1, &["data.jsonl, line 29"]);
    assert_eq!(fs::read(tokens(&output)).unwrap(), before);
    assert_eq!(fs::read_dir(output.join("tokens")).unwrap().count(), 1);
}

#[test]
fn what_is_read_as_a_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("run");
    let dart = "[{\"tripleset\": [[\"A\", \"b\", \"c\"]], \"annotations\": [{\"text\": \"a\", \"source\": \"s\"}]}]";
    let dart = write(dir.path(), "dart.json", dart).display().to_string();
    fail(
        run(&[dart], &output, &[]).args(DISK),
        2,
        &["data_cache", "`dart`, which is read as a whole"],
    );
    let base = encoders::encoder("bert", dir.path());
    let mut command = encoders::train(&base, &texts(), &output);
    fail(
        command.args(DISK),
        2,
        &["data_cache", "for language models"],
    );
}

/// Four times the data: in memory it takes so much more, and on disk a small part of that.
#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let line =
        |n: usize| format!("{{\"text\": \"The pub {n} is a cheap place near the river .\"}}\n");
    let peak = |lines: usize, place: &str| {
        let text: String = (0..lines).map(line).collect();
        let data = write(dir.path(), "data.jsonl", &text).display().to_string();
        let output = dir.path().join(format!("{lines}-{place}"));
        let mut command = run(
            &[data],
            &output,
            &["--max-steps", "1", "--no-group-by-length"],
        );
        let printed = succeed(command.args(["--json", "--data-cache", place]));
        json_of(&printed)["peak_mib"].as_f64().unwrap()
    };
    let growth = |place| peak(80_000, place) - peak(20_000, place);
    let (memory, disk) = (growth("memory"), growth("disk"));
    assert!(memory > 10.0, "{memory} MiB");
    assert!(
        disk < memory / 4.0,
        "{disk} MiB, and {memory} MiB in memory"
    );
}
