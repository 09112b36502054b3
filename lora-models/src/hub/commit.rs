//! Protocol of the Hub for a commit: large files go to the storage first, then one request has all small files and the names of the
//! large ones. It is that of Python's `huggingface_hub`.

use super::api::{Api, JSON, Post};
use super::http::{Failure, encoded};
use super::local_file::{LocalFile, MAX_INLINE_BYTES};
use super::store::Storage;
use super::{Progress, Pushed};
use lora_core::file::{CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

/// Way in which the server takes a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: UploadMode,
    /// True if the repository's `.gitignore` names the file.
    #[serde(default)]
    should_ignore: bool,
    /// Hash of the file that is in the repository: SHA-256 of one in the storage, otherwise git's SHA-1.
    oid: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum UploadMode {
    /// In the storage.
    Lfs,
    /// In the commit.
    Regular,
}

/// Answer to a commit.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
    commit_url: String,
}

/// Files by what becomes of them.
#[derive(Default)]
struct Plan {
    large: Vec<LocalFile>,
    small: Vec<LocalFile>,
    ignored: Vec<String>,
    unchanged: Vec<String>,
}

/// Commit of files to the repository of a client, at its branch.
pub(super) struct Commit<'c> {
    pub(super) api: &'c Api<'c>,
}

impl Commit<'_> {
    /// Uploads the files and commits those that the repository does not have.
    pub(super) fn run(
        &self,
        files: Vec<LocalFile>,
        message: &str,
        progress: &mut Progress<'_>,
    ) -> Result<Pushed, Failure> {
        let mut plan = self.plan(files)?;
        let client = self.api.client;
        let (id, revision) = (client.repo().id(), client.repo().revision());
        let url = match revision {
            "main" => client.url(id),
            revision => client.url(&format!("{id}/tree/{}", encoded(revision))),
        };
        let mut commit = None;
        if !(plan.large.is_empty() && plan.small.is_empty()) {
            let storage = Storage { api: self.api };
            storage.store(&mut plan.large, progress)?;
            commit = Some(self.commit(&mut plan, message)?);
        }
        for file in &plan.small {
            progress(&file.name, file.size, file.size);
        }
        let files = plan.large.into_iter().chain(plan.small);
        let mut files: Vec<String> = files.map(|file| file.name).collect();
        files.sort();
        let (commit, commit_url) = commit
            .map(|made| (made.commit_oid, made.commit_url))
            .unzip();
        Ok(Pushed {
            url,
            commit,
            commit_url,
            files,
            unchanged: plan.unchanged,
            ignored: plan.ignored,
        })
    }

    /// Asks the server how it takes each file.
    fn plan(&self, files: Vec<LocalFile>) -> Result<Plan, Failure> {
        let client = self.api.client;
        let (id, revision) = (client.repo().id(), encoded(client.repo().revision()));
        let described = files.iter().map(|file| {
            json!({"path": file.name, "sample": base64::encode(&file.sample), "size": file.size})
        });
        let body = json!({"files": described.collect::<Vec<_>>()}).to_string();
        let request = Post {
            url: client.url(&format!("api/models/{id}/preupload/{revision}")),
            kind: JSON,
            body: body.as_bytes(),
            is_slow: false,
        };
        let answer = self.api.post("write to the repository", &request)?;
        let modes: Modes = self.api.parse(&answer)?;
        let mut plan = Plan::default();
        for file in files {
            let mut modes = modes.files.iter().filter(|mode| mode.path == file.name);
            let (Some(mode), None) = (modes.next(), modes.next()) else {
                let message = format!(
                    "{} does not say how it takes {}; nothing was sent",
                    client.endpoint(),
                    file.name
                );
                return Err(client.refuse(message));
            };
            self.sort(file, mode, &mut plan)?;
        }
        Ok(plan)
    }

    fn sort(&self, file: LocalFile, mode: &Mode, plan: &mut Plan) -> Result<(), Failure> {
        let refuse = |message: String| Err(self.api.client.refuse(message));
        // The storage refuses empty files.
        let is_large = mode.upload_mode == UploadMode::Lfs && file.size > 0;
        let oid = if is_large {
            Some(&file.sha256)
        } else {
            file.git.as_ref()
        };
        if mode.should_ignore {
            if is_required(&file.name) {
                return refuse(format!(
                    "the repository's .gitignore names {}, without which the adapter is of no use; remove that line from it",
                    file.name
                ));
            }
            plan.ignored.push(file.name);
        } else if mode.oid.is_some() && mode.oid.as_ref() == oid {
            plan.unchanged.push(file.name);
        } else if is_large {
            plan.large.push(file);
        } else if file.git.is_none() {
            return refuse(format!(
                "the repository takes {} of {} bytes into git, whose limit are {MAX_INLINE_BYTES}; name it for Git LFS in the \
                 repository's .gitattributes",
                file.name, file.size
            ));
        } else {
            plan.small.push(file);
        }
        Ok(())
    }

    /// Sends the commit. It is sent once: an answer that does not come may be that of a commit that was made.
    fn commit(&self, plan: &mut Plan, message: &str) -> Result<Committed, Failure> {
        let body = body(plan, message)?;
        let client = self.api.client;
        let (id, revision) = (client.repo().id(), encoded(client.repo().revision()));
        let request = Post {
            url: client.url(&format!("api/models/{id}/commit/{revision}")),
            kind: "application/x-ndjson",
            body: body.as_bytes(),
            is_slow: true,
        };
        let unknown = |why: String| {
            let commits = client.url(&format!("{id}/commits/{revision}"));
            let message = format!(
                "the files may have been committed, but the answer of the server is not known: {why}; look at {commits} before you \
                 try again"
            );
            client.refuse(message)
        };
        let answer = match self.api.post_once(&request) {
            Err(Failure::Unreachable(why)) => return Err(unknown(why)),
            answer => answer?,
        };
        let status = answer.status;
        if status.is_server_error() {
            return Err(unknown(format!("it answered {status}{}", answer.said())));
        }
        if !status.is_success() {
            return Err(self.api.refusal(&answer, "commit"));
        }
        self.api.parse(&answer).map_err(|_| {
            unknown(format!(
                "it answered {status} without the name of a commit{}",
                answer.said()
            ))
        })
    }
}

/// Returns true for a file without which an adapter cannot be loaded.
fn is_required(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    [CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE].contains(&name)
}

/// Returns the body of a commit, JSON in lines.
fn body(plan: &mut Plan, message: &str) -> Result<String, Failure> {
    let header = json!({"key": "header", "value": {"summary": message, "description": ""}});
    let mut body = format!("{header}\n");
    for file in &mut plan.small {
        // Written at once: the text of a file is in memory once.
        body.push_str(r#"{"key":"file","value":{"content":""#);
        base64::encode_config_buf(file.bytes()?, base64::STANDARD, &mut body);
        body.push_str(r#"","encoding":"base64","path":"#);
        body.push_str(&json!(file.name).to_string());
        body.push_str("}}\n");
    }
    for file in &plan.large {
        let value =
            json!({"path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.size});
        body.push_str(&json!({"key": "lfsFile", "value": value}).to_string());
        body.push('\n');
    }
    Ok(body)
}
