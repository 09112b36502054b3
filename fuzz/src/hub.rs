//! Entry that downloads a model from a server whose answers are the input.

use super::input::{in_folder, parts};
use lora_models::hub::{HubOptions, resolve};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Time in which a download must make progress. The server is on this machine, and an answer that never comes must not hold up
/// the others.
const TIME_LIMIT: Duration = Duration::from_millis(20);

/// Answers of a server. A head is a status with headers, one a line; an empty one stands for an honest one.
#[derive(Clone)]
struct Answers {
    /// The model's files.
    listing: Vec<u8>,
    /// Head of the description of the configuration, and the configuration.
    config: [Vec<u8>; 2],
    /// Head of the description of any other file, and that file.
    other: [Vec<u8>; 2],
    /// Head of the files.
    head: Vec<u8>,
}

/// Downloads a model: its list of files, the headers and content of its configuration, those of any other file, and the headers
/// that the contents come with. Without the feature `hub` the list is never asked for.
pub fn hub(input: &[u8]) {
    let [listing, config_head, config, other_head, other, head] = parts(input).map(<[u8]>::to_vec);
    let answers = Answers {
        listing,
        config: [config_head, config],
        other: [other_head, other],
        head,
    };
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else {
        return;
    };
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let ended = Arc::new(AtomicBool::new(false));
    let server = thread::spawn({
        let ended = ended.clone();
        move || serve(&listener, &answers, &ended)
    });
    in_folder(&[], |dir| {
        let options = HubOptions::new(format!("http://{address}"), dir.join("cache"));
        let options = options.with_time_limit(TIME_LIMIT);
        if let Ok(snapshot) = resolve("org/model", &options, &mut |_, _, _| ()) {
            assert!(snapshot.starts_with(dir) && snapshot.join("config.json").is_file());
        }
        // Nothing is written beside the cache.
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        assert!(names.all(|name| name == "cache"));
    });
    ended.store(true, Ordering::SeqCst);
    // The server waits for a connection.
    let _ = TcpStream::connect(address);
    let _ = server.join();
}

/// Answers connections until the download has ended, each in a thread of its own.
fn serve(listener: &TcpListener, answers: &Answers, ended: &AtomicBool) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            return;
        };
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let answers = answers.clone();
        thread::spawn(move || answer(&stream, &answers));
    }
}

/// Answers the requests of a connection.
fn answer(mut stream: &TcpStream, answers: &Answers) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let port = stream.local_addr().ok()?.port();
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        reader.read_line(&mut request).ok()?;
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let mut line = String::new();
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let honest = |body: &[u8]| format!("200 OK\ncontent-length: {}", body.len()).into_bytes();
        let chosen = |head: &[u8], body: &[u8]| {
            if head.is_empty() {
                honest(body)
            } else {
                head.to_vec()
            }
        };
        let [described, content] = if path.ends_with("/config.json") {
            &answers.config
        } else {
            &answers.other
        };
        let (head, body) = match method {
            "HEAD" => (chosen(described, content), &[][..]),
            _ if path.starts_with("/api/") => (honest(&answers.listing), &*answers.listing),
            _ => (chosen(&answers.head, content), &**content),
        };
        stream.write_all(&on_the_wire(&head, port)).ok()?;
        stream.write_all(body).ok()?;
        if !answers.head.is_empty() && method != "HEAD" {
            // The length may be wrong: who waits for more than there is would wait for long.
            stream.shutdown(std::net::Shutdown::Both).ok()?;
            return None;
        }
    }
}

/// Writes a head as HTTP wants it. A redirection stays on this server, which has a second name: an input shall reach no other.
fn on_the_wire(head: &[u8], port: u16) -> Vec<u8> {
    let mut wire = b"HTTP/1.1 ".to_vec();
    for line in head.split(|byte| *byte == b'\n') {
        let mut line: Vec<u8> = line.iter().copied().filter(|byte| *byte != b'\r').collect();
        let name = b"location:";
        if line.len() >= name.len() && line[..name.len()].eq_ignore_ascii_case(name) {
            let target = line[name.len()..].trim_ascii().to_vec();
            if !target.starts_with(b"/") {
                line = format!("location: http://localhost:{port}/").into_bytes();
                line.extend(target);
            }
        }
        wire.extend(line);
        wire.extend(b"\r\n");
    }
    wire.extend(b"\r\n");
    wire
}
