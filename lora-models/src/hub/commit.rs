//! Protocol of the Hub for a commit: large files go to the storage first, then one request has all small files and the names of the
//! large ones. It is that of Python's `huggingface_hub`.

use super::http::{Client, Content, Failure, Method, Upload as Send, encoded, header};
use super::name::RepoName;
use super::upload::Upload;
use super::{Progress, Pushed};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::io::Read;
use ureq::Body;
use ureq::http::Response;

/// Limit for an answer of the server, in bytes. One with a signed address for each part of a file of 50 GB has less than 10 MB.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Limit for a message of the server, in characters.
pub(super) const MAX_MESSAGE: usize = 300;

/// Media type of Git LFS.
pub(super) const LFS: &str = "application/vnd.git-lfs+json";

#[derive(Deserialize)]
struct Created {
    url: Option<String>,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

/// Way in which the server takes a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    /// True if the repository's `.gitignore` names the file.
    #[serde(default)]
    should_ignore: bool,
}

/// Commit of files to the repository of a client, at its branch.
pub(super) struct Commit<'c> {
    pub(super) client: &'c Client<'c>,
}

impl<'c> Commit<'c> {
    pub(super) fn new(client: &'c Client<'c>) -> Self {
        Self { client }
    }

    /// Creates the repository if there is none, and the branch if it is not `main`. Returns the full name.
    pub(super) fn create(&self, private: bool) -> Result<RepoName, Failure> {
        let repo = self.client.repo();
        let (organization, name) = match repo.id().split_once('/') {
            Some((organization, name)) => (Some(organization), name),
            None => (None, repo.id()),
        };
        let mut body = json!({"name": name, "organization": organization});
        if private {
            body["visibility"] = "private".into();
        }
        let response = self.post("api/repos/create", "application/json", body.to_string())?;
        let status = response.status().as_u16();
        let repo = match status {
            200..=299 | 409 => {
                let id = match organization {
                    Some(_) => Some(repo.id().to_string()),
                    None => self.id_of(response)?,
                };
                let id = id.ok_or_else(|| {
                    self.client.refuse(
                        "the server does not say which account it belongs to; give the name with it, as `account/name`",
                    )
                })?;
                repo.renamed(&id)?
            }
            // A token may have the right to write to a repository, but not the one to create it.
            401..=403 if organization.is_some() && self.exists() => repo.clone(),
            _ => return Err(self.refusal(response, "create the repository")),
        };
        if repo.revision() != "main" && !repo.revision().starts_with("refs/") {
            let branch = encoded(repo.revision());
            let path = format!("api/models/{}/branch/{branch}", repo.id());
            let response = self.post(&path, "application/json", "{}".into())?;
            let status = response.status().as_u16();
            if !matches!(status, 200..=299 | 403 | 409) {
                return Err(self.refusal(response, "create the branch"));
            }
        }
        Ok(repo)
    }

    /// Returns the name in the address that the server says a repository has.
    fn id_of(&self, response: Response<Body>) -> Result<Option<String>, Failure> {
        let created: Created = self.answer(response)?;
        let mut parts = created.url.as_deref().unwrap_or_default().rsplit('/');
        let (name, organization) = (parts.next(), parts.next());
        let is_own = name == Some(self.client.repo().id());
        Ok(match (name, organization) {
            (Some(name), Some(organization)) if is_own && !organization.is_empty() => {
                Some(format!("{organization}/{name}"))
            }
            _ => None,
        })
    }

    fn exists(&self) -> bool {
        let path = format!("api/models/{}", self.client.repo().id());
        let url = self.client.url(&path);
        self.client.send(Method::Get, &url, None).is_ok()
    }

