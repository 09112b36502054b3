//! Adapters that are uploaded to a server made here, which keeps what it is sent as the Hub does.

use crate::common::fixture;
use crate::hub_server::{Reply, Request, Server};
use lora_core::file::StoredAdapter;
use lora_models::ModelError;
use lora_models::hub::{HubOptions, PushOptions, Pushed, push};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

const TOKEN: &str = "hf_write";
const SIGNED: &str = "signed";

/// State of a server with one repository.
#[derive(Default)]
struct State {
    /// True once the repository is there.
    exists: bool,
    created: Option<Value>,
    branches: Vec<String>,
    /// Files of the last commit by name, and its header.
    files: BTreeMap<String, Vec<u8>>,
    header: Value,
    /// Large files by their hash, and parts of them by number.
    stored: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<usize, Vec<u8>>,
    /// Size of the parts of large files; `None` for whole files.
    part: Option<usize>,
    /// Status and message in place of the answer to a request whose path contains a text.
    refusal: Option<(&'static str, u16, &'static str)>,
    requests: Vec<String>,
    tokens: Vec<(bool, bool)>,
}

struct Hub {
    state: Arc<Mutex<State>>,
    server: Server,
    _storage: Server,
    _cache: tempfile::TempDir,
    options: HubOptions,
}

impl Hub {
    fn start(state: State) -> Self {
        let state = Arc::new(Mutex::new(state));
        let here = state.clone();
        let storage = Server::start(move |request| here.lock().unwrap().store(request));
        let (here, address) = (state.clone(), storage.address.clone());
        let server = Server::start(move |request| here.lock().unwrap().answer(request, &address));
        let cache = tempfile::tempdir().unwrap();
        let url = format!("http://{}", server.address);
        let options = HubOptions::new(url, cache.path()).with_token(TOKEN);
        Self {
            state,
            server,
            _storage: storage,
            _cache: cache,
            options,
        }
    }

    fn push(&self, dir: &Path, name: &str, options: &PushOptions) -> Result<Pushed, ModelError> {
        push(dir, name, options, &self.options, &mut |_, _, _| ())
    }

    fn error(&self, dir: &Path) -> String {
        let pushed = self.push(dir, "me/adapter", &PushOptions::default());
        pushed.unwrap_err().to_string()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.address)
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

impl State {
    /// Answers a request to the server.
    fn answer(&mut self, request: &Request, storage: &str) -> Reply {
        self.requests
            .push(format!("{} {}", request.method, request.path));
        let token = request.headers.get("authorization");
        self.tokens
            .push((true, token == Some(&format!("Bearer {TOKEN}"))));
        if let Some((path, status, message)) = self.refusal
            && request.path.contains(path)
        {
            return Reply::new(status, "{}").with("x-error-message", message);
        }
        let json: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let repo = "/api/models/me/adapter/";
        match request.path.strip_prefix(repo) {
            None if request.path == "/api/repos/create" => {
                let status = if self.exists { 409 } else { 200 };
                self.exists = true;
                self.created = Some(json);
                let url = json!({"url": "https://huggingface.co/me/adapter"});
                Reply::new(status, url.to_string())
            }
            None if request.path == "/api/models/me/adapter" => Reply::new(200, "{}"),
            None => {
                assert_eq!(request.path, "/me/adapter.git/info/lfs/objects/batch");
                self.batch(&json, storage)
            }
            Some(path) => match path.split_once('/').unwrap() {
                ("branch", branch) => {
                    self.branches.push(branch.to_string());
                    Reply::new(200, "{}")
                }
                ("preupload", _) => {
                    let files = json["files"].as_array().unwrap().iter().map(|file| {
                        let name = file["path"].as_str().unwrap();
                        assert!(!file["sample"].as_str().unwrap().is_empty());
                        let mode = if is_large(name) { "lfs" } else { "regular" };
                        json!({"path": name, "uploadMode": mode, "shouldIgnore": name == "merges.txt"})
                    });
                    let files: Vec<Value> = files.collect();
                    Reply::new(200, json!({"files": files}).to_string())
                }
                ("verify", oid) => {
                    assert_eq!(
                        self.stored[oid].len() as u64,
                        json["size"].as_u64().unwrap()
                    );
                    Reply::new(200, "{}")
                }
                ("complete", oid) => {
                    let parts = json["parts"].as_array().unwrap();
                    assert!(parts.iter().all(|part| part["etag"] == "\"tag\""));
                    let whole = std::mem::take(&mut self.parts);
                    assert_eq!(whole.len(), parts.len());
                    let whole = whole.into_values().collect::<Vec<_>>().concat();
                    self.stored.insert(oid.to_string(), whole);
                    Reply::new(200, "{}")
                }
                ("commit", _) => self.commit(&request.body),
                other => panic!("{other:?}"),
            },
        }
    }

