//! Chat templates against transformers, with TRL's masks.

use crate::common::{fixture, load};
use burn::tensor::Device;
use lora_models::ModelError;
use lora_models::chat::{ChatTemplate, Conversation, Message, TrainOn};
use lora_models::generate::{
    BeamSearch, GenerationConfig, Generator, Sampling, Strategy, TextStream,
};
use lora_models::tokenizer::Tokenizer;
use serde_json::{Map, Value};
use std::path::PathBuf;

fn folder() -> PathBuf {
    fixture("chat")
}

fn expected() -> Value {
    test_support::tensors::json(&folder().join("expected.json"))
}

fn conversation(case: &Value) -> Conversation {
    let messages = case["messages"].as_array().unwrap().iter();
    let messages: Vec<Message> = messages
        .map(|message| Message::from_object(message.as_object().unwrap().clone()))
        .collect();
    Conversation::new(messages).with_tools(case["tools"].as_array().cloned())
}

/// Template of a model: its own, or the one that TRL trains with.
fn template(expected: &Value, model: &str, kind: &str) -> Option<ChatTemplate> {
    let model = &expected["models"][model];
    let file = model[kind].as_str()?;
    let path = folder().join(format!("templates/{file}.jinja"));
    let mut variables = expected["variables"].as_object().unwrap().clone();
    for (key, name) in [("bos_token", "bos"), ("eos_token", "eos")] {
        if let Some(token) = model[name].as_str() {
            variables.insert(key.into(), token.into());
        }
    }
    let template = ChatTemplate::from_file(path).unwrap();
    Some(template.with_variables(variables))
}

/// Mask of the tokens that overlap a learned part.
fn encoded(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    chat: &Conversation,
) -> Result<(String, String), ModelError> {
    let rendered = template.render(chat, TrainOn::Assistant)?;
    let (ids, offsets) = tokenizer.encode_with_offsets(&rendered.text)?;
    let is_learned = |offset: &std::ops::Range<usize>| {
        let mut parts = rendered.learned.iter();
        parts.any(|part| offset.start < part.end && part.start < offset.end)
    };
    let mask = offsets
        .iter()
        .map(|o| if is_learned(o) { '1' } else { '0' });
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    Ok((ids.join(" "), mask.collect()))
}

#[test]
fn conversations_become_the_texts_of_transformers() {
    let expected = expected();
    let tokenizer = Tokenizer::from_dir(folder()).unwrap();
    let mut refused = 0;
    for case in expected["cases"].as_array().unwrap() {
        let model = case["model"].as_str().unwrap();
        let title = format!("{model}, {}", case["conversation"]);
        let template = template(&expected, model, "template").unwrap();
        let mut chat = conversation(case);
        if let Some(error) = case["error"].as_str() {
            let found = template
                .render(&chat, TrainOn::All)
                .unwrap_err()
                .to_string();
            assert!(
                found.contains(".jinja: line "),
                "{title}: {found}, not {error}"
            );
            refused += 1;
            continue;
        }
        let rendered = template.render(&chat, TrainOn::All).unwrap();
        assert_eq!(rendered.text, case["text"], "{title}");
        let ids = tokenizer.encode(&rendered.text).unwrap();
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        assert_eq!(ids.join(" "), case["ids"], "{title}");
        chat.messages.pop();
        assert_eq!(template.prompt(&chat).unwrap(), case["prompt"], "{title}");
    }
    assert!(refused > 2, "{refused}");
}

#[test]
fn the_masks_of_templates_that_name_what_is_generated_are_those_of_trl() {
    let expected = expected();
    let tokenizer = Tokenizer::from_dir(folder()).unwrap();
    let mut models = std::collections::BTreeSet::new();
    for case in expected["cases"].as_array().unwrap() {
        let model = case["model"].as_str().unwrap();
        let (Some(mask), Some(template)) = (
            case["mask"].as_str(),
            template(&expected, model, "training"),
        ) else {
            continue;
        };
        let title = format!("{model}, {}", case["conversation"]);
        let chat = conversation(case);
        assert!(template.has_generation(&chat));
        let found = encoded(&tokenizer, &template, &chat).unwrap();
        let ids = case["training_ids"].as_str().unwrap().to_string();
        assert!(mask.contains('1'), "{title}");
        assert_eq!(found, (ids, mask.to_string()), "{title}");
        models.insert(model);
    }
    assert_eq!(models.len(), 6);
}

