//! Upload of large files to the storage of a repository, as Git LFS does.

use super::Progress;
use super::api::{Answer, Api, MAX_MESSAGE, Post};
use super::http::{Content, Failure, Sending, Verb};
use super::local_file::LocalFile;
use super::retry::retried;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Address in answers of a server that is reached by another one.
const PUBLIC: &str = "https://huggingface.co";

/// Media type of Git LFS.
const LFS: &str = "application/vnd.git-lfs+json";

/// Action in messages: the token may not … .
const STORE: &str = "store large files";

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
    header: Option<Map<String, Value>>,
}

impl Action {
    /// Returns the length of the parts in which a file is sent and their addresses; `None` if it is sent at once.
    ///
    /// # Errors
    /// A message if the length is no number above zero.
    fn parts(&self) -> Result<Option<(u64, Vec<&str>)>, String> {
        let Some(header) = &self.header else {
            return Ok(None);
        };
        let Some(size) = header.get("chunk_size").filter(|size| !size.is_null()) else {
            return Ok(None);
        };
        let number = size.as_u64().or_else(|| size.as_str()?.parse().ok());
        let number = number.filter(|&number| number > 0);
        let number = number.ok_or_else(|| format!("parts of {size} bytes"))?;
        let mut parts: Vec<(u32, &str)> = header
            .iter()
            .filter_map(|(number, url)| Some((number.parse().ok()?, url.as_str()?)))
            .collect();
        parts.sort_unstable();
        let urls = parts.into_iter().map(|(_, url)| url).collect();
        Ok(Some((number, urls)))
    }
}

/// Storage of the large files of a repository.
pub(super) struct Storage<'c> {
    pub(super) api: &'c Api<'c>,
}