    /// Uploads the files and commits them.
    pub(super) fn run(
        &self,
        mut files: Vec<Upload>,
        message: &str,
        progress: &mut Progress<'_>,
    ) -> Result<Pushed, Failure> {
        let modes = self.modes(&files)?;
        let mode = |file: &Upload| modes.iter().find(|mode| mode.path == file.name);
        files.retain(|file| !mode(file).is_some_and(|mode| mode.should_ignore));
        // The storage refuses empty files.
        let is_large = |file: &Upload| {
            file.size > 0 && mode(file).is_some_and(|mode| mode.upload_mode == "lfs")
        };
        let (mut large, mut small): (Vec<Upload>, Vec<Upload>) =
            files.into_iter().partition(is_large);
        self.store(&mut large, progress)?;

        let mut lines =
            vec![json!({"key": "header", "value": {"summary": message, "description": ""}})];
        for file in &mut small {
            let content = base64::encode(file.bytes()?);
            let value = json!({"content": content, "path": file.name, "encoding": "base64"});
            lines.push(json!({"key": "file", "value": value}));
        }
        for file in &large {
            let value =
                json!({"path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.size});
            lines.push(json!({"key": "lfsFile", "value": value}));
        }
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let (id, revision) = (self.client.repo().id(), self.client.repo().revision());
        let path = format!("api/models/{id}/commit/{}", encoded(revision));
        let response = self.post(&path, "application/x-ndjson", body)?;
        if !response.status().is_success() {
            return Err(self.refusal(response, "commit"));
        }
        for file in &small {
            progress(&file.name, file.size, file.size);
        }
        let files = large.into_iter().chain(small).map(|file| file.name);
        let mut files: Vec<String> = files.collect();
        files.sort();
        Ok(Pushed {
            url: match revision {
                "main" => self.client.url(id),
                revision => self.client.url(&format!("{id}/tree/{}", encoded(revision))),
            },
            files,
        })
    }

    /// Asks which files go to the storage.
    fn modes(&self, files: &[Upload]) -> Result<Vec<Mode>, Failure> {
        let files = files.iter().map(|file| {
            json!({"path": file.name, "sample": base64::encode(&file.sample), "size": file.size})
        });
        let body = json!({"files": files.collect::<Vec<_>>()});
        let (id, revision) = (self.client.repo().id(), self.client.repo().revision());
        let path = format!("api/models/{id}/preupload/{}", encoded(revision));
        let response = self.post(&path, "application/json", body.to_string())?;
        if !response.status().is_success() {
            return Err(self.refusal(response, "write to the repository"));
        }
        Ok(self.answer::<Modes>(response)?.files)
    }

    pub(super) fn post(
        &self,
        path: &str,
        kind: &str,
        body: String,
    ) -> Result<Response<Body>, Failure> {
        let accept = if kind == LFS { LFS } else { "application/json" };
        let headers = [("content-type", kind), ("accept", accept)];
        let content = Content::Bytes(body.as_bytes());
        let url = self.client.url(path);
        self.client.upload(Send::Post, &url, &headers, content)
    }

    /// Reads the JSON of an answer, up to a limit.
    pub(super) fn answer<T: DeserializeOwned>(
        &self,
        response: Response<Body>,
    ) -> Result<T, Failure> {
        let mut bytes = Vec::new();
        let body = response.into_body().into_reader();
        let read = body.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
        read.map_err(Failure::unreachable)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let endpoint = self.client.endpoint();
            self.client
                .refuse(format!("{endpoint} is not a model server: {error}"))
        })
    }

    /// Translates an error status of the server.
    pub(super) fn refusal(&self, response: Response<Body>, what: &str) -> Failure {
        let (endpoint, status) = (self.client.endpoint(), response.status());
        let said = header(response.headers(), "x-error-message").unwrap_or_default();
        let said: String = said.chars().take(MAX_MESSAGE).collect();
        let said = match said.as_str() {
            "" => String::new(),
            said => format!("; it says: {said}"),
        };
        self.client.refuse(match status.as_u16() {
            401 => format!(
                "{endpoint} does not accept the token; set HF_TOKEN to one with the right to write{said}"
            ),
            403 => format!(
                "the token may not {what}: it needs the right to write there{said}"
            ),
            404 => format!(
                "{endpoint} has no such account, repository or branch, or the token may not see it{said}"
            ),
            409 | 412 => format!(
                "somebody else changed the repository meanwhile; nothing was committed, try again{said}"
            ),
            408 | 429 | 500..=599 => {
                return Failure::unreachable(format!("it answered {status}{said}"));
            }
            _ => format!("{endpoint} answered {status} to the request to {what}{said}"),
        })
    }
}
