//! Protocol of the Hub for a commit: large files go to the storage first, then one request has all small files and the names of the
//! large ones. It is that of Python's `huggingface_hub`.

use super::http::{Client, Content, Failure, Method, Upload as Send, encoded, header};
use super::name::RepoName;
use super::{Progress, Pushed};
use crate::error::ModelError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use ureq::Body;
use ureq::http::Response;

/// Number of bytes at the start of a file by which the server tells text from binary files.
const SAMPLE: u64 = 512;

/// Limit for an answer of the server, in bytes. One with a signed address for each part of a file of 50 GB has less than 10 MB.
const MAX_ANSWER_BYTES: u64 = 16 << 20;

/// Limit for a message of the server, in characters.
const MAX_MESSAGE: usize = 300;

/// Media type of Git LFS.
const LFS: &str = "application/vnd.git-lfs+json";

/// Address in answers of a server that is reached by another one.
const PUBLIC: &str = "https://huggingface.co";

/// A file to upload.
#[derive(Debug)]
pub(super) struct Upload {
    name: String,
    path: PathBuf,
    file: File,
    size: u64,
    sample: Vec<u8>,
    sha256: String,
}

impl Upload {
    /// Reads an open file once, for its hash.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub(super) fn new(
        name: String,
        path: PathBuf,
        mut file: File,
        size: u64,
    ) -> Result<Self, ModelError> {
        let mut sample = Vec::new();
        let mut hash = Sha256::new();
        let mut read = || {
            (&file).take(SAMPLE).read_to_end(&mut sample)?;
            file.rewind()?;
            std::io::copy(&mut file, &mut HashWriter(&mut hash))
        };
        read().map_err(ModelError::io(&path))?;
        let sha256 = hash.finalize();
        let sha256 = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            name,
            path,
            file,
            size,
            sample,
            sha256,
        })
    }

    /// Returns the bytes from an offset on.
    fn at(&mut self, offset: u64) -> Result<&mut File, Failure> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map_err(ModelError::io(&self.path))?;
        Ok(&mut self.file)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Failure> {
        let (size, mut bytes) = (self.size, Vec::new());
        let read = self.at(0)?.take(size).read_to_end(&mut bytes);
        read.map_err(ModelError::io(&self.path))?;
        Ok(bytes)
    }
}

struct HashWriter<'h>(&'h mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

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

#[derive(Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

/// Instructions for a large file; without actions, the storage has it already.
#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<ObjectError>,
}

#[derive(Deserialize)]
struct ObjectError {
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Action,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Map<String, Value>,
}

impl Action {
    /// Returns the length of the parts in which a file is sent and their addresses; `None` if it is sent at once.
    fn parts(&self) -> Option<(u64, Vec<&str>)> {
        let size = self.header.get("chunk_size")?;
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok())?;
        let mut parts: Vec<(u32, &str)> = self
            .header
            .iter()
            .filter_map(|(number, url)| Some((number.parse().ok()?, url.as_str()?)))
            .collect();
        parts.sort_unstable();
        Some((size, parts.into_iter().map(|(_, url)| url).collect()))
    }
}