/// Without marks, the assistant's turns are found by prefixes. For Qwen, the line break after the role is of the prompt here, and
/// learned by TRL.
#[test]
fn the_masks_of_the_models_own_templates_are_those_of_trl_where_prefixes_tell() {
    let expected = expected();
    let tokenizer = Tokenizer::from_dir(folder()).unwrap();
    let mut same = Vec::new();
    let mut unknown = Vec::new();
    for case in expected["cases"].as_array().unwrap() {
        let model = case["model"].as_str().unwrap();
        let Some(mask) = case["mask"].as_str() else {
            continue;
        };
        let title = format!("{model} {}", case["conversation"].as_str().unwrap());
        let template = template(&expected, model, "template").unwrap();
        let chat = conversation(case);
        let (ids, found) = match encoded(&tokenizer, &template, &chat) {
            Ok(found) => found,
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("otherwise than in the whole"), "{message}");
                unknown.push(title);
                continue;
            }
        };
        if ids != case["training_ids"] {
            // TRL's template writes other texts than the model's own.
            assert!(
                title.starts_with("qwen3") || title.starts_with("gemma3"),
                "{title}"
            );
            continue;
        }
        let mask = match model {
            "qwen2_5" => mask.replace("01", "00"),
            _ => mask.to_string(),
        };
        assert_eq!(found, mask, "{title}");
        same.push(title);
    }
    assert_eq!(
        unknown,
        [
            "qwen3 turns",
            "qwen3 system",
            "qwen3 thoughts",
            "qwen3 tools"
        ]
    );
    let models = ["qwen2_5", "qwen3", "llama3", "gemma", "gemma3", "phi3"];
    let counts = models.map(|model| {
        let of_model = |title: &&String| title.starts_with(&format!("{model} "));
        same.iter().filter(of_model).count()
    });
    assert_eq!(counts, [6, 2, 6, 3, 4, 6]);
}

