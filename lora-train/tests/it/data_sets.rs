//! Files of published data sets: what they become, and how bad ones are refused.

use crate::common::encoders::{data, encoder, lines, outcome, printed};
use crate::common::{fail, fixtures, json_of, lora, model, succeed};
use lora_train::data::{
    Categories, Content, PairTemplate, Record, SourceOptions, group_references, read_records,
};
use lora_train::error::TrainError;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn file(name: &str) -> PathBuf {
    fixtures().join("texts/data").join(name)
}

fn microsoft() -> SourceOptions {
    SourceOptions {
        template: Some(PairTemplate::microsoft_lora()),
        ..SourceOptions::default()
    }
}

fn pairs(records: &[Record]) -> Vec<(&str, &str)> {
    let pairs = records.iter().map(|record| match &record.content {
        Content::PromptCompletion { prompt, completion } => (&**prompt, &**completion),
        other => panic!("{other:?}"),
    });
    pairs.collect()
}

/// As `format_converting_dart.py` and `gpt2_encode.py` of microsoft/LoRA make them: relations are in lower case, one record for each text.
#[test]
fn dart_is_read_as_the_authors_read_it() {
    let path = file("dart.json");
    let records = read_records(&path, &microsoft()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let entries: Vec<Value> = serde_json::from_str(&text).unwrap();
    let mut expected = Vec::new();
    for entry in &entries {
        let triples = entry["tripleset"].as_array().unwrap().iter().map(|triple| {
            let part = |at: usize| triple[at].as_str().unwrap();
            format!("{} : {} : {}", part(0), part(1).to_lowercase(), part(2))
        });
        let triples = triples.collect::<Vec<_>>().join(" | ");
        for annotation in entry["annotations"].as_array().unwrap() {
            let text = annotation["text"].as_str().unwrap().trim();
            expected.push((format!("{triples}<|endoftext|>"), format!(" {text}")));
        }
    }
    let found = pairs(&records);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(*found, (&*expected.0, &*expected.1));
    }
    assert_eq!(
        found[0].0,
        "Mars Hill College : joined : 1973 | Mars Hill College : location : Mars Hill, North Carolina<|endoftext|>"
    );
    // Lines of the file, where entries begin.
    let second = text.match_indices("\n {").nth(1).unwrap().0;
    assert_eq!(
        records[1].origin.line(),
        text[..=second].lines().count() + 1
    );
    // Texts of one input are its references.
    let groups = group_references(&records).unwrap();
    assert_eq!(groups.len(), entries.len());
    assert!(groups.iter().any(|group| group.references.len() == 2));
}

/// The same rows of the challenge's CSV and of the authors' file: published adapters were trained on the prompts of the latter.
#[test]
fn the_challenge_s_csv_has_the_prompts_of_the_authors_files() {
    let [csv, text] = ["e2e.csv", "e2e.txt"].map(|name| {
        let records = read_records(&file(name), &microsoft()).unwrap();
        let prompts = records
            .iter()
            .map(|record| record.content.prompt().unwrap());
        prompts.map(String::from).collect::<Vec<_>>()
    });
    assert_eq!(csv, text);
    for price in [
        "\u{a3} 20 - 25",
        "less than \u{a3} 20",
        "more than \u{a3} 30",
        "cheap",
        "moderate",
        "high",
    ] {
        let part = format!(" | price : {price} | ");
        assert!(csv.iter().any(|prompt| prompt.contains(&part)), "{price}");
    }
}

