//! Commits: their files, headers and branches.

use super::server::*;
use lora_core::file::StoredAdapter;
use lora_models::hub::{PushOptions, push};
use serde_json::{Value, json};
use std::fs;

#[test]
fn an_adapter_is_committed_with_its_own_files_and_no_others() {
    let (hub, dir) = (Hub::start(State::default()), adapter());
    let options = PushOptions {
        private: true,
        revision: Some("v2".into()),
        message: Some("better".into()),
        ..PushOptions::default()
    };
    let mut seen = Vec::new();
    let pushed = push(
        dir.path(),
        "me/adapter",
        &options,
        &hub.options,
        &mut |file, done, all| {
            seen.push((file.to_string(), done, all));
        },
    );
    let pushed = pushed.unwrap();
    let state = hub.state.lock().unwrap();
    let sent = [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "prefix/adapter_config.json",
        "prefix/adapter_model.safetensors",
        "tokenizer.json",
    ];
    assert_eq!(pushed.files, sent);
    assert_eq!(pushed.ignored, ["merges.txt"]);
    assert!(pushed.unchanged.is_empty());
    assert_eq!(pushed.commit.as_deref(), Some("0123"));
    assert_eq!(
        pushed.commit_url.as_deref(),
        Some("https://hub/commit/0123")
    );
    assert_eq!(state.files.keys().collect::<Vec<_>>(), sent);
    for (name, content) in &state.files {
        assert_eq!(*content, fs::read(dir.path().join(name)).unwrap(), "{name}");
        let size = content.len() as u64;
        assert!(seen.contains(&(name.clone(), size, size)), "{name}");
    }
    assert_eq!(pushed.url, hub.url("me/adapter/tree/v2"));
    assert_eq!(state.header["summary"], "better");
    assert_eq!(state.branches, ["v2"]);
    let created = json!({"name": "adapter", "organization": "me", "visibility": "private"});
    assert_eq!(state.created, Some(created));
    assert!(
        state
            .requests
            .contains(&"POST /api/models/me/adapter/commit/v2".to_string())
    );
    // The storage is another server, whose addresses are signed.
    assert!(state.tokens.iter().all(|(own, token)| own == token));
    assert!(state.tokens.iter().any(|(own, _)| !own));

    // It is the adapter that it was.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("prefix")).unwrap();
    for (name, content) in &state.files {
        fs::write(copy.path().join(name), content).unwrap();
    }
    let [stored, sent] = [dir.path(), copy.path()].map(|dir| StoredAdapter::read(dir).unwrap());
    assert_eq!(stored.modules, sent.modules);
}

#[test]
fn a_repository_that_exists_gets_another_commit_and_stored_files_are_not_sent_again() {
    let (hub, dir) = (Hub::start(State::default()), adapter());
    let pushed = hub.push(dir.path(), "adapter", &PushOptions::default());
    // The server says whose it is.
    assert_eq!(pushed.unwrap().url, hub.url("me/adapter"));
    assert_eq!(
        hub.state.lock().unwrap().header["summary"],
        "Upload adapter"
    );
    let tokens = hub.state.lock().unwrap().tokens.len();
    fs::write(dir.path().join("README.md"), "# Better").unwrap();
    let pushed = hub.push(dir.path(), "me/adapter", &PushOptions::default());
    let pushed = pushed.unwrap();
    assert_eq!(pushed.files, ["README.md"]);
    assert_eq!(pushed.unchanged.len(), 5);
    let state = hub.state.lock().unwrap();
    assert_eq!(state.files["README.md"], b"# Better");
    assert_eq!(state.last, ["README.md"]);
    assert!(state.files.contains_key("adapter_model.safetensors"));
    assert!(state.tokens[tokens..].iter().all(|(own, _)| *own));
    assert!(state.branches.is_empty());
}

#[test]
fn a_large_file_goes_in_parts() {
    let state = State {
        part: Some(1000),
        ..State::default()
    };
    let (hub, dir) = (Hub::start(state), adapter());
    hub.push(dir.path(), "me/adapter", &PushOptions::default())
        .unwrap();
    let state = hub.state.lock().unwrap();
    let name = "adapter_model.safetensors";
    let content = fs::read(dir.path().join(name)).unwrap();
    assert!(content.len() > 2000);
    assert_eq!(state.files[name], content);
}