#[test]
fn behaviours_of_python_are_those_of_transformers_environment() {
    let expected = expected();
    let context = expected["context"].as_object().unwrap();
    let mut wrong = Vec::new();
    for snippet in expected["snippets"].as_array().unwrap() {
        let source = snippet["source"].as_str().unwrap();
        let mut variables: Map<String, Value> = context.clone();
        variables.remove("messages");
        let chat = conversation(&expected["context"]);
        let found = ChatTemplate::from_source("t", source).and_then(|template| {
            template
                .with_variables(variables)
                .render(&chat, TrainOn::All)
        });
        match (found, snippet["text"].as_str()) {
            (Ok(found), Some(text)) if found.text == text => {}
            (Err(_), None) => {}
            (found, text) => wrong.push(format!("{source}\n  {found:?}\n  {text:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Expected texts as Python 3.11 and Jinja 3.1 have them.
#[test]
fn widths_and_keywords_are_those_of_python() {
    let chat = Conversation::new([Message::new("user", "ab"), Message::new("user", "cd")]);
    for (source, text) in [
        (
            "{{ 'a'.rjust(-1) }}{{ 'b'.center(-9) }}{{ 'c'.ljust(-2) }}{{ '-d'.zfill(-3) }}",
            "abc-d",
        ),
        ("{{ 'a'.rjust(3, 'é') }}{{ '-1'.zfill(4) }}", "ééa-001"),
        ("{{ 'a\nb' | indent(width=2) }}", "a\n  b"),
        ("{{ 'a\nb' | indent(2, first=true) }}", "  a\n  b"),
        (
            "{{ ['a', 'b'] | join(d='-') }}{{ 'xyz' | join('.') }}{{ [1, none] | join }}",
            "a-bx.y.z1None",
        ),
        ("{{ messages | join(', ', attribute='content') }}", "ab, cd"),
        (
            "{{ [[1, [2, 3]], [4, [5, 6]]] | join(attribute='1.0') }}",
            "25",
        ),
        ("{{ messages | join('/', 'role') }}", "user/user"),
    ] {
        let template = ChatTemplate::from_source("t", source).unwrap();
        let found = template
            .prompt(&chat)
            .unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(found, text, "{source}");
    }
}

/// Each of these would take more memory or time than there is.
#[test]
fn hostile_templates_end_in_errors() {
    let chat = Conversation::new([Message::new("user", "0123456789")]);
    let doubling = |operation: &str| {
        let set = format!("{{% set ns.s = {operation} %}}");
        format!(
            "{{% set ns = namespace(s=messages[0].content) %}}{{% for i in range(60) %}}{set}{{% endfor %}}"
        )
    };
    let deepening = |operation: &str| {
        let set = format!("{{% set ns.x = {operation} %}}");
        format!("{{% set ns = namespace(x=[1]) %}}{{% for i in range(99999) %}}{set}{{% endfor %}}")
    };
    for source in [
        doubling("ns.s ~ ns.s"),
        doubling("ns.s + ns.s"),
        doubling("'' ~ (ns.s ~ ns.s)"),
        doubling("ns.s * 10"),
        doubling("ns.s | replace('0', ns.s)"),
        doubling("ns.s.replace('', ns.s)"),
        doubling("[ns.s, ns.s] | join"),
        doubling("''.join([ns.s, ns.s])"),
        doubling("'{0}{0}'.format(ns.s)"),
        doubling("'%s%s' | format(ns.s, ns.s)"),
        doubling("ns.s | indent(99999)"),
        doubling("[ns.s, ns.s] | tojson"),
        doubling("[ns.s, ns.s] | string"),
        doubling("(ns.s | list) + (ns.s | list)"),
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = t %}{% endfor %}".into(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".into(),
        "{% for i in range(99999) %}{{ messages[0].content * 9000 }}{% endfor %}".into(),
        format!("{{% set x %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}", "x".repeat(9000)),
        format!("{{% for i in range(99999) %}}{}{{{{ i }}}}{{% endfor %}}", "\n".repeat(9000)),
        format!("{{% for i in range(99999) %}}{{% raw %}}{}{{% endraw %}}{{% endfor %}}", "x".repeat(9000)),
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}".into(),
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(0) }}".into(),
        "{{ [1] * 99999999999 }}".into(),
        "{{ ([1] * 99999999999) | list }}".into(),
        "{{ 5 in [1] * 99999999999 }}".into(),
        "{{ [1] | batch(999999999, 0) | list }}".into(),
        "{{ [1] | slice(999999999) | list }}".into(),
        "{{ '%999999999d' | format(1) }}".into(),
        "{{ '{:>999999999}'.format(1) }}".into(),
        "{{ 'a'.center(999999999) }}".into(),
        "{{ [1] | tojson(indent=999999999) }}".into(),
        "{{ 'a\nb' | indent(width=20000000000) }}".into(),
        "{{ 'a\nb' | indent(18446744073709551615) }}".into(),
        "{{ 'a\nb' | indent(none, width=20000000000) }}".into(),
        "{{ [1] | batch(3, fill_with=0) | list }}".into(),
        "{{ ['a', 'b'] | join(separator='-') }}".into(),
        "{{ 'a'.rjust(9, 'bc') }}{{ 'a'.ljust(9, '') }}".into(),
        "{{ 'a'.center(9000, messages[0].content) }}".into(),
        format!("{{% set x = [1] %}}{}{{{{ x }}}}", "{% set x = [x] %}".repeat(5000)),
        format!("{{% set x = 1 %}}{}{{{{ x|tojson }}}}", "{% set x = {'a': x} %}".repeat(5000)),
        deepening("[ns.x]"),
        format!("{{% set x = 1 %}}{}{{{{ x }}}}", "{% set x = (x,) %}".repeat(5000)),
        deepening("(ns.x, 1)"),
        deepening("(ns.x, 1)[:]"),
        deepening("{'a': ns.x}"),
        deepening("dict(a=ns.x)"),
        deepening("[[ns.x]][:]"),
        deepening("ns.x | list | batch(1) | list"),
        deepening("namespace(x=ns.x)"),
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}".into(),
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns | tojson }}".into(),
        "{% macro made__(x) %}{% endmacro %}".into(),
        format!("{{% set s = 'x' * 9000 %}}{}", "{% for i in range(99999) %}{% set t = s[1:] %}{% endfor %}"),
        format!("{{% set s = 'x' * 9000 %}}{}", "{% for i in range(99999) %}{% set t = s[:].strip() %}{% endfor %}"),
        doubling("ns.s.casefold() + ns.s.removeprefix('x')"),
        "{% for i in range(99999) %}{% set x = 'a'.rjust(9000) %}{% endfor %}".into(),
        "{{ 1.5 | round(999999999) }}{{ raise_exception('x') }}".into(),
        "{{ ".to_string() + &"(".repeat(10_000),
        "{{ ".to_string() + &"-".repeat(10_000) + "1 }}",
        "{{ ".to_string() + &"not ".repeat(10_000) + "1 }}",
        "{{ a".to_string() + &".b".repeat(10_000) + " }}",
        "{{ 1".to_string() + &" + 1".repeat(10_000) + " }}",
        "{{ 1".to_string() + &" if 1 else 1".repeat(10_000) + " }}",
        "{{ a".to_string() + &"|upper".repeat(10_000) + " }}",
        "{% if x %}".to_string() + &"{% elif x %}".repeat(10_000) + "{% endif %}",
        "{% if true %}".repeat(10_000),
        "{% for i in [1] %}".repeat(10_000),
        "{% macro f() %}".repeat(10_000),
        "{% include 'x' %}".into(),
        "{{ range(99999999999) }}".into(),
        "x".repeat(2 << 20),
    ] {
        let start = std::time::Instant::now();
        let result = ChatTemplate::from_source("hostile.jinja", source.clone())
            .and_then(|template| template.prompt(&chat));
        let shown: String = source.chars().take(200).collect();
        let error = result.map(|text| text.len()).expect_err(&shown).to_string();
        assert!(error.starts_with("chat template hostile.jinja: "), "{error}");
        assert!(start.elapsed().as_secs() < 20, "{shown}: {:?}", start.elapsed());
    }
}

