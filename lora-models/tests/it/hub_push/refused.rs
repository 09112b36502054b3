//! Directories that are not sent.

use super::server::*;
use crate::common::fixture;
use lora_models::hub::{HubOptions, PushOptions, push};
use serde_json::Value;
use std::fs;
use std::path::Path;

#[test]
fn what_is_no_adapter_needs_a_token_or_leads_elsewhere_is_not_sent() {
    let hub = Hub::start(State::default());
    let dir = adapter();
    let url = hub.url("");
    let push = |dir: &Path, name: &str, options: &HubOptions| {
        let pushed = push(
            dir,
            name,
            &PushOptions::default(),
            options,
            &mut |_, _, _| (),
        );
        pushed.unwrap_err().to_string()
    };
    let without = HubOptions::new(url, "");
    assert!(push(dir.path(), "me/adapter", &without).contains("HF_TOKEN"));
    let plain = HubOptions::new("http://hub.example", "").with_token(TOKEN);
    assert!(push(dir.path(), "me/adapter", &plain).contains("without encryption"));
    let offline = hub.options.clone().offline();
    assert!(push(dir.path(), "me/adapter", &offline).contains("HF_HUB_OFFLINE"));
    for name in ["", "../adapter", "a/b/c", "me/adapter@x y", "me/adapter@.."] {
        let message = push(dir.path(), name, &hub.options);
        assert!(message.contains("not a valid name"), "{name}: {message}");
    }
    let model = push(&fixture("gpt2_tied"), "me/adapter", &hub.options);
    assert!(model.contains("this is a model"), "{model}");
    #[cfg(unix)]
    {
        let secret = tempfile::NamedTempFile::new().unwrap();
        let card = dir.path().join("README.md");
        fs::remove_file(&card).unwrap();
        std::os::unix::fs::symlink(secret.path(), &card).unwrap();
        let message = push(dir.path(), "me/adapter", &hub.options);
        assert!(message.contains("outside of its directory"), "{message}");
        fs::remove_file(&card).unwrap();
        let weights = dir.path().join("adapter_model.safetensors");
        let elsewhere = secret.path().with_extension("safetensors");
        fs::rename(&weights, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &weights).unwrap();
        let message = push(dir.path(), "me/adapter", &hub.options);
        fs::remove_file(elsewhere).unwrap();
        assert!(message.contains("outside of its directory"), "{message}");
    }
    assert!(hub.state.lock().unwrap().requests.is_empty());
}

#[test]
fn files_without_which_an_adapter_is_of_no_use_must_not_be_ignored() {
    let dir = adapter();
    for name in ["adapter_config.json", "prefix/adapter_model.safetensors"] {
        let modes: ModeChange = match name {
            "adapter_config.json" => |files| ignore(files, "adapter_config.json"),
            _ => |files| ignore(files, "prefix/adapter_model.safetensors"),
        };
        let hub = Hub::start(State {
            modes: Some(modes),
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(
            error.contains(".gitignore") && error.contains(name),
            "{error}"
        );
        assert_eq!(hub.count("/batch") + hub.count("/commit/"), 0);
    }
}

fn ignore(files: &mut [Value], name: &str) {
    let file = files.iter_mut().find(|file| file["path"] == name);
    file.unwrap()["shouldIgnore"] = true.into();
}

#[test]
fn a_file_that_becomes_shorter_meanwhile_is_an_error() {
    for (name, part) in [
        ("adapter_model.safetensors", None),
        ("adapter_model.safetensors", Some(1000)),
        ("tokenizer.json", None),
    ] {
        let dir = adapter();
        let cut = Some(dir.path().join(name));
        let hub = Hub::start(State {
            cut,
            part,
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(
            error.contains("changed while it was uploaded") && error.contains(name),
            "{error}"
        );
        assert_eq!(hub.count("/commit/"), 0);
    }
}

#[test]
fn pointers_and_prefixes_without_tensors_are_not_sent() {
    let hub = Hub::start(State::default());
    for name in ["README.md", "tokenizer.json"] {
        let dir = adapter();
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
            "0".repeat(64)
        );
        fs::write(dir.path().join(name), pointer).unwrap();
        let error = hub.error(dir.path());
        assert!(
            error.contains("Git LFS pointer") && error.contains(name),
            "{error}"
        );
    }
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let dir = adapter();
        fs::remove_file(dir.path().join("prefix").join(name)).unwrap();
        let error = hub.error(dir.path());
        assert!(error.contains("prefix"), "{error}");
    }
    assert!(hub.state().requests.is_empty());
    // A directory of that name with something else is none of the adapter's.
    let dir = adapter();
    fs::remove_dir_all(dir.path().join("prefix")).unwrap();
    fs::create_dir(dir.path().join("prefix")).unwrap();
    fs::write(dir.path().join("prefix/notes.txt"), "x").unwrap();
    hub.push(dir.path(), "me/adapter", &PushOptions::default())
        .unwrap();
}
