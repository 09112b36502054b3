//! Server on this machine whose answers an entry chooses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// Time in milliseconds in which a download or an upload must make progress. The server is on this machine, and an answer that
/// never comes must not hold up the others; on a loaded machine an honest one may need longer.
pub static TIME_LIMIT_MS: AtomicU64 = AtomicU64::new(20);

/// Returns the time in which a download or an upload must make progress.
pub(super) fn time_limit() -> Duration {
    Duration::from_millis(TIME_LIMIT_MS.load(Ordering::Relaxed))
}

/// Most bytes of a request's body.
const MAX_BODY: u64 = 1 << 20;

/// Request to the server, without its body.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// True if the server was addressed by its second name, that of redirections.
    pub(super) is_elsewhere: bool,
    /// True if a token came with it.
    pub(super) has_token: bool,
}

/// Answer to a request. A head is a status with headers, one a line.
pub(super) struct Answer {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    /// True if the connection ends with the answer. The length may be wrong: who waits for more than there is would wait for long.
    pub(super) closes: bool,
}

impl Answer {
    /// Answers with a body and its right length.
    pub(super) fn honest(body: &[u8]) -> Self {
        Self {
            head: format!("200 OK\ncontent-length: {}", body.len()).into_bytes(),
            body: body.to_vec(),
            closes: false,
        }
    }
}

/// Does some work with the address of a server that answers as `answer` says, by a request and the server's port.
pub(super) fn with_server(
    answer: impl Fn(&Request, u16) -> Answer + Send + Sync + 'static,
    work: impl FnOnce(&str) -> bool,
) -> bool {
    let Ok(listener) = TcpListener::bind("127.0.0.1:0") else {
        return false;
    };
    let Ok(address) = listener.local_addr() else {
        return false;
    };
    let ended = Arc::new(AtomicBool::new(false));
    let answer = Arc::new(answer);
    let server = thread::spawn({
        let ended = ended.clone();
        move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else {
                    return;
                };
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let answer = answer.clone();
                thread::spawn(move || serve(&stream, address.port(), &*answer));
            }
        }
    });
    let result = work(&address.to_string());
    ended.store(true, Ordering::SeqCst);
    // The server waits for a connection.
    let _ = TcpStream::connect(address);
    let _ = server.join();
    result
}

/// Answers the requests of a connection.
fn serve(
    mut stream: &TcpStream,
    port: u16,
    answer: &impl Fn(&Request, u16) -> Answer,
) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut reader = BufReader::new(stream);
    loop {
        let request = read(&mut reader)?;
        let answer = answer(&request, port);
        stream.write_all(&on_the_wire(&answer.head, port)).ok()?;
        stream.write_all(&answer.body).ok()?;
        if answer.closes {
            stream.shutdown(Shutdown::Both).ok()?;
            return None;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let mut request = Request {
        method: words.next()?.to_string(),
        path: words.next()?.to_string(),
        is_elsewhere: false,
        has_token: false,
    };
    let mut length = 0;
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? <= 2 {
            break;
        }
        let (name, value) = line.split_once(':')?;
        match &*name.to_ascii_lowercase() {
            "host" => request.is_elsewhere = value.trim().starts_with("localhost"),
            "authorization" => request.has_token = true,
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    std::io::copy(&mut reader.take(length.min(MAX_BODY)), &mut std::io::sink()).ok()?;
    Some(request)
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
