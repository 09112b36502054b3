//! Adapters that are uploaded to a server made here, which keeps what it is sent as the Hub does.

use crate::common::fixture;
use crate::hub_server::{Reply, Request, Server};
use lora_core::file::StoredAdapter;
use lora_models::ModelError;
use lora_models::hub::{HubOptions, PushOptions, Pushed, push};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const TOKEN: &str = "hf_write";
const SIGNED: &str = "signed";

/// Change of an answer about the modes of files.
type ModeChange = fn(&mut Vec<Value>);

/// State of a server with one repository.
#[derive(Default)]
struct State {
    /// True once the repository is there.
    exists: bool,
    created: Option<Value>,
    branches: Vec<String>,
    /// True if it is private; `None` if the server does not say.
    private: Option<bool>,
    /// Files of all commits by name, names of those of the last one, and its header.
    files: BTreeMap<String, Vec<u8>>,
    last: Vec<String>,
    header: Value,
    /// Large files by their hash, and parts of them by number.
    stored: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<usize, Vec<u8>>,
    /// Size of the parts of large files; `None` for whole files.
    part: Option<usize>,
    /// Status and message in place of the answer to a request whose path contains a text.
    refusal: Option<(&'static str, u16, &'static str)>,
    /// Answers in place of the next ones to requests whose path contains a text: status and body, with the status 0 for none.
    faults: Vec<(&'static str, u16, &'static str)>,
    /// Path with which a request waits for its answer, and how long.
    slow: Option<(&'static str, Duration)>,
    /// Changes of answers: about the modes of files, and about the storage.
    modes: Option<ModeChange>,
    batch: Option<fn(&mut Value)>,
    /// True if the storage sends no ETag.
    without_etag: bool,
    /// File that is cut when the storage is asked for.
    cut: Option<PathBuf>,
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the number of requests whose path contains a text.
    fn count(&self, path: &str) -> usize {
        let state = self.state();
        let requests = state.requests.iter();
        requests.filter(|request| request.contains(path)).count()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.address)
    }
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

impl State {
    /// Returns the next fault of a path.
    fn fault(&mut self, path: &str) -> Option<Reply> {
        if let Some((slow, time)) = self.slow
            && path.contains(slow)
        {
            std::thread::sleep(time);
        }
        let mut faults = self.faults.iter();
        let at = faults.position(|(faulty, _, _)| path.contains(faulty))?;
        let (_, status, body) = self.faults.remove(at);
        Some(match status {
            0 => Reply::lost(),
            status => Reply::new(status, body),
        })
    }

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
        if let Some(fault) = self.fault(&request.path) {
            return fault;
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
            None if request.path == "/api/models/me/adapter" => {
                Reply::new(200, json!({"private": self.private}).to_string())
            }
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
                        let oid = self.files.get(name).map(|content| oid(name, content));
                        json!({
                            "path": name, "uploadMode": mode, "shouldIgnore": name == "merges.txt", "oid": oid
                        })
                    });
                    let mut files: Vec<Value> = files.collect();
                    if let Some(change) = self.modes {
                        change(&mut files);
                    }
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
        if let Some(path) = self.cut.take() {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
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
        let mut answer = json!({"objects": objects});
        if let Some(change) = self.batch {
            change(&mut answer);
        }
        Reply::new(200, answer.to_string())
    }

    fn commit(&mut self, body: &[u8]) -> Reply {
        self.last.clear();
        for line in std::str::from_utf8(body).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let value = &line["value"];
            let path = || value["path"].as_str().unwrap().to_string();
            match line["key"].as_str().unwrap() {
                "header" => self.header = value.clone(),
                "file" => {
                    self.last.push(path());
                    assert_eq!(value["encoding"], "base64");
                    let content = base64::decode(value["content"].as_str().unwrap()).unwrap();
                    self.files.insert(path(), content);
                }
                "lfsFile" => {
                    self.last.push(path());
                    let content = self.stored[value["oid"].as_str().unwrap()].clone();
                    assert_eq!(value["size"], content.len());
                    self.files.insert(path(), content);
                }
                other => panic!("{other}"),
            }
        }
        Reply::new(
            200,
            r#"{"commitUrl": "https://hub/commit/0123", "commitOid": "0123"}"#,
        )
    }

    /// Answers a request to the storage.
    fn store(&mut self, request: &Request) -> Reply {
        self.tokens
            .push((false, request.headers.contains_key("authorization")));
        assert_eq!(request.method, "PUT");
        self.requests.push(format!("PUT {}", request.path));
        if let Some(fault) = self.fault(&request.path) {
            return fault;
        }
        let (oid, query) = request.path[1..].split_once('?').unwrap();
        let body = request.body.clone();
        match query.split_once("&part=") {
            None => {
                let hash = hex(&Sha256::digest(&body));
                assert_eq!(oid, hash);
                self.stored.insert(hash, body);
            }
            Some((_, number)) => {
                self.parts.insert(number.parse().unwrap(), body);
            }
        }
        let reply = Reply::new(200, "");
        if self.without_etag {
            return reply;
        }
        reply.with("etag", "\"tag\"")
    }
}

/// Name of a file's content: that of the storage or of git.
fn oid(name: &str, content: &[u8]) -> String {
    if is_large(name) {
        hex(&Sha256::digest(content))
    } else {
        let object = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
        hex(&object.chain_update(content).finalize())
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
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

fn push_with(dir: &Path, options: &PushOptions, hub: &HubOptions) -> Result<Pushed, ModelError> {
    push(dir, "me/adapter", options, hub, &mut |_, _, _| ())
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
