//! Conversations through the program: data, training, and talk.

use crate::common::encoders::stdout;
use crate::common::{fail, fixtures, json_of, lora, model, succeed, text};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Template by which `messages` are lines with the first letter of their roles.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}\
                        {% if add_generation_prompt %}a: {% endif %}";

/// Copies the fixture model, with a chat template beside it.
fn chat_model(dir: &Path, template: &str) -> PathBuf {
    let path = dir.join("chat model");
    std::fs::create_dir(&path).unwrap();
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(model().join(name), path.join(name)).unwrap();
    }
    std::fs::write(path.join("chat_template.jinja"), template).unwrap();
    path
}

fn write(dir: &Path, name: &str, objects: &[Value]) -> PathBuf {
    let path = dir.join(name);
    let lines: Vec<String> = objects.iter().map(|object| format!("{object}\n")).collect();
    std::fs::write(&path, lines.concat()).unwrap();
    path
}

fn messages(turns: &[(&str, &str)]) -> Value {
    let turns = turns.iter();
    let turns: Vec<Value> = turns
        .map(|(role, content)| json!({"role": role, "content": content}))
        .collect();
    json!({ "messages": turns })
}

fn two_turns() -> Value {
    messages(&[
        ("user", "the name"),
        ("assistant", "is Aromi"),
        ("user", "and food"),
        ("assistant", "is cheap"),
    ])
}

fn preview(model: &Path, data: &Path) -> Command {
    let mut command = lora(["preview", "--device", "flex"]);
    command.arg("--model").arg(model).arg("--data").arg(data);
    command
}

/// Parts of the first example, those that are learned in brackets.
fn parts(command: &mut Command) -> String {
    let shown = json_of(&succeed(command.arg("--json")));
    let parts = shown["shown"][0]["parts"].as_array().unwrap().iter();
    let part = |part: &Value| match (part["text"].as_str().unwrap(), &part["learned"]) {
        (text, Value::Bool(true)) => format!("[{text}]"),
        (text, _) => text.to_string(),
    };
    parts.map(part).collect()
}

#[test]
fn the_turns_of_the_assistant_are_learned_or_the_last_or_all() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let data = write(dir.path(), "a.jsonl", &[two_turns()]);
    let with = |options: &[&str]| parts(preview(&base, &data).args(options));
    assert_eq!(
        with(&[]),
        "u: the name\na:[ is Aromi\n]u: and food\na:[ is cheap\n]"
    );
    assert_eq!(
        with(&["--train-on", "last"]),
        "u: the name\na: is Aromi\nu: and food\na:[ is cheap\n]"
    );
    // Nothing predicts the first token.
    assert_eq!(
        with(&["--train-on", "all"]),
        "u[: the name\na: is Aromi\nu: and food\na: is cheap\n]"
    );
    let shown = stdout(preview(&base, &data).args(["--text", "--color", "always"]));
    assert!(
        shown.contains("\na:\u{1b}[1;32m is Aromi\n\u{1b}[0mu: "),
        "{shown:?}"
    );
    let shown = stdout(preview(&base, &data).arg("--text"));
    assert!(shown.contains("\na:⟦ is Aromi\n⟧u: "), "{shown}");
}

#[test]
fn the_forms_of_conversations_are_told_apart_by_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let of = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        parts(&mut preview(&base, &path))
    };
    let expected = "s: brief\nu: name\nfood\na:[ cheap\n]";
    for (name, text) in [
        (
            "messages.jsonl",
            r#"{"id": 7, "messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": "name\nfood"}, {"role": "assistant", "content": "cheap", "name": null}]}"#,
        ),
        (
            "messages.json",
            "[\n{\"messages\": [{\"role\": \"system\", \"content\": \"brief\"}, {\"role\": \"user\", \"content\": \"name\\nfood\"},\n\
             {\"role\": \"assistant\", \"content\": \"cheap\"}]}\n]",
        ),
        (
            "sharegpt.jsonl",
            r#"{"conversations": [{"from": "system", "value": "brief"}, {"from": "human", "value": "name\nfood"}, {"from": "gpt", "value": "cheap"}]}"#,
        ),
        (
            "sharegpt.json",
            r#"[{"system": "brief", "conversations": [{"role": "user", "content": "name\nfood"}, {"from": "chatgpt", "value": "cheap"}]}]"#,
        ),
        (
            "alpaca.json",
            "[\n  {\n    \"instruction\": \"name\",\n \"input\": \"food\",\n \"output\": \"cheap\", \"system\": \"brief\"\n }\n]",
        ),
    ] {
        assert_eq!(of(name, text), expected, "{name}");
    }
    let text = r#"{"instruction": "name", "output": "cheap", "history": [["food", "good"]]}"#;
    assert_eq!(
        of("history.jsonl", text),
        "u: food\na: [good\n]u: name\na:[ cheap\n]"
    );
    // With named keys, they are texts.
    let path = dir.path().join("history.jsonl");
    let mut command = preview(&base, &path);
    command.args([
        "--prompt-column",
        "instruction",
        "--completion-column",
        "output",
    ]);
    assert_eq!(parts(&mut command), "name[cheap<|endoftext|>]");
}