    fn batch(&mut self, json: &Value, storage: &str) -> Reply {
        let mut objects = Vec::new();
        for object in json["objects"].as_array().unwrap() {
            let oid = object["oid"].as_str().unwrap();
            let size = usize::try_from(object["size"].as_u64().unwrap()).unwrap();
            if self.stored.contains_key(oid) {
                objects.push(json!({"oid": oid, "size": size}));
                continue;
            }
            // As the Hub answers also where it is reached by another address.
            let own = format!("https://huggingface.co/api/models/me/adapter/complete/{oid}");
            let verify = format!("https://huggingface.co/api/models/me/adapter/verify/{oid}");
            let upload = match self.part {
                None => json!({"href": format!("http://{storage}/{oid}?{SIGNED}")}),
                Some(part) => {
                    let mut header = json!({"chunk_size": part.to_string()});
                    for number in 1..=size.div_ceil(part) {
                        let url = format!("http://{storage}/{oid}?{SIGNED}&part={number}");
                        header[format!("{number:05}")] = url.into();
                    }
                    json!({"href": own, "header": header})
                }
            };
            let actions = json!({"upload": upload, "verify": {"href": verify}});
            objects.push(json!({"oid": oid, "size": size, "actions": actions}));
        }
        Reply::new(200, json!({"objects": objects}).to_string())
    }

    fn commit(&mut self, body: &[u8]) -> Reply {
        self.files.clear();
        for line in std::str::from_utf8(body).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let value = &line["value"];
            let path = || value["path"].as_str().unwrap().to_string();
            match line["key"].as_str().unwrap() {
                "header" => self.header = value.clone(),
                "file" => {
                    assert_eq!(value["encoding"], "base64");
                    let content = base64::decode(value["content"].as_str().unwrap()).unwrap();
                    self.files.insert(path(), content);
                }
                "lfsFile" => {
                    let content = self.stored[value["oid"].as_str().unwrap()].clone();
                    assert_eq!(value["size"], content.len());
                    self.files.insert(path(), content);
                }
                other => panic!("{other}"),
            }
        }
        Reply::new(200, r#"{"commitUrl": "x", "commitOid": "0123"}"#)
    }

    /// Answers a request to the storage.
    fn store(&mut self, request: &Request) -> Reply {
        self.tokens
            .push((false, request.headers.contains_key("authorization")));
        assert_eq!(request.method, "PUT");
        let (oid, query) = request.path[1..].split_once('?').unwrap();
        let body = request.body.clone();
        match query.split_once("&part=") {
            None => {
                let hash: String = Sha256::digest(&body)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                assert_eq!(oid, hash);
                self.stored.insert(hash, body);
            }
            Some((_, number)) => {
                self.parts.insert(number.parse().unwrap(), body);
            }
        }
        Reply::new(200, "").with("etag", "\"tag\"")
    }
}

/// An adapter with a prefix, its tokenizer and card, beside what a training leaves there.
fn adapter() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let lora = fixture("prefix/lora");
    fs::create_dir_all(dir.path().join("prefix")).unwrap();
    fs::create_dir_all(dir.path().join("checkpoints/step-2")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        for name in [name.to_string(), format!("prefix/{name}")] {
            fs::copy(lora.join(&name), dir.path().join(&name)).unwrap();
        }
    }
    for name in ["tokenizer.json", "merges.txt"] {
        fs::copy(fixture("tokenizer").join(name), dir.path().join(name)).unwrap();
    }
    for name in [
        "README.md",
        "optimizer.bpk",
        "metrics.jsonl",
        "adapter_model.bin",
        ".env",
        "checkpoints/step-2/state.json",
    ] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    dir
}

#[test]
fn an_adapter_is_committed_with_its_own_files_and_no_others() {
    let (hub, dir) = (Hub::start(State::default()), adapter());
    let options = PushOptions {
        private: true,
        revision: Some("v2".into()),
        message: Some("better".into()),
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
    hub.push(dir.path(), "me/adapter", &PushOptions::default())
        .unwrap();
    let state = hub.state.lock().unwrap();
    assert_eq!(state.files["README.md"], b"# Better");
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
        ("/commit", 503, "", "cannot be reached"),
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