/// Commit of files to the repository of a client, at its branch.
pub(super) struct Commit<'c> {
    client: &'c Client<'c>,
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

    /// Sends large files to the storage, as Git LFS does.
    fn store(&self, files: &mut [Upload], progress: &mut Progress<'_>) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        let objects = files.iter();
        let objects = objects.map(|file| json!({"oid": file.sha256, "size": file.size}));
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects.collect::<Vec<_>>(),
            "hash_algo": "sha256",
            "ref": {"name": self.client.repo().revision()},
        });
        let path = format!("{}.git/info/lfs/objects/batch", self.client.repo().id());
        let response = self.post(&path, LFS, body.to_string())?;
        if !response.status().is_success() {
            return Err(self.refusal(response, "store large files"));
        }
        let batch: Batch = self.answer(response)?;
        for file in files {
            let mut objects = batch.objects.iter();
            let object = objects.find(|object| object.oid == file.sha256);
            let Some(object) = object else {
                let message = format!("the server says nothing about the upload of {}", file.name);
                return Err(self.client.refuse(message));
            };
            if let Some(error) = &object.error {
                let message: String = error.message.chars().take(MAX_MESSAGE).collect();
                let message = format!("the storage refuses {}: {message}", file.name);
                return Err(self.client.refuse(message));
            }
            progress(&file.name, 0, file.size);
            if let Some(actions) = &object.actions {
                self.put(file, &actions.upload, progress)?;
                if let Some(verify) = &actions.verify {
                    let body = json!({"oid": file.sha256, "size": file.size}).to_string();
                    let headers = [("content-type", LFS), ("accept", LFS)];
                    let url = self.here(&verify.href);
                    let content = Content::Bytes(body.as_bytes());
                    let response = self.client.upload(Send::Post, &url, &headers, content)?;
                    if !response.status().is_success() {
                        return Err(self.refusal(response, "verify a file"));
                    }
                }
            }
            progress(&file.name, file.size, file.size);
        }
        Ok(())
    }

    /// Sends a file to the storage, at once or in parts.
    fn put(
        &self,
        file: &mut Upload,
        action: &Action,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let url = self.here(&action.href);
        let Some((part, urls)) = action.parts() else {
            let size = file.size;
            self.put_part(file, 0, size, &url)?;
            return Ok(());
        };
        if part == 0 || urls.len() as u64 != file.size.div_ceil(part) {
            let message = format!("the server has {} addresses for {}", urls.len(), file.name);
            return Err(self.client.refuse(message));
        }
        let mut parts = Vec::new();
        let mut offset = 0;
        for (number, url) in (1u32..).zip(urls) {
            let size = part.min(file.size - offset);
            let response = self.put_part(file, offset, size, url)?;
            let etag = header(response.headers(), "etag").unwrap_or_default();
            parts.push(json!({"partNumber": number, "etag": etag}));
            offset += size;
            progress(&file.name, offset, file.size);
        }
        let body = json!({"oid": file.sha256, "parts": parts}).to_string();
        let headers = [("content-type", LFS), ("accept", LFS)];
        let content = Content::Bytes(body.as_bytes());
        let response = self.client.upload(Send::Post, &url, &headers, content)?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(self.refusal(response, "store large files"))
    }

    fn put_part(
        &self,
        file: &mut Upload,
        offset: u64,
        size: u64,
        url: &str,
    ) -> Result<Response<Body>, Failure> {
        let mut bytes = file.at(offset)?.take(size);
        let content = Content::Stream(&mut bytes, size);
        let response = self.client.upload(Send::Put, url, &[], content)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response, "store large files"))
    }

    /// Returns an address of the Hub as one of this server, which may stand for it.
    fn here(&self, url: &str) -> String {
        match url.strip_prefix(PUBLIC) {
            Some(rest) if rest.starts_with('/') => format!("{}{rest}", self.client.endpoint()),
            _ => url.to_string(),
        }
    }

    fn post(&self, path: &str, kind: &str, body: String) -> Result<Response<Body>, Failure> {
        let accept = if kind == LFS { LFS } else { "application/json" };
        let headers = [("content-type", kind), ("accept", accept)];
        let content = Content::Bytes(body.as_bytes());
        let url = self.client.url(path);
        self.client.upload(Send::Post, &url, &headers, content)
    }

    /// Reads the JSON of an answer, up to a limit.
    fn answer<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, Failure> {
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
    fn refusal(&self, response: Response<Body>, what: &str) -> Failure {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_the_order_of_their_numbers() {
        let action: Action = serde_json::from_value(json!({
            "href": "https://a.b/done",
            "header": {"chunk_size": "8", "00002": "https://s/2", "10": "https://s/10", "00001": "https://s/1"}
        }))
        .unwrap();
        let parts = action.parts().unwrap();
        assert_eq!(
            parts,
            (8, vec!["https://s/1", "https://s/2", "https://s/10"])
        );
        let whole: Action = serde_json::from_value(json!({"href": "https://a.b/x"})).unwrap();
        assert!(whole.parts().is_none());
    }
}
