//! Servers that speak as much of the Hub's protocol as downloading needs, and break it where they are told to.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const NEW_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// Fault of the next response with content.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The connection ends after so many bytes.
    Cut(usize),
    /// The whole file comes, whatever was asked for.
    WholeFile,
    /// A range comes that begins one byte earlier.
    OtherRange,
    /// The answer is 416, range not satisfiable.
    RangeRefused,
    /// The last byte is missing, and the length says so.
    Shorter,
    /// There is a byte more, and the length says so.
    Longer,
    /// There is a byte more, and no length.
    LongerUnannounced,
    /// A byte is another.
    Damaged,
    /// One byte comes after another, with so many milliseconds between them.
    Trickle(u64),
    /// After so many bytes nothing comes, and the connection stays.
    Silence(usize),
}

/// A model on the server. Files that end as weights do lie in the storage, and the server redirects there.
#[derive(Clone)]
pub struct Repo {
    pub id: String,
    /// A name that redirects to this one.
    pub old_id: Option<String>,
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Token without which requests are answered with 401.
    pub token: Option<String>,
    /// True if the files need granted access.
    pub gated: bool,
    /// ETag of all files in place of their own.
    pub etag: Option<String>,
    /// True if all requests are answered with 503.
    pub down: bool,
    /// True if any revision is answered with the commit.
    pub any_revision: bool,
    /// A file that is sent with another content than its ETag is of.
    pub damaged: Option<String>,
    /// Announced size of the weights in place of their own.
    pub size: Option<u64>,
}

impl Repo {
    pub fn of_dir(id: &str, dir: &Path) -> Self {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, std::fs::read(path).unwrap())
        };
        Self {
            id: id.to_string(),
            old_id: None,
            commit: COMMIT.to_string(),
            files: std::fs::read_dir(dir).unwrap().map(read).collect(),
            token: None,
            gated: false,
            etag: None,
            down: false,
            any_revision: false,
            damaged: None,
            size: None,
        }
    }
}

pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut lines = reader.by_ref().lines();
        let first = lines.next()?.ok()?;
        let mut words = first.split(' ');
        let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_string());
        }
        let length = headers
            .get("content-length")
            .map(|length| length.parse().unwrap());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        Some(Self {
            method,
            path,
            headers,
            body,
        })
    }

    /// The first byte asked for.
    fn range(&self) -> Option<usize> {
        let range = self.headers.get("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body to send.
    sent: usize,
    /// Pause after each byte, or after all that are sent.
    pause: Option<Pause>,
}

enum Pause {
    Each(Duration),
    End,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: vec![("content-length", body.len().to_string())],
            sent: body.len(),
            body,
            pause: None,
        }
    }

    /// No answer: the connection ends.
    pub fn lost() -> Self {
        Self::new(0, "")
    }

    fn error(status: u16, code: &'static str) -> Self {
        Self::new(status, "{}").with("x-error-code", code)
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.into()));
        self
    }

    fn write(self, mut stream: &TcpStream, with_body: bool) {
        if self.status == 0 {
            return;
        }
        let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        // Who asked may be gone, as it should after an error.
        let _ = stream.write_all(head.as_bytes());
        if !with_body {
            return;
        }
        let body = &self.body[..self.sent];
        match self.pause {
            Some(Pause::Each(pause)) => {
                for byte in body {
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                    std::thread::sleep(pause);
                }
            }
            pause => {
                let _ = stream.write_all(body);
                if pause.is_some() {
                    // Until the client has gone.
                    let _ = stream.read(&mut [0]);
                }
            }
        }
    }
}

/// A server that answers one connection after another with what a function says, until it is dropped.
pub struct Server {
    pub address: String,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                if let Some(request) = Request::read(&stream) {
                    answer(&request).write(&stream, request.method != "HEAD");
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            // A second panic would hide the first one.
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

#[derive(Default)]
struct Log {
    requests: Vec<String>,
    tokens: Vec<Option<String>>,
    storage_tokens: Vec<Option<String>>,
    ranges: Vec<Option<usize>>,
}

struct Shared {
    repo: Mutex<Repo>,
    faults: Mutex<VecDeque<Fault>>,
    log: Mutex<Log>,
}

/// The server of one model, and the storage it redirects to.
pub struct Hub {
    shared: Arc<Shared>,
    server: Server,
    _storage: Server,
}

impl Hub {
    pub fn start(repo: Repo) -> Self {
        let shared = Arc::new(Shared {
            repo: Mutex::new(repo),
            faults: Mutex::default(),
            log: Mutex::default(),
        });
        let here = shared.clone();
        let storage = Server::start(move |request| here.content(request));
        let (here, address) = (shared.clone(), storage.address.clone());
        let server = Server::start(move |request| here.answer(request, &address));
        Self {
            shared,
            server,
            _storage: storage,
        }
    }

    /// Returns the address, with a slash at its end, as people write it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.server.address)
    }

    /// Replaces the state of the model.
    pub fn serve(&self, repo: Repo) {
        *self.shared.repo.lock().unwrap() = repo;
    }

    /// Sets the faults of the next responses with content, one each.
    pub fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().extend(faults);
    }

    pub fn forget_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    pub fn forget_requests(&self) {
        *self.shared.log.lock().unwrap() = Log::default();
    }

    /// Returns method and path of each request to the server.
    pub fn requests(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().requests.clone()
    }

