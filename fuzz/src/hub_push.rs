//! Entry that uploads an adapter to a server whose answers are the input.

use super::input::{in_folder, parts, with_length};
use super::server::{Answer, Request, time_limit, with_server};
use lora_core::file::{CONFIG_FILE, WEIGHTS_FILE};
use lora_models::hub::{HubOptions, PushOptions, push};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Configuration of the adapter that is uploaded; the seeds know its hash.
const CONFIG: &[u8] = br#"{"peft_type":"LORA","r":1,"lora_alpha":2,"target_modules":["q"],"base_model_name_or_path":"org/base"}"#;

/// Header of its tensors, whose 32 bytes are zeros.
const HEADER: &[u8] = br#"{"base_model.model.q.lora_A.weight":{"dtype":"F32","shape":[1,4],"data_offsets":[0,16]},"base_model.model.q.lora_B.weight":{"dtype":"F32","shape":[4,1],"data_offsets":[16,32]}}"#;

/// Its card.
const CARD: &[u8] = b"# Card\n";

/// Names of its files, in their order.
const FILES: [&str; 3] = ["README.md", CONFIG_FILE, WEIGHTS_FILE];

/// The Hub's own address, which the program takes for that of the server in the storage's instructions.
const PUBLIC: &str = "https://huggingface.co/";

/// Longest message of a refusal, in characters: a server's text is part of it, but not as long as the server likes.
const LONGEST_MESSAGE: usize = 2100;

/// Answers of a server to the requests of an upload.
struct Answers {
    created: Vec<u8>,
    described: Vec<u8>,
    branch: Vec<u8>,
    modes: Vec<u8>,
    batch: Vec<u8>,
    stored: Vec<u8>,
    verified: Vec<u8>,
    committed: Vec<u8>,
}

impl Answers {
    fn to(&self, request: &Request, port: u16) -> Answer {
        let path = &*request.path;
        let answer = match &*request.method {
            "GET" => &self.described,
            "PUT" => &self.stored,
            _ if path == "/api/repos/create" => &self.created,
            _ if path.contains("/branch/") => &self.branch,
            _ if path.contains("/preupload/") => &self.modes,
            _ if path.contains("/objects/batch") => &self.batch,
            _ if path.contains("/commit/") => &self.committed,
            _ => &self.verified,
        };
        // A head is divided from the body by an empty line; without one the answer is a body alone.
        let at = answer.windows(2).position(|bytes| bytes == b"\n\n");
        match at {
            None => Answer::honest(&at_home(answer, port)),
            Some(at) => Answer {
                head: answer[..at].to_vec(),
                body: at_home(&answer[at + 2..], port),
                closes: true,
            },
        }
    }
}

/// Returns a body whose addresses lead to this server by its second name, or are those that the program takes for its first: an
/// input shall reach no other.
fn at_home(body: &[u8], port: u16) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_slice::<Value>(body) else {
        // What is no JSON has no address, whatever reads it.
        let plain = |byte: &u8| !matches!(byte, b'/' | b'\\');
        return body.iter().copied().filter(plain).collect();
    };
    keep_home(&mut json, "", port);
    json.to_string().into_bytes()
}

fn keep_home(json: &mut Value, key: &str, port: u16) {
    match json {
        // The program takes only these for its own server's.
        Value::String(text) if key == "href" && text.starts_with(PUBLIC) => {}
        Value::String(text) => {
            if let Some(at) = text.find("://") {
                *text = format!("http://localhost:{port}/{}", &text[at + 3..]);
            }
        }
        Value::Array(values) => {
            for value in values {
                keep_home(value, "", port);
            }
        }
        Value::Object(values) => {
            for (key, value) in values {
                keep_home(value, key, port);
            }
        }
        _ => {}
    }
}

/// Uploads an adapter: the answers about the repository, its description, the branch, the files, the storage, a stored file, a
/// stored file's verification and the commit. The first byte chooses name, visibility and branch.
pub fn hub_push(input: &[u8]) -> bool {
    let Some((kind, input)) = input.split_first() else {
        return false;
    };
    let [
        created,
        described,
        branch,
        modes,
        batch,
        stored,
        verified,
        committed,
    ] = parts(input).map(<[u8]>::to_vec);
    let answers = Answers {
        created,
        described,
        branch,
        modes,
        batch,
        stored,
        verified,
        committed,
    };
    let leaked = Arc::new(AtomicBool::new(false));
    let here = leaked.clone();
    let answer = move |request: &Request, port| {
        if request.has_token && request.is_elsewhere {
            here.store(true, Ordering::SeqCst);
        }
        answers.to(request, port)
    };
    let name = match kind {
        b'n' => "adapter",
        _ => "me/adapter",
    };
    let options = PushOptions {
        private: *kind == b'p',
        revision: (*kind == b'b').then(|| "branch".into()),
        ..PushOptions::default()
    };
    let weights = with_length(HEADER, &[0; 32]);
    let files = [
        (CONFIG_FILE, CONFIG),
        (WEIGHTS_FILE, &*weights),
        ("README.md", CARD),
    ];
    let upload = |address: &str| {
        in_folder(&files, |dir| {
            let hub = HubOptions::new(format!("http://{address}"), dir.join("cache"));
            let hub = hub.with_time_limit(time_limit()).with_token("hf_write");
            match push(dir, name, &options, &hub, &mut |_, _, _| ()) {
                Ok(pushed) => {
                    assert_eq!(pushed.commit.is_some(), !pushed.files.is_empty());
                    let mut names = [pushed.files, pushed.unchanged, pushed.ignored].concat();
                    names.sort();
                    assert_eq!(names, FILES);
                    true
                }
                Err(error) => {
                    let length = error.to_string().chars().count();
                    assert!(
                        length <= LONGEST_MESSAGE,
                        "a message of {length} characters"
                    );
                    false
                }
            }
        })
    };
    let is_pushed = with_server(answer, upload);
    assert!(
        !leaked.load(Ordering::SeqCst),
        "the token went to another server"
    );
    is_pushed
}