#[test]
fn long_conversations_lose_whole_turns_and_the_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let objects = [
        two_turns(),
        messages(&[("user", "name"), ("assistant", "a")]),
        messages(&[("user", "a name that is long"), ("assistant", "Aromi")]),
        messages(&[("user", "only a user")]),
    ];
    let data = write(dir.path(), "a.jsonl", &objects);
    let shown = json_of(&succeed(preview(&base, &data).arg("--json")));
    let length = |at: usize| shown["shown"][at]["tokens"].as_array().unwrap().len();
    // Of the first turn of the first conversation, which is longer than the second.
    let turn = messages(&[("user", "the name"), ("assistant", "is Aromi")]);
    let turn = write(dir.path(), "turn.jsonl", &[turn]);
    let turn = json_of(&succeed(preview(&base, &turn).arg("--json")));
    let most = turn["shown"][0]["tokens"].as_array().unwrap().len();
    assert!(length(1) <= most && most < length(2), "{most}");
    let most = most.to_string();
    let first_turn = parts(preview(&base, &data).args(["--max-length", &most]));
    assert_eq!(first_turn, "u: the name\na:[ is Aromi\n]");
    let told = succeed(preview(&base, &data).args(["--max-length", &most]));
    for expected in [
        &format!("4 conversations, 1 cut to {most} tokens by whole turns, losing 2 messages"),
        "; 1 left out because their first turn is too long",
        "cut off: ",
    ] {
        assert!(told.contains(expected), "{told}");
    }
    let told = succeed(&mut preview(&base, &data));
    assert!(
        told.contains("; 1 left out because no turn is to be learned"),
        "{told}"
    );
}

#[test]
fn bad_conversations_are_named_by_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let call = json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": {}}});
    let with_call = |rest: &[Value]| {
        let mut all = vec![
            json!({"role": "user", "content": "a"}),
            json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        ];
        all.extend_from_slice(rest);
        json!({ "messages": all })
    };
    for (object, reason) in [
        (
            json!({"messages": "a"}),
            "\"messages\" is a string, expected a list",
        ),
        (json!({"messages": []}), "\"messages\" is an empty list"),
        (
            json!({"messages": [1]}),
            "messages[0] is a number, expected an object",
        ),
        (
            json!({"messages": [{"content": "a"}]}),
            "messages[0] has no key \"role\"",
        ),
        (
            json!({"messages": [{"role": 1, "content": "a"}]}),
            "messages[0].role is a number",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0] has neither \"content\"",
        ),
        (
            json!({"messages": [{"role": "user", "content": 1}]}),
            "messages[0].content is a number",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}),
            "messages[0].tool_calls[0] names no function",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}], "tools": "x"}),
            "\"tools\" is a text that is no JSON",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}], "tools": [1]}),
            "tools[0] is a number",
        ),
        (
            messages(&[
                ("user", "a"),
                ("system", "s"),
                ("user", "b"),
                ("assistant", "c"),
            ]),
            "messages[2].role is `user`, as that of messages[0]: user and assistant do not alternate",
        ),
        (
            messages(&[("user", "a"), ("assistant", "b"), ("assistant", "c")]),
            "messages[2].role is `assistant`",
        ),
        (
            with_call(&[json!({"role": "user", "content": "b"})]),
            "messages[1].tool_calls (`c1`) has no answer: messages[2] is of `user`",
        ),
        (
            with_call(&[json!({"role": "tool", "tool_call_id": "c2", "content": "b"})]),
            "messages[2].tool_call_id is `c2`, but messages[1] makes no such call",
        ),
        (
            json!({"conversations": [{"from": "cat", "value": "a"}]}),
            "conversations[0].from is `cat`",
        ),
        (
            json!({"conversations": [{"from": "gpt"}]}),
            "conversations[0]: the object has no key \"value\"",
        ),
        (
            json!({"conversations": [{"from": "function_call", "value": "a"}]}),
            "conversations[0].value is no call of a tool",
        ),
        (
            json!({"instruction": 1, "output": "a"}),
            "the value of \"instruction\" is a number",
        ),
        (
            json!({"instruction": "a", "output": "a", "history": [["b"]]}),
            "history[0] is an array, expected a list of a question and its answer",
        ),
    ] {
        let data = write(dir.path(), "bad.jsonl", std::slice::from_ref(&object));
        let expected = format!("bad.jsonl, line 1: {reason}");
        fail(&mut preview(&base, &data), 1, &[&expected]);
    }
}

