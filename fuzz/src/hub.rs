//! Entry that downloads a model from a server whose answers are the input.

use super::input::{in_folder, parts};
use super::server::{Answer, Request, time_limit, with_server};
use lora_models::hub::{HubOptions, resolve};

/// Answers of a server. A head is a status with headers, one a line; an empty one stands for an honest one.
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

impl Answers {
    fn to(&self, request: &Request) -> Answer {
        let [described, content] = if request.path.ends_with("/config.json") {
            &self.config
        } else {
            &self.other
        };
        let is_head = request.method == "HEAD";
        let (head, content) = if is_head {
            (&**described, content)
        } else if request.path.starts_with("/api/") {
            (&[][..], &self.listing)
        } else {
            (&*self.head, content)
        };
        let mut answer = Answer::honest(content);
        if !head.is_empty() {
            answer.head = head.to_vec();
        }
        if is_head {
            answer.body.clear();
        }
        answer.closes = !self.head.is_empty() && !is_head;
        answer
    }
}

/// Downloads a model: its list of files, the headers and content of its configuration, those of any other file, and the headers
/// that the contents come with. Without the feature `hub` the list is never asked for.
pub fn hub(input: &[u8]) -> bool {
    let [listing, config_head, config, other_head, other, head] = parts(input).map(<[u8]>::to_vec);
    let answers = Answers {
        listing,
        config: [config_head, config],
        other: [other_head, other],
        head,
    };
    let answer = move |request: &Request, _| answers.to(request);
    let download = |address: &str| {
        in_folder(&[], |dir| {
            let options = HubOptions::new(format!("http://{address}"), dir.join("cache"));
            let options = options.with_time_limit(time_limit());
            let snapshot = resolve("org/model", &options, &mut |_, _, _| ());
            if let Ok(snapshot) = &snapshot {
                assert!(snapshot.starts_with(dir) && snapshot.join("config.json").is_file());
            }
            // Nothing is written beside the cache.
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let mut names = entries.map(|entry| entry.file_name());
            assert!(names.all(|name| name == "cache"));
            snapshot.is_ok()
        })
    };
    with_server(answer, download)
}