#[test]
fn webnlg_has_seen_and_unseen_categories_and_good_texts() {
    let path = file("webnlg.json");
    let read = |categories| {
        let options = SourceOptions {
            categories,
            ..SourceOptions::default()
        };
        read_records(&path, &options)
    };
    let all = read(Categories::All).unwrap();
    let expected = [
        (
            "Lake_Pier : isPartOf : Old_Harbour ||",
            " Lake Pier is in the old harbour.",
        ),
        (
            "Lake_Pier : isPartOf : Old_Harbour ||",
            " The old harbour has a pier, Lake Pier.",
        ),
        (
            "Ada_Moor : birthPlace : Hill_Town | Ada_Moor : occupation : Painter ||",
            " Ada Moor, a painter, was born in Hill Town.",
        ),
    ];
    assert_eq!(pairs(&all), expected);
    assert_eq!(pairs(&read(Categories::Seen).unwrap()), expected[..2]);
    assert_eq!(pairs(&read(Categories::Unseen).unwrap()), expected[2..]);
}

#[test]
fn samsum_is_an_array_or_lines() {
    let array = read_records(&file("samsum.json"), &SourceOptions::default()).unwrap();
    let expected = [
        (
            "Mia: Are you coming?\nTom: Yes, at 8 :)\nMia: Great!\n\n",
            "Tom will come to Mia at 8.",
        ),
        ("Lea: <file_photo>\n\n", "Lea sent a photo."),
    ];
    assert_eq!(pairs(&array), expected);
    assert_eq!(array[0].id.as_deref(), Some("13818001"));
    let lines = read_records(&file("samsum.jsonl"), &SourceOptions::default()).unwrap();
    assert_eq!(pairs(&lines), expected[..1]);
}

