//! Answers of the server: refusals, faults, and what makes no sense.

use super::server::*;
use lora_models::hub::PushOptions;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

#[test]
fn refusals_say_what_to_do_and_nothing_is_committed() {
    let dir = adapter();
    for (path, status, message, expected) in [
        ("/create", 401, "Invalid token", "does not accept the token"),
        (
            "/preupload",
            401,
            "",
            "set HF_TOKEN to one with the right to write",
        ),
        (
            "/preupload",
            403,
            "read-only",
            "may not write to the repository",
        ),
        (
            "/preupload",
            404,
            "",
            "no such account, repository or branch",
        ),
        ("/create", 400, "Invalid name", "it says: Invalid name"),
        ("/commit", 409, "", "somebody else changed the repository"),
        ("/commit", 412, "", "try again"),
        ("/preupload", 503, "", "cannot be reached"),
        ("/batch", 413, "too large", "it says: too large"),
    ] {
        let hub = Hub::start(State {
            refusal: Some((path, status, message)),
            ..State::default()
        });
        // Where the repository is there, the right to create one is not needed.
        if path == "/create" && status == 401 {
            hub.push(dir.path(), "me/adapter", &PushOptions::default())
                .unwrap();
            let pushed = hub.push(dir.path(), "adapter", &PushOptions::default());
            let error = pushed.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            continue;
        }
        let error = hub.error(dir.path());
        assert!(error.contains(expected), "{path} {status}: {error}");
        assert!(error.contains("me/adapter"), "{error}");
        assert!(!error.contains(TOKEN), "{error}");
        assert!(
            hub.state.lock().unwrap().files.is_empty(),
            "{path} {status}"
        );
    }
}

#[test]
fn each_file_has_one_known_mode_and_what_is_large_is_not_sent_within_the_commit() {
    let dir = adapter();
    let cases: [(ModeChange, &str); 4] = [
        (|files| drop(files.remove(1)), "does not say how it takes"),
        (
            |files| files.push(files[0].clone()),
            "does not say how it takes",
        ),
        (
            |files| files[0]["uploadMode"] = "xet".into(),
            "does not answer as a model server",
        ),
        (
            |files| drop(files[0].as_object_mut().unwrap().remove("uploadMode")),
            "uploadMode",
        ),
    ];
    for (modes, expected) in cases {
        let hub = Hub::start(State {
            modes: Some(modes),
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(error.contains(expected), "{error}");
        assert_eq!(hub.count("/batch") + hub.count("/commit/"), 0);
    }
    let file = fs::File::create(dir.path().join("README.md")).unwrap();
    file.set_len(10_000_001).unwrap();
    let hub = Hub::start(State::default());
    let error = hub.error(dir.path());
    assert!(
        error.contains("README.md of 10000001 bytes") && error.contains(".gitattributes"),
        "{error}"
    );
    assert_eq!(hub.count("/batch") + hub.count("/commit/"), 0);
    file.set_len(10_000_000).unwrap();
    hub.push(dir.path(), "me/adapter", &PushOptions::default())
        .unwrap();
    assert_eq!(hub.state().files["README.md"].len(), 10_000_000);
}

#[test]
fn all_requests_but_for_the_repository_and_the_commit_are_repeated() {
    let dir = adapter();
    for part in [None, Some(1000)] {
        let mut faults: Vec<(&str, u16, &str)> = Vec::new();
        for path in ["/branch/", "/preupload", "/batch", SIGNED, "/verify"] {
            faults.extend([(path, 0, ""), (path, 503, "")]);
        }
        if part.is_some() {
            faults.extend([("/complete", 500, ""), ("/complete", 429, "")]);
        }
        let hub = Hub::start(State {
            faults,
            part,
            ..State::default()
        });
        let options = PushOptions {
            revision: Some("v2".into()),
            ..PushOptions::default()
        };
        hub.push(dir.path(), "me/adapter", &options).unwrap();
        let state = hub.state();
        assert!(state.faults.is_empty());
        for name in [
            "adapter_model.safetensors",
            "prefix/adapter_model.safetensors",
        ] {
            assert_eq!(state.files[name], fs::read(dir.path().join(name)).unwrap());
        }
    }
    for (path, attempts) in [("/create", 1), ("/preupload", 5)] {
        let hub = Hub::start(State {
            refusal: Some((path, 502, "")),
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(
            error.contains("cannot be reached: it answered 502"),
            "{error}"
        );
        assert_eq!(hub.count(path), attempts);
    }
}

#[test]
fn the_server_may_take_its_time_to_put_parts_together_and_to_commit() {
    let dir = adapter();
    for path in ["/complete", "/verify", "/commit/"] {
        let slow = Some((path, Duration::from_millis(1300)));
        let hub = Hub::start(State {
            slow,
            part: Some(4000),
            ..State::default()
        });
        let options = hub.options.clone().with_time_limit(Duration::from_secs(1));
        let push = PushOptions::default();
        push_with(dir.path(), &push, &options).unwrap();
        assert!(hub.count(path) <= 2, "{path}");
    }
}

#[test]
fn reasons_come_from_the_body_too_and_the_storage_has_its_own() {
    let dir = adapter();
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    for (path, status, body, expected) in [
        (
            "/commit/",
            400,
            r#"{"error": "Invalid card", "errors": [{"message": "no license"}]}"#,
            "Invalid card; no license",
        ),
        (
            "/preupload",
            403,
            r#"{"error": "read-only token"}"#,
            "it says: read-only token",
        ),
        (
            "/create",
            409,
            r#"{"error": "Cannot create repo: another conflicting operation is in progress"}"#,
            "busy with another",
        ),
        (SIGNED, 403, expired, "its address has expired; try again"),
        (
            SIGNED,
            400,
            "<Error><Message>Bad digest</Message></Error>",
            "the storage answered 400",
        ),
    ] {
        let hub = Hub::start(State {
            faults: vec![(path, status, body)],
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(error.contains(expected), "{path}: {error}");
        assert_eq!(error.contains("token"), path == "/preupload", "{error}");
        assert!(hub.state().files.is_empty());
    }
}

#[test]
fn odd_answers_about_the_storage_are_errors_and_an_empty_header_is_none() {
    let dir = adapter();
    let hub = Hub::start(State {
        batch: Some(|answer| headers(answer, json!(null))),
        ..State::default()
    });
    hub.push(dir.path(), "me/adapter", &PushOptions::default())
        .unwrap();
    let number: fn(&mut Value) = |answer| headers(answer, json!({"chunk_size": "many"}));
    let addresses: fn(&mut Value) =
        |answer| headers(answer, json!({"chunk_size": 1000, "1": "http://x"}));
    for (batch, without_etag, expected) in [
        (Some(number), false, "parts of \"many\" bytes"),
        (Some(addresses), false, "1 addresses"),
        (None, true, "no ETag of part 1"),
    ] {
        let hub = Hub::start(State {
            batch,
            without_etag,
            part: Some(1000),
            ..State::default()
        });
        let error = hub.error(dir.path());
        assert!(error.contains(expected), "{error}");
        assert_eq!(hub.count("/complete") + hub.count("/commit/"), 0);
    }
}

fn headers(answer: &mut Value, header: Value) {
    for object in answer["objects"].as_array_mut().unwrap() {
        object["actions"]["upload"]["header"] = header.clone();
    }
}