impl Storage<'_> {
    /// Sends the files that the storage does not have.
    pub(super) fn store(
        &self,
        files: &mut [LocalFile],
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        if files.is_empty() {
            return Ok(());
        }
        let batch = self.batch(files)?;
        for file in files {
            let mut objects = batch.objects.iter();
            let object = objects.find(|object| object.oid == file.sha256);
            let Some(object) = object else {
                let message = format!("the server says nothing about the upload of {}", file.name);
                return Err(self.api.client.refuse(message));
            };
            if let Some(error) = &object.error {
                let message: String = error.message.chars().take(MAX_MESSAGE).collect();
                let message = format!("the storage refuses {}: {message}", file.name);
                return Err(self.api.client.refuse(message));
            }
            progress(&file.name, 0, file.size);
            if let Some(actions) = &object.actions {
                self.send(file, &actions.upload, progress)?;
                if let Some(verify) = &actions.verify {
                    let body = json!({"oid": file.sha256, "size": file.size});
                    self.post("verify a file", self.here(&verify.href), &body, true)?;
                }
            }
            progress(&file.name, file.size, file.size);
        }
        Ok(())
    }

    /// Asks where the files go.
    fn batch(&self, files: &[LocalFile]) -> Result<Batch, Failure> {
        let objects = files.iter();
        let objects = objects.map(|file| json!({"oid": file.sha256, "size": file.size}));
        let client = self.api.client;
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects.collect::<Vec<_>>(),
            "hash_algo": "sha256",
            "ref": {"name": client.repo().revision()},
        });
        let url = client.url(&format!(
            "{}.git/info/lfs/objects/batch",
            client.repo().id()
        ));
        let answer = self.post(STORE, url, &body, false)?;
        self.api.parse(&answer)
    }

    fn post(
        &self,
        what: &str,
        url: String,
        body: &Value,
        is_slow: bool,
    ) -> Result<Answer, Failure> {
        let body = body.to_string();
        let request = Post {
            url,
            kind: LFS,
            body: body.as_bytes(),
            is_slow,
        };
        self.api.post(what, &request)
    }

    /// Sends a file to the storage, at once or in parts.
    fn send(
        &self,
        file: &mut LocalFile,
        action: &Action,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let url = self.here(&action.href);
        let odd = |file: &LocalFile, what: String| {
            let message = format!("the server sent {what} for {}", file.name);
            Err(self.api.client.refuse(message))
        };
        let (part, urls) = match action.parts() {
            Ok(Some(parts)) => parts,
            Ok(None) => return self.put(file, 0, file.size, &url).map(|_| ()),
            Err(what) => return odd(file, what),
        };
        if urls.len() as u64 != file.size.div_ceil(part) {
            return odd(file, format!("{} addresses", urls.len()));
        }
        let mut parts = Vec::new();
        let mut offset = 0;
        for (number, url) in (1u32..).zip(urls) {
            let size = part.min(file.size - offset);
            let answer = self.put(file, offset, size, url)?;
            let etag = answer.header("etag").unwrap_or_default();
            if etag.is_empty() {
                return odd(file, format!("no ETag of part {number}"));
            }
            parts.push(json!({"partNumber": number, "etag": etag}));
            offset += size;
            progress(&file.name, offset, file.size);
        }
        let body = json!({"oid": file.sha256, "parts": parts});
        self.post(STORE, url, &body, true).map(|_| ())
    }

    /// Sends a part of a file to an address.
    fn put(
        &self,
        file: &mut LocalFile,
        offset: u64,
        size: u64,
        url: &str,
    ) -> Result<Answer, Failure> {
        retried(self.api.client.time_limit(), || {
            let sending = Sending {
                verb: Verb::Put,
                url,
                kind: None,
                is_slow: false,
            };
            let mut part = file.part(offset, size)?;
            let content = Content::Stream(&mut part, size);
            let sent = self.api.client.upload(&sending, content);
            if let Some(failure) = part.failure.take() {
                return Err(file.failed(failure).into());
            }
            let answer = Answer::read(sent?)?;
            if answer.status.is_success() {
                Ok(answer)
            } else {
                Err(self.refusal(&answer, &file.name))
            }
        })
    }

    /// Translates an error status of the storage, which knows no token, but addresses that expire.
    fn refusal(&self, answer: &Answer, name: &str) -> Failure {
        let (status, said) = (answer.status, answer.said());
        match status.as_u16() {
            403 => self.api.client.refuse(format!(
                "the storage does not take {name} any more: its address has expired; try again, stored files are not sent again{said}"
            )),
            408 | 429 | 500..=599 => {
                Failure::unreachable(format!("its storage answered {status} to {name}{said}"))
            }
            _ => {
                let message = format!("the storage answered {status} to {name}{said}");
                self.api.client.refuse(message)
            }
        }
    }

    /// Returns an address of the Hub as one of this server, which may stand for it.
    fn here(&self, url: &str) -> String {
        match url.strip_prefix(PUBLIC) {
            Some(rest) if rest.starts_with('/') => format!("{}{rest}", self.api.client.endpoint()),
            _ => url.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(header: Value) -> Action {
        serde_json::from_value(json!({"href": "https://a.b/done", "header": header})).unwrap()
    }

    #[test]
    fn parts_are_in_the_order_of_their_numbers() {
        let numbered = action(json!({
            "chunk_size": "8", "00002": "https://s/2", "10": "https://s/10", "00001": "https://s/1"
        }));
        let urls = vec!["https://s/1", "https://s/2", "https://s/10"];
        assert_eq!(numbered.parts().unwrap(), Some((8, urls)));
    }

    #[test]
    fn a_file_without_parts_goes_at_once_and_odd_parts_are_errors() {
        for header in [
            json!(null),
            json!({}),
            json!({"chunk_size": null}),
            json!({"x": "y"}),
        ] {
            assert_eq!(action(header).parts().unwrap(), None);
        }
        let plain: Action = serde_json::from_value(json!({"href": "https://a.b/x"})).unwrap();
        assert_eq!(plain.parts().unwrap(), None);
        for size in [json!("many"), json!(0), json!("0"), json!(-1), json!([])] {
            let odd = action(json!({"chunk_size": size, "1": "https://s/1"}));
            assert!(odd.parts().is_err(), "{size}");
        }
    }
}