#[test]
fn bad_files_are_refused_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, text: &str| -> Result<Vec<Record>, TrainError> {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_records(&path, &SourceOptions::default())
    };
    let entry = "{\"tripleset\": [[\"a\", \"b\", \"c\"]], \"annotations\": [{\"text\": \"t\"}]}";
    for (name, text, line, reason) in [
        (
            "dart.json",
            format!("[{entry},\n {{\"tripleset\": [[\"a\", \"b\", \"c\"]], \"annotations\": []}}]"),
            2,
            "at least one reference",
        ),
        ("dart.json", format!("[{entry},\n{{\"tripleset\": [],\n \"annotations\": []}}]"), 2, "no triple"),
        ("dart.json", format!("[{entry},\n\n{{\"tripleset\": [[\"a\", \"b\"]]}}]"), 3, "length 2"),
        ("dart.json", format!("[{entry},\n{{\"annotations\": [],\n\"tripleset\": 3}}]"), 3, "integer"),
        ("dart.json", format!("[{entry},\n{{\"tripleset\""), 2, "the JSON ends"),
        (
            "webnlg.json",
            "{\"entries\": [\n{\"1\": {\"category\": \"City\", \"modifiedtripleset\": [{\"subject\": \"a\", \"property\": \"b\", \"object\": \"c\"}],\n\"lexicalisations\": []}}]}".to_string(),
            2,
            "at least one reference",
        ),
        ("webnlg.json", "{\"entries\": [\n{\"1\": {}, \"2\": {}}]}".to_string(), 2, "only key"),
        (
            "samsum.json",
            "[\n{\"dialogue\": \"a\", \"summary\": \"b\"},\n{\"dialogue\": \"a\", \"summary\": \" \"}]".to_string(),
            3,
            "`summary` is empty",
        ),
        ("e2e.txt", "a : b||c\nd : e||\n".to_string(), 2, "both not empty"),
    ] {
        let message = read(name, &text).unwrap_err().to_string();
        assert!(message.contains(&format!("{name}, line {line}: ")), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

/// The model of the examples, which reads 256 tokens.
fn wiki() -> PathBuf {
    fixtures().join("../../../examples/models/wiki-gpt2")
}

fn eval(path: &Path, more: &[&str]) -> String {
    let mut command = lora(["eval", "--device", "flex", "--model"]);
    command.arg(wiki()).arg("--data").arg(path).args(more);
    succeed(&mut command)
}

#[test]
fn every_data_set_is_evaluated_with_its_own_scores() {
    for (name, format, expected) in [
        (
            "dart.json",
            None,
            &[
                "bleu",
                "bleu_lower",
                "cider",
                "nist",
                "rouge_l",
                "rouge_l_coco",
                "ter",
            ][..],
        ),
        ("wikisql.jsonl", None, &["execution", "logical_form"]),
        ("samsum.json", None, &["rouge_1", "rouge_2", "rouge_l"]),
        (
            "mnli.tsv",
            Some("mnli"),
            &["answer_accuracy", "exact_match"],
        ),
    ] {
        let mut more = vec!["--generate", "--max-new-tokens", "4"];
        more.extend(format.iter().flat_map(|format| ["--format", format]));
        let output = eval(&file(name), &more);
        let found = printed(&output);
        for name in expected {
            assert!(
                found.iter().any(|(found, _)| found == name),
                "no {name} in {output}"
            );
        }
    }
}

/// The answer with the smallest sum of losses counts, whatever its length.
#[test]
fn the_most_likely_answer_is_the_model_s() {
    let dir = tempfile::tempdir().unwrap();
    let predictions = dir.path().join("out.jsonl");
    let path = predictions.display().to_string();
    let output = eval(&file("mnli.tsv"), &["--format", "mnli"]);
    let (_, accuracy) = printed(&output)
        .into_iter()
        .find(|(name, _)| name == "answer_accuracy")
        .unwrap();
    // The same by hand: each question with each answer.
    let mut text = String::new();
    let rows = [
        ("It snowed.", "It was cold.", "true"),
        ("A man sings.", "Nobody makes a sound.", "false"),
        ("Two dogs run.", "The dogs are brown.", "neither"),
    ];
    for (premise, hypothesis, _) in rows {
        for answer in ["true", "neither", "false"] {
            let prompt =
                format!("{premise}\nquestion: {hypothesis} true, false, or neither?\nanswer:");
            let line = json!({"prompt": prompt, "completion": format!(" {answer}")});
            text.push_str(&format!("{line}\n"));
        }
    }
    let asked = dir.path().join("asked.jsonl");
    std::fs::write(&asked, text).unwrap();
    eval(&asked, &["--predictions", &path]);
    let losses: Vec<f64> = lines(&predictions)
        .iter()
        .map(|line| line["loss"].as_f64().unwrap() * line["tokens"].as_f64().unwrap())
        .collect();
    let right = rows
        .iter()
        .zip(losses.chunks(3))
        .filter(|((.., answer), losses)| {
            let best = (0..3)
                .min_by(|a, b| losses[*a].total_cmp(&losses[*b]))
                .unwrap();
            ["true", "neither", "false"][best] == *answer
        });
    assert!(
        (accuracy - right.count() as f64 / 3.0).abs() < 1e-4,
        "{accuracy}"
    );
}

/// Faults of options and data are found before the weights are read, and not after hours of generation.
#[test]
fn texts_that_could_not_be_scored_are_not_generated() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let predictions = path("out.jsonl").display().to_string();
    let refused = |data: &Path, more: &[&str], words: &[&str]| {
        let mut command = lora(["eval", "--device", "flex", "--generate", "--model"]);
        command.arg(wiki()).arg("--data").arg(data).args(more);
        let output = command
            .args(["--predictions", &predictions])
            .output()
            .unwrap();
        let output = crate::common::text(&output);
        for word in words {
            assert!(output.contains(word), "no {word} in {output}");
        }
        // The line after the weights.
        assert!(!output.contains("model     "), "{output}");
    };
    let e2e = file("e2e.txt");
    let stop = ["--stop-token", "two words here"];
    refused(&e2e, &stop, &["stop_token", "two words here"]);
    let long = ["--max-new-tokens", "100000"];
    refused(&e2e, &long, &["the prompt `name : Alimentum"]);

    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    write(
        "none.tables.jsonl",
        "{\"id\": \"1\", \"header\": [\"a\"], \"types\": [\"real\"], \"rows\": [[1]]}\n",
    );
    let question = |value: &str| {
        format!(
            "{{\"question\": \"{value}?\", \"table_id\": \"1\", \"sql\": {{\"sel\": 0, \"agg\": 0, \"conds\": [[0, 1, \"{value}\"]]}}}}\n"
        )
    };
    write("none.jsonl", &(question("6") + &question("none")));
    refused(
        &path("none.jsonl"),
        &["--max-new-tokens", "2"],
        &["none.jsonl, line 2", "`none` has no number"],
    );
    assert!(!path("out.jsonl").exists());
}

/// Texts of the same prompt on two tables were one text in the file of predictions, and refused by `lora score`.
#[test]
fn a_prompt_may_have_several_ids() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let table = |id: &str, row: &str| {
        format!(
            "{{\"id\": \"{id}\", \"header\": [\"Name\", \"No\"], \"types\": [\"text\", \"real\"], \"rows\": [{row}]}}\n"
        )
    };
    let tables = table("1", "[\"Ann\", 6]") + &table("2", "[\"Bea\", 7]");
    std::fs::write(path("dev.tables.jsonl"), tables).unwrap();
    let question = |id: &str, column: usize| {
        format!(
            "{{\"question\": \"Who?\", \"table_id\": \"{id}\", \"sql\": {{\"sel\": {column}, \"agg\": 0, \"conds\": []}}}}\n"
        )
    };
    let data = path("dev.jsonl");
    std::fs::write(&data, question("1", 0) + &question("2", 1)).unwrap();
    let prompt = "table: \"Name\" | \"No\"\nquestion: Who?\nsql:";
    let texts = |queries: &[&str]| {
        let lines = queries.iter().map(|query| {
            let text = format!("SELECT \"{query}\" FROM table");
            json!({"prompt": prompt, "text": text}).to_string() + "\n"
        });
        std::fs::write(path("texts.jsonl"), lines.collect::<String>()).unwrap();
        let mut command = lora(["score"]);
        command.arg(path("texts.jsonl")).arg("--data").arg(&data);
        command
    };
    let form = |queries: &[&str]| {
        let output = succeed(&mut texts(queries));
        let scores = printed(&output);
        scores
            .into_iter()
            .find(|(name, _)| name == "logical_form")
            .unwrap()
            .1
    };
    assert_eq!(form(&["name", "no"]), 1.0);
    assert_eq!(form(&["no", "name"]), 0.0);
    assert_eq!(form(&["name", "name"]), 0.5);
    fail(
        &mut texts(&["name", "no", "no"]),
        1,
        &["line 3", "line 1", "the 2 of the data"],
    );
    fail(&mut texts(&["name"]), 1, &["dev.jsonl, line 2"]);
}

