//! Upload of large files to the storage of a repository, as Git LFS does.

use super::Progress;
use super::commit::{Commit, LFS, MAX_MESSAGE};
use super::http::{Content, Failure, Upload as Send, header};
use super::upload::Upload;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::io::Read;
use ureq::Body;
use ureq::http::Response;

/// Address in answers of a server that is reached by another one.
const PUBLIC: &str = "https://huggingface.co";

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

impl Commit<'_> {
    /// Sends large files to the storage, as Git LFS does.
    pub(super) fn store(
        &self,
        files: &mut [Upload],
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
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