#[test]
fn a_template_that_refuses_or_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = write(dir.path(), "a.jsonl", &[two_turns()]);
    fail(
        &mut preview(&model(), &data),
        2,
        &["chat_template", "has neither chat_template.jinja"],
    );
    let template = "{% for m in messages %}\n{% if loop.index > 2 %}{{ raise_exception('Only two!') }}{% endif %}{% endfor %}";
    let base = chat_model(dir.path(), template);
    fail(
        &mut preview(&base, &data),
        1,
        &[
            "a.jsonl, line 1: ",
            "chat_template.jinja: line 2: ",
            "Only two!",
        ],
    );
    // Thoughts that only the last turn has.
    let own = dir.path().join("own.jinja");
    let template = TEMPLATE.replace(
        "{{ m.content }}",
        "{% if loop.last and m.role == 'assistant' %}hm {% endif %}{{ m.content }}",
    );
    std::fs::write(&own, template).unwrap();
    let mut command = preview(&base, &data);
    command.arg("--chat-template").arg(&own);
    fail(
        &mut command,
        1,
        &["line 1: ", "messages[1] otherwise", "--train-on last"],
    );
    let last = parts(command.args(["--train-on", "last"]));
    assert!(last.ends_with("a: [hm is cheap\n]"), "{last}");
    for (option, words) in [
        ("--loss-on-prompt", "loss_on_prompt"),
        ("--no-eos", "no_eos"),
        ("--concatenate", "concatenate"),
    ] {
        fail(
            preview(&base, &data).arg(option),
            2,
            &[words, "conversations"],
        );
    }
    let texts = fixtures().join("train20/train.jsonl");
    fail(
        preview(&base, &texts).args(["--train-on", "last"]),
        2,
        &["train_on", "is for conversations"],
    );
}

fn train(base: &Path, data: &Path, output: &Path) -> Command {
    let mut command = lora(["train", "--device", "flex", "--max-length", "60"]);
    command.args(["--max-steps", "3", "--batch-size", "2", "--lr", "0.1"]);
    command.arg("--model").arg(base).arg("--data").arg(data);
    command.arg("--output").arg(output);
    command
}

fn answers(model: &Path, more: &[&str]) -> Vec<String> {
    let mut command = lora(["generate", "--chat", "--device", "flex", "--json"]);
    command
        .args(["--max-new-tokens", "6", "--model"])
        .arg(model)
        .args(more);
    let lines = stdout(&mut command);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    lines
        .map(|line: Value| line["text"].as_str().unwrap().to_string())
        .collect()
}