/// A template within the limits does not overflow the stack of a thread.
#[test]
fn the_deepest_template_that_is_allowed_is_compiled() {
    let chat = Conversation::new([Message::new("user", "a")]);
    for source in [
        "{{ 1".to_string() + &" + 1".repeat(498) + " }}",
        "{{ 1".to_string() + &" if 1 else 1".repeat(249) + " }}",
        "{{ messages".to_string() + &"|list".repeat(499) + " }}",
        "{{ ".to_string() + &"-".repeat(10) + "1 }}",
        "{{ ".to_string() + &"[".repeat(40) + &"]".repeat(40) + " }}",
        "{% if x %}".to_string() + &"{% elif x %}".repeat(300) + "{% endif %}",
        "{% if true %}".repeat(120) + &"{% endif %}".repeat(120),
    ] {
        let template = ChatTemplate::from_source("deep.jinja", source.clone());
        let shown: String = source.chars().take(60).collect();
        let template = template.unwrap_or_else(|error| panic!("{shown}: {error}"));
        template
            .prompt(&chat)
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
    }
}

#[test]
fn a_stream_holds_back_characters_that_are_split_between_tokens() {
    let tokenizer = Tokenizer::from_dir(folder()).unwrap();
    let text = "naïve 🙂 日本 <|im_end|>end é";
    let mut stream = TextStream::new(&tokenizer);
    let mut pieces = Vec::new();
    for token in tokenizer.encode(text).unwrap() {
        pieces.push(stream.push(token).unwrap());
    }
    pieces.push(stream.finish().unwrap());
    assert_eq!(pieces.concat(), text.replace("<|im_end|>", ""));
    assert!(
        pieces.iter().all(|piece| !piece.contains('\u{fffd}')),
        "{pieces:?}"
    );
    // One of four bytes is no character, but it is shown in the end.
    let ids = tokenizer.encode("🙂").unwrap();
    let mut stream = TextStream::new(&tokenizer);
    assert_eq!(stream.push(ids[0]).unwrap(), "");
    assert_eq!(stream.finish().unwrap(), "\u{fffd}");
}

#[test]
fn a_streamed_text_is_the_generated_one() {
    let device = Device::flex();
    let (model, _) = load("gpt2_tied", &device);
    let tokenizer = Tokenizer::from_dir(fixture("gpt2_tied")).unwrap();
    let sampling = Strategy::Sample(Sampling::default());
    for strategy in [
        Strategy::Greedy,
        sampling,
        Strategy::Beam(BeamSearch::default()),
    ] {
        let config = GenerationConfig::new(20).with_strategy(strategy);
        let prompt = tokenizer.encode("The Mill").unwrap();
        let mut generator = Generator::new(&model, config, &device);
        let mut text = String::new();
        let streamed = generator
            .stream(&prompt, &tokenizer, |piece| text += piece)
            .unwrap();
        let whole = generator.generate(&[prompt]).unwrap();
        assert_eq!(streamed, whole[0]);
        assert_eq!(text, tokenizer.decode(&streamed.tokens, true).unwrap());
    }
}
