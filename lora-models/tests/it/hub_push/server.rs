//! Server that keeps what it is sent as the Hub does, and an adapter to send.

use crate::common::fixture;
use crate::hub_server::{Reply, Request, Server};
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

pub(super) const TOKEN: &str = "hf_write";
pub(super) const SIGNED: &str = "signed";

/// Change of an answer about the modes of files.
pub(super) type ModeChange = fn(&mut Vec<Value>);

/// State of a server with one repository.
#[derive(Default)]
pub(super) struct State {
    /// True once the repository is there.
    pub(super) exists: bool,
    pub(super) created: Option<Value>,
    pub(super) branches: Vec<String>,
    /// True if it is private; `None` if the server does not say.
    pub(super) private: Option<bool>,
    /// Files of all commits by name, names of those of the last one, and its header.
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) last: Vec<String>,
    pub(super) header: Value,
    /// Large files by their hash, and parts of them by number.
    pub(super) stored: BTreeMap<String, Vec<u8>>,
    pub(super) parts: BTreeMap<usize, Vec<u8>>,
    /// Size of the parts of large files; `None` for whole files.
    pub(super) part: Option<usize>,
    /// Status and message in place of the answer to a request whose path contains a text.
    pub(super) refusal: Option<(&'static str, u16, &'static str)>,
    /// Answers in place of the next ones to requests whose path contains a text: status and body, with the status 0 for none.
    pub(super) faults: Vec<(&'static str, u16, &'static str)>,
    /// Path with which a request waits for its answer, and how long.
    pub(super) slow: Option<(&'static str, Duration)>,
    /// Changes of answers: about the modes of files, and about the storage.
    pub(super) modes: Option<ModeChange>,
    pub(super) batch: Option<fn(&mut Value)>,
    /// True if the storage sends no ETag.
    pub(super) without_etag: bool,
    /// File that is cut when the storage is asked for.
    pub(super) cut: Option<PathBuf>,
    pub(super) requests: Vec<String>,
    pub(super) tokens: Vec<(bool, bool)>,
}

pub(super) struct Hub {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) server: Server,
    _storage: Server,
    _cache: tempfile::TempDir,
    pub(super) options: HubOptions,
}

impl Hub {
    pub(super) fn start(state: State) -> Self {
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

    pub(super) fn push(
        &self,
        dir: &Path,
        name: &str,
        options: &PushOptions,
    ) -> Result<Pushed, ModelError> {
        push(dir, name, options, &self.options, &mut |_, _, _| ())
    }

    pub(super) fn error(&self, dir: &Path) -> String {
        let pushed = self.push(dir, "me/adapter", &PushOptions::default());
        pushed.unwrap_err().to_string()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the number of requests whose path contains a text.
    pub(super) fn count(&self, path: &str) -> usize {
        let state = self.state();
        let requests = state.requests.iter();
        requests.filter(|request| request.contains(path)).count()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.server.address)
    }
}

pub(super) fn is_large(name: &str) -> bool {
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
pub(super) fn oid(name: &str, content: &[u8]) -> String {
    if is_large(name) {
        hex(&Sha256::digest(content))
    } else {
        let object = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
        hex(&object.chain_update(content).finalize())
    }
}

pub(super) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An adapter with a prefix, its tokenizer and card, beside what a training leaves there.
pub(super) fn adapter() -> tempfile::TempDir {
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

pub(super) fn push_with(
    dir: &Path,
    options: &PushOptions,
    hub: &HubOptions,
) -> Result<Pushed, ModelError> {
    push(dir, "me/adapter", options, hub, &mut |_, _, _| ())
}