/// An adapter that was trained by another template is used by it, and so is the merged model.
#[test]
fn the_template_goes_with_the_adapter_and_the_merged_model() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let data = write(dir.path(), "a.jsonl", &[two_turns()]);
    let own = dir.path().join("own.jinja");
    let template = TEMPLATE
        .replace("a: ", "{{ mark }}: ")
        .replace("m.role[0]", "m.role");
    std::fs::write(&own, &template).unwrap();
    let output = dir.path().join("run");
    let mut command = train(&base, &data, &output);
    command.arg("--chat-template").arg(&own);
    command.args(["--chat-template-kwargs", "{\"mark\": \"assistant\"}"]);
    let printed = succeed(&mut command);
    assert!(printed.contains("1 conversations, none cut"), "{printed}");
    let adapter = output.join("adapter");
    let file = "chat_template.jinja";
    assert_eq!(
        std::fs::read_to_string(adapter.join(file)).unwrap(),
        template
    );
    let recipe = std::fs::read_to_string(output.join("recipe.toml")).unwrap();
    assert!(recipe.contains("mark = \"assistant\""), "{recipe}");
    let merged = dir.path().join("merged");
    let mut merge = lora(["merge", "--device", "flex", "--model"]);
    merge
        .arg(&base)
        .arg("--adapter")
        .arg(&adapter)
        .arg("--output")
        .arg(&merged);
    succeed(&mut merge);
    assert_eq!(
        std::fs::read_to_string(merged.join(file)).unwrap(),
        template
    );

    let [adapter, own] = [&adapter, &own].map(|path| path.to_str().unwrap().to_string());
    let prompt = [
        "--prompt",
        "the name",
        "--chat-template-kwargs",
        "{\"mark\": \"assistant\"}",
    ];
    let with_adapter = answers(&base, &[&prompt[..], &["--adapter", &adapter]].concat());
    let by_hand = answers(&merged, &[&prompt[..], &["--chat-template", &own]].concat());
    assert_eq!(with_adapter, by_hand);
    // The base itself keeps its own.
    let kept = std::fs::read_to_string(base.join(file)).unwrap();
    assert_eq!(kept, TEMPLATE);
    // A run goes on from a recipe and a checkpoint with the same data.
    let mut resumed = lora(["train", "--resume"]);
    resumed.arg(output.join("recipe.toml"));
    let printed = text(&resumed.output().unwrap());
    assert!(!printed.contains("changed"), "{printed}");
}

/// The texts of an evaluation are the answers to the conversations, scored by the last message.
#[test]
fn an_evaluation_answers_conversations_by_the_template() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let objects = [
        two_turns(),
        messages(&[("user", "name"), ("assistant", "a")]),
    ];
    let data = write(dir.path(), "a.jsonl", &objects);
    let mut asked = two_turns();
    asked["messages"].as_array_mut().unwrap().pop();
    let asked = [asked, json!({"prompt": "name"})];
    let prompts = write(dir.path(), "prompts.jsonl", &asked);
    let expected = answers(&base, &["--prompts", prompts.to_str().unwrap()]);
    let mut eval = lora(["eval", "--device", "flex", "--generate"]);
    eval.args(["--max-new-tokens", "6", "--model"]).arg(&base);
    let printed = succeed(eval.arg("--data").arg(&data));
    assert!(printed.contains("bleu"), "{printed}");

    let output = dir.path().join("run");
    let mut command = train(&base, &data, &output);
    command.args(["--generate-prompts", "2", "--max-new-tokens", "6"]);
    succeed(command.arg("--eval-data").arg(&data));
    let metrics = std::fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let before: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    for text in expected {
        let text = Value::from(text.trim());
        assert!(
            before.to_string().contains(&text.to_string()),
            "{text} {before}"
        );
    }
}

/// The template writes the special tokens, and the tokenizer adds none to them.
#[test]
fn the_text_of_a_conversation_gets_no_special_tokens_twice() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), &format!("{{{{ eos_token }}}}{TEMPLATE}"));
    let path = base.join("tokenizer.json");
    let mut tokenizer = test_support::tensors::json(&path);
    let end = "<|endoftext|>";
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": end, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {end: {"id": end, "ids": [299], "tokens": [end]}}
    });
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let data = write(dir.path(), "a.jsonl", &[two_turns()]);
    let shown = parts(&mut preview(&base, &data));
    assert!(shown.starts_with("<|endoftext|>u: the"), "{shown}");
    let texts = write(dir.path(), "b.jsonl", &[json!({"text": "the name"})]);
    assert!(parts(&mut preview(&base, &texts)).starts_with("<|endoftext|>[the"));
}

/// Training with packing and padding gives one loss: learned parts are the same tokens.
#[test]
fn packed_conversations_are_learned_as_padded_ones() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let objects = [
        two_turns(),
        messages(&[("user", "name"), ("assistant", "a")]),
    ];
    let data = write(dir.path(), "a.jsonl", &objects);
    let loss = |packing: &[&str], name: &str| {
        let output = dir.path().join(name);
        let mut command = train(&base, &data, &output);
        succeed(command.args(packing));
        crate::common::metrics(&output)[0]["loss"].as_f64().unwrap()
    };
    let (padded, packed) = (loss(&[], "padded"), loss(&["--packing"], "packed"));
    // Sums in another order.
    assert!((padded - packed).abs() < 1e-5, "{padded} {packed}");
}