#[test]
fn what_the_repository_has_already_is_no_commit() {
    let (hub, dir) = (Hub::start(State::default()), adapter());
    let push = || {
        hub.push(dir.path(), "me/adapter", &PushOptions::default())
            .unwrap()
    };
    push();
    let again = push();
    assert_eq!((again.commit.as_ref(), again.files.len()), (None, 0));
    assert_eq!(again.unchanged.len(), 6);
    assert_eq!(hub.count("/commit/"), 1);
    assert!(again.to_string().starts_with("nothing to change"));
    // A large file is known by its SHA-256, before the storage is asked.
    let batches = hub.count("/batch");
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert_eq!(push().files, ["tokenizer.json"]);
    assert_eq!(hub.count("/batch"), batches);
}

#[test]
fn a_commit_without_an_answer_may_have_been_made_and_is_sent_once() {
    let dir = adapter();
    for (status, body) in [
        (0, ""),
        (500, ""),
        (503, "busy"),
        (504, "<html>"),
        (200, "<html>"),
        (200, "{}"),
    ] {
        let hub = Hub::start(State {
            faults: vec![("/commit/", status, body)],
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(
            error.contains("may have been committed"),
            "{status} {body}: {error}"
        );
        assert!(
            error.contains(&hub.url("me/adapter/commits/main")),
            "{error}"
        );
        assert!(!error.contains("as it was"), "{error}");
        assert_eq!(hub.count("/commit/"), 1);
    }
}

#[test]
fn a_repository_that_is_to_be_private_and_exists_must_be() {
    let dir = adapter();
    let options = PushOptions {
        private: true,
        ..PushOptions::default()
    };
    for (private, status) in [
        (Some(false), 409),
        (None, 409),
        (Some(true), 409),
        // Where the token may not create repositories.
        (Some(false), 403),
        (Some(true), 403),
    ] {
        let hub = Hub::start(State {
            exists: true,
            private,
            faults: match status {
                409 => Vec::new(),
                status => vec![("/create", status, "{}")],
            },
            ..State::default()
        });
        let pushed = hub.push(dir.path(), "me/adapter", &options);
        if private == Some(true) {
            pushed.unwrap();
            continue;
        }
        let error = pushed.unwrap_err().to_string();
        assert!(
            error.contains("not private") && error.contains("--private"),
            "{error}"
        );
        assert_eq!(hub.count("/preupload"), 0);
        hub.push(dir.path(), "me/adapter", &PushOptions::default())
            .unwrap();
    }
}

#[test]
fn a_base_model_on_this_computer_is_named_as_the_hub_does() {
    const BASE: &str = "base_model_name_or_path";
    let dir = adapter();
    let configs = ["adapter_config.json", "prefix/adapter_config.json"];
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap()
    };
    let hub = Hub::start(State::default());
    let here = dir.path().to_str().unwrap();
    for (config, base) in [
        (configs[0], here),
        (configs[0], "../models/gpt2"),
        (configs[0], "~/gpt2"),
        (configs[0], "C:\\models\\gpt2"),
        (configs[0], "a/b/c"),
        (configs[1], "/home/me/gpt2"),
    ] {
        let before = read(config);
        let mut keys = before.clone();
        keys[BASE] = base.into();
        fs::write(dir.path().join(config), keys.to_string()).unwrap();
        let error = hub.error(dir.path());
        assert!(
            error.contains(base) && error.contains("--base-model"),
            "{error}"
        );
        assert_eq!(hub.state().requests.len(), 0);
        if config == configs[0] {
            fs::write(dir.path().join(config), before.to_string()).unwrap();
        }
    }
    let with = |base: &str| PushOptions {
        base_model: Some(base.into()),
        ..PushOptions::default()
    };
    for odd in ["/home/me/gpt2", "gpt2@main", "", "a/b/c"] {
        let error = hub
            .push(dir.path(), "me/adapter", &with(odd))
            .unwrap_err()
            .to_string();
        assert!(error.contains("to publish"), "{error}");
    }
    hub.push(dir.path(), "me/adapter", &with("openai-community/gpt2"))
        .unwrap();
    let state = hub.state();
    for config in configs {
        let (mut own, sent) = (
            read(config),
            serde_json::from_slice::<Value>(&state.files[config]).unwrap(),
        );
        assert_eq!(sent[BASE], "openai-community/gpt2");
        assert_ne!(own[BASE], sent[BASE]);
        own[BASE] = sent[BASE].clone();
        assert_eq!(own, sent);
    }
}