/// Concatenated texts have no answers, so that MNLI is not concatenated without a word.
#[test]
fn mnli_is_not_concatenated() {
    let mut command = lora([
        "eval",
        "--device",
        "flex",
        "--format",
        "mnli",
        "--concatenate",
    ]);
    command
        .arg("--model")
        .arg(wiki())
        .arg("--data")
        .arg(file("mnli.tsv"));
    fail(&mut command, 1, &["mnli.tsv, line 2", "`concatenate`"]);
}

#[test]
fn a_stop_token_ends_a_text_and_must_be_one_token() {
    let run = |stop: &[&str]| {
        let mut command = lora(["generate", "--device", "flex", "--json", "--model"]);
        command
            .arg(model())
            .args(["--prompt", "The Eagle", "--max-new-tokens", "16"]);
        let stops = stop.iter().flat_map(|stop| ["--stop-token", stop]);
        command.args(stops);
        command
    };
    let parse = |output: String| json_of(&output);
    let whole = parse(succeed(&mut run(&[])));
    let text = whole["text"].as_str().unwrap();
    // Some text of one token, which the model writes.
    let mut candidates = text.chars().map(String::from);
    let stopped = candidates.find_map(|token| {
        let output = run(&[&token]).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let found: Value = serde_json::from_str(output.lines().next()?).unwrap();
        (found["finished"] == true).then_some((token, found))
    });
    let (token, found) = stopped.unwrap_or_else(|| panic!("no character of {text:?} ends it"));
    assert!(
        found["tokens"].as_u64() < whole["tokens"].as_u64(),
        "{found}"
    );
    assert!(found["text"].as_str().unwrap().ends_with(&token), "{found}");
    fail(
        &mut run(&["two words here"]),
        2,
        &["stop_token", "two words here"],
    );
    fail(&mut run(&["\\q"]), 2, &["--stop-token"]);
}