/// Talks with a model, and returns its answers, a line each, and what it told beside them.
fn talk(model: &Path, more: &[&str], input: &str) -> (Vec<String>, String) {
    let mut command = lora(["chat", "--device", "flex", "--max-new-tokens", "6"]);
    command.arg("--model").arg(model).args(more);
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let answers = String::from_utf8(output.stdout).unwrap();
    // Answers of the fixture model have line breaks of their own.
    let answers = answers.split_terminator('\u{3}').map(String::from);
    (answers.collect(), told)
}

#[test]
fn a_talk_has_messages_of_several_lines_a_reset_and_adapters_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let tree = fixtures().join("../../../lora-models/tests/fixtures/named/gpt2_tied");
    let named = [("top", tree.clone()), ("wide", tree.join("wide"))];
    let named = named.map(|(name, dir)| format!("{name}={}", dir.display()));
    let adapters = ["--adapter", &named[0], "--adapter", &named[1]];

    let file = write(
        dir.path(),
        "prompts.jsonl",
        &[
            json!({"prompt": "the name\nand food"}),
            json!({"prompt": "the name\nand food", "adapter": "top"}),
            json!({"prompt": "the name\nand food", "adapter": "wide"}),
        ],
    );
    let file = file.to_str().unwrap();
    let expected = answers(&base, &[&adapters[..], &["--prompts", file]].concat());
    assert!(
        expected[0] != expected[1] && expected[1] != expected[2],
        "{expected:?}"
    );

    let message = "\"\"\"\nthe name\nand food\n\"\"\"\n";
    let input = format!(
        "/adapter\n{message}/reset\n/adapter wide\nthe name\\\nand food\n/reset\n/adapter none\n{message}/adapter x\n/no\n/exit\nunread\n"
    );
    let (found, told) = talk(&base, &adapters, &input);
    let all = found.concat();
    let lines = format!("{}\n{}\n{}\n", expected[1], expected[2], expected[0]);
    assert_eq!(all, lines, "{told}");
    for line in [
        "adapters: top, wide, none; in use: top",
        "a new conversation",
        "there is no adapter `x`",
        "there is no command /no",
    ] {
        assert!(told.contains(line), "{told}");
    }
}

/// The answer to a message depends on those before it, and a conversation that is too long is told.
#[test]
fn a_talk_goes_on_until_the_model_has_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let (first, _) = talk(&base, &[], "the name\n");
    let first = first.concat();
    let first = first.strip_suffix('\n').unwrap();
    let conversation = messages(&[("user", "the name"), ("assistant", first), ("user", "food")]);
    let file = write(dir.path(), "prompts.jsonl", &[conversation]);
    let second = answers(&base, &["--prompts", file.to_str().unwrap()]);
    let (both, _) = talk(&base, &[], "the name\nfood\n");
    assert_eq!(both.concat(), format!("{first}\n{}\n", second[0]));

    let many = "the name is good\n".repeat(12);
    let (_, told) = talk(&base, &[], &many);
    assert!(told.contains("/reset begins a new conversation"), "{told}");
    let long = format!("{many}/reset\nthe name\n");
    let (found, _) = talk(&base, &[], &long);
    assert!(found.concat().ends_with(&format!("{first}\n")), "{found:?}");
}

#[test]
fn what_generate_does_not_answer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let ends = messages(&[("user", "a"), ("assistant", "b")]);
    let file = write(dir.path(), "prompts.jsonl", &[ends]);
    let generate = |more: &[&str]| {
        let mut command = lora(["generate", "--device", "flex", "--model"]);
        command.arg(&base).arg("--prompts").arg(&file).args(more);
        command
    };
    fail(
        &mut generate(&["--chat"]),
        1,
        &["line 1: ", "nothing to answer"],
    );
    fail(&mut generate(&[]), 1, &["line 1: ", "--chat"]);
    fail(&mut generate(&["--system", "a"]), 2, &["--chat"]);
    let mut command = lora(["chat", "--device", "flex", "--model"]);
    fail(command.arg(model()), 2, &["chat_template"]);
}

#[test]
fn the_commands_of_the_readme_work_on_conversations() {
    let dir = tempfile::tempdir().unwrap();
    let base = chat_model(dir.path(), TEMPLATE);
    let data = write(dir.path(), "own.jsonl", &[two_turns(), two_turns()]);
    assert_eq!(crate::cli::readme("chat", &base, &data), 4);
}