    /// Returns the authorization of each request to the server.
    pub fn tokens(&self) -> Vec<Option<String>> {
        self.shared.log.lock().unwrap().tokens.clone()
    }

    /// Returns the authorization of each request to the storage.
    pub fn storage_tokens(&self) -> Vec<Option<String>> {
        self.shared.log.lock().unwrap().storage_tokens.clone()
    }

    /// Returns the first byte that each request to the storage asked for.
    pub fn ranges(&self) -> Vec<Option<usize>> {
        self.shared.log.lock().unwrap().ranges.clone()
    }
}

impl Shared {
    /// Answers a request to the server.
    fn answer(&self, request: &Request, storage: &str) -> Reply {
        let repo = self.repo.lock().unwrap().clone();
        let token = request.headers.get("authorization").cloned();
        {
            let mut log = self.log.lock().unwrap();
            log.requests
                .push(format!("{} {}", request.method, request.path));
            log.tokens.push(token.clone());
        }
        if repo.down {
            return Reply::new(503, "");
        }
        if repo
            .token
            .as_ref()
            .is_some_and(|wanted| token != Some(format!("Bearer {wanted}")))
        {
            return Reply::error(401, "");
        }
        if let Some(old) = &repo.old_id
            && request.path.contains(&format!("/{old}/"))
        {
            let path = request
                .path
                .replacen(&format!("/{old}/"), &format!("/{}/", repo.id), 1);
            return Reply::new(307, "").with("location", path);
        }
        if let Some(revision) = request
            .path
            .strip_prefix(&format!("/api/models/{}/revision/", repo.id))
        {
            if revision != "main" && revision != repo.commit && !repo.any_revision {
                return Reply::error(404, "RevisionNotFound");
            }
            let names = repo
                .files
                .keys()
                .map(|name| serde_json::json!({"rfilename": name}));
            let list =
                serde_json::json!({"sha": repo.commit, "siblings": names.collect::<Vec<_>>()});
            return Reply::new(200, list.to_string());
        }
        let resolve = format!("/{}/resolve/{}/", repo.id, repo.commit);
        let Some(name) = request.path.strip_prefix(&resolve) else {
            return Reply::error(404, "RepoNotFound");
        };
        let Some(content) = repo.files.get(name) else {
            return Reply::error(404, "EntryNotFound");
        };
        if repo.gated {
            return Reply::error(401, "GatedRepo");
        }
        if name.ends_with(".safetensors") || name.ends_with(".bin") {
            let etag = repo.etag.unwrap_or_else(|| digits(Sha256::digest(content)));
            let size = repo.size.unwrap_or(content.len() as u64);
            Reply::new(302, "see there")
                .with("x-repo-commit", &repo.commit)
                .with("x-linked-etag", format!("\"{etag}\""))
                .with("x-linked-size", size.to_string())
                .with("etag", "\"of-the-redirection\"")
                .with("location", format!("http://{storage}/{name}?signed=1"))
        } else {
            let object = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
            let object = digits(object.chain_update(content).finalize());
            let etag = repo.etag.unwrap_or(object);
            let mut content = content.clone();
            if repo.damaged.as_deref() == Some(name) {
                content[0] ^= 1;
            }
            Reply::new(200, content)
                .with("x-repo-commit", &repo.commit)
                .with("etag", format!("W/\"{etag}\""))
        }
    }

    /// Answers a request to the storage.
    fn content(&self, request: &Request) -> Reply {
        {
            let mut log = self.log.lock().unwrap();
            log.storage_tokens
                .push(request.headers.get("authorization").cloned());
            log.ranges.push(request.range());
        }
        let name = request
            .path
            .trim_start_matches('/')
            .split('?')
            .next()
            .unwrap();
        let whole = self.repo.lock().unwrap().files[name].clone();
        let (from, size) = (request.range(), whole.len());
        let fault = self.faults.lock().unwrap().pop_front();
        let ranged = |from: usize| {
            Reply::new(206, &whole[from..])
                .with("content-range", format!("bytes {from}-{}/{size}", size - 1))
        };
        let reply = match from {
            Some(from) => ranged(from),
            None => Reply::new(200, whole.clone()),
        };
        match fault {
            None => reply,
            Some(Fault::Cut(sent)) => Reply { sent, ..reply },
            Some(Fault::WholeFile) => Reply::new(200, whole),
            Some(Fault::OtherRange) => ranged(from.unwrap() - 1),
            Some(Fault::RangeRefused) => Reply::new(416, ""),
            Some(Fault::Shorter) => Reply::new(200, &whole[..size - 1]),
            Some(Fault::Longer) => Reply::new(200, [&whole[..], b"x"].concat()),
            Some(Fault::LongerUnannounced) => {
                let mut reply = Reply::new(200, [&whole[..], b"x"].concat());
                reply.headers.clear();
                reply
            }
            Some(Fault::Trickle(pause)) => Reply {
                pause: Some(Pause::Each(Duration::from_millis(pause))),
                ..reply
            },
            Some(Fault::Silence(sent)) => Reply {
                sent,
                pause: Some(Pause::End),
                ..reply
            },
            Some(Fault::Damaged) => {
                let mut damaged = whole;
                damaged[size / 2] ^= 1;
                Reply::new(200, damaged)
            }
        }
    }
}

/// Returns a hash in hexadecimal digits.
fn digits(hash: impl AsRef<[u8]>) -> String {
    let bytes = hash.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