/// `lora train` on DART.
fn learn(output: &Path, more: &[&str]) -> Command {
    let mut command = lora(["train", "--device", "flex", "--json", "--save-steps", "0"]);
    command
        .arg("--model")
        .arg(wiki())
        .arg("--data")
        .arg(file("dart.json"));
    command.arg("--output").arg(output).args(more);
    command
}

#[test]
fn a_run_keeps_the_template_in_its_recipe_and_scores_its_texts() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let options = [
        ["--template", "microsoft-lora"],
        ["--max-steps", "1"],
        ["--generate-prompts", "2"],
        ["--max-new-tokens", "3"],
        ["--beams", "2"],
        ["--length-penalty", "0.8"],
        ["--no-repeat-ngram", "4"],
        ["--stop-token", "\\n"],
    ];
    let mut command = learn(&run, &options.concat());
    let found = outcome(command.arg("--eval-data").arg(file("dart.json")));
    for name in [
        "bleu",
        "bleu_lower",
        "cider",
        "loss",
        "nist",
        "rouge_l",
        "ter",
    ] {
        assert!(found["after"][name].is_number(), "no {name} in {found}");
    }
    let recipe = std::fs::read_to_string(run.join("recipe.toml")).unwrap();
    for line in [
        "template = \"microsoft-lora\"",
        "length_penalty = 0.8",
        "no_repeat_ngram = 4",
        // A line break, after the one that TOML leaves out.
        "stop_token = [\"\"\"\n\n\"\"\"]",
    ] {
        assert!(recipe.contains(line), "no {line} in {recipe}");
    }
    // Without texts, their options have no effect.
    let mut without = learn(&dir.path().join("without"), &["--stop-token", "a"]);
    fail(&mut without, 2, &["`stop_token`", "`generate_prompts`"]);
}

/// The examples are drawn by the seed, for language models and classifiers.
#[test]
fn few_examples_are_drawn_by_the_seed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let steps = |name: &str, more: &[&str]| {
        let mut command = learn(&path(name), &["--epochs", "1", "--batch-size", "1"]);
        outcome(command.args(more))["steps"].as_u64().unwrap()
    };
    assert_eq!(steps("few", &["--max-examples", "3"]), 3);
    let all = read_records(&file("dart.json"), &SourceOptions::default()).unwrap();
    assert_eq!(steps("more", &["--max-examples", "500"]), all.len() as u64);
    fail(
        &mut learn(&path("none"), &["--max-examples", "0"]),
        2,
        &["max_examples"],
    );

    // A classifier keeps the classes of the whole file.
    let bert = encoder("bert", dir.path());
    let mut command = crate::common::encoders::learn(&bert, &data("pairs.jsonl"), &path("pairs"));
    let options = ["--epochs", "1", "--batch-size", "1", "--max-examples", "2"];
    assert_eq!(outcome(command.args(options))["steps"], 2);
    let config = path("pairs/adapter/config.json");
    let config = std::fs::read_to_string(config).unwrap();
    assert!(
        config.contains("neutral") && config.contains("contradiction"),
        "{config}"
    );
}
