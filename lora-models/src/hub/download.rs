//! Download of one file into the cache, complete or not at all.

use super::Progress;
use super::http::{Client, Failure, Method, encoded, header};
use crate::error::ModelError;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::StatusCode;

/// Number of attempts to resume a broken download, counted from the last progress.
const MAX_ATTEMPTS: u32 = 5;

/// Wait before the second attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Size of the read buffer in bytes.
const BUFFER: usize = 1 << 16;

/// A file of the model, as the server describes it.
#[derive(Debug)]
pub(super) struct Remote<'a> {
    name: &'a str,
    url: String,
    size: u64,
    /// ETag, which is the name of the file's content in the cache.
    etag: String,
    /// SHA-256 of the file, if the server sends it: for files in large file storage.
    sha256: Option<String>,
}

impl<'a> Remote<'a> {
    /// Requests the description of a file of a commit.
    pub(super) fn request(
        client: &Client<'_>,
        commit: &str,
        name: &'a str,
    ) -> Result<Self, Failure> {
        let id = client.repo().id();
        let url = client.url(&format!("{id}/resolve/{commit}/{}", encoded(name)));
        let response = client.send(Method::Head, &url, None)?;
        let headers = response.headers();
        let odd = |what: &str| client.refuse(format!("{} {what} for {name}", client.endpoint()));
        if header(headers, "x-repo-commit").is_some_and(|found| found != commit) {
            return Err(odd("answered with another commit"));
        }
        let linked = header(headers, "x-linked-etag").map(unquoted);
        let etag = linked.or_else(|| header(headers, "etag").map(unquoted));
        // The ETag becomes the name of a file.
        let Some(etag) = etag.filter(|etag| is_plain(etag)) else {
            return Err(odd("sent no usable ETag"));
        };
        let size = header(headers, "x-linked-size").or_else(|| header(headers, "content-length"));
        let Some(size) = size.and_then(|size| size.parse().ok()) else {
            return Err(odd("sent no length"));
        };
        let is_sha256 =
            |text: &&str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        Ok(Self {
            name,
            url,
            size,
            etag: etag.to_string(),
            sha256: linked.filter(is_sha256).map(str::to_lowercase),
        })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn etag(&self) -> &str {
        &self.etag
    }

    /// Downloads the file into the folder `blobs`, under its ETag, unless it exists. An incomplete file is called
    /// `<etag>.part`, and its bytes are not requested again.
    pub(super) fn download(
        &self,
        client: &Client<'_>,
        blobs: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let blob = blobs.join(&self.etag);
        if fs::metadata(&blob).is_ok_and(|found| found.is_file() && found.len() == self.size) {
            return Ok(());
        }
        let part = blobs.join(format!("{}.part", self.etag));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(ModelError::io(&part))?;
        self.fill(client, &mut file, &part, progress)?;
        if self.sha256.is_some()
            && self.sha256 != Some(sha256(&mut file).map_err(ModelError::io(&part))?)
        {
            // Resuming from it would not help.
            fs::remove_file(&part).map_err(ModelError::io(&part))?;
            return Err(client.refuse(format!(
                "{} has another SHA-256 than announced, and was removed; try again",
                self.name
            )));
        }
        let put = file.sync_all().and_then(|()| fs::rename(&part, &blob));
        Ok(put.map_err(ModelError::io(&blob))?)
    }

    /// Downloads the missing bytes, with new attempts as long as these make progress.
    fn fill(
        &self,
        client: &Client<'_>,
        file: &mut File,
        part: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let mut done = file.metadata().map_err(ModelError::io(part))?.len();
        if done > self.size {
            done = restart(file, part)?;
        }
        progress(self.name, done, self.size);
        let (mut farthest, mut attempts) = (done, 0);
        while done < self.size {
            let broken = match self.attempt(client, file, part, &mut done, progress) {
                Ok(()) => continue,
                Err(Failure::Unreachable(broken)) => broken,
                Err(refused) => return Err(refused),
            };
            // Compared with the maximum, because a server without ranges starts over each time.
            if done > farthest {
                (farthest, attempts) = (done, 0);
            }
            attempts += 1;
            if attempts == MAX_ATTEMPTS {
                return Err(client.refuse(format!(
                    "the download of {} broke off after {done} of {} bytes: {broken}; try again to \
                     resume it",
                    self.name, self.size
                )));
            }
            std::thread::sleep(FIRST_WAIT * 2_u32.pow(attempts - 1));
        }
        Ok(())
    }

    /// Sends one request and appends its answer to the file.
    ///
    /// A broken connection is [`Failure::Unreachable`]; `done` then holds the number of bytes in the file.
    fn attempt(
        &self,
        client: &Client<'_>,
        file: &mut File,
        part: &Path,
        done: &mut u64,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let response = client.send(Method::Get, &self.url, (*done > 0).then_some(*done))?;
        let headers = response.headers();
        let length: Option<u64> =
            header(headers, "content-length").and_then(|length| length.parse().ok());
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(headers, "content-range").unwrap_or_default();
                if !is_range(range, *done, self.size) {
                    *done = restart(file, part)?;
                    return Err(Failure::Unreachable(format!(
                        "the server sent another range than requested, {range:?}"
                    )));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                *done = restart(file, part)?;
                return Err(Failure::Unreachable(
                    "the server does not have the requested range".to_string(),
                ));
            }
            // The whole file, from a server without ranges.
            _ => *done = restart(file, part)?,
        }
        if length.is_some_and(|length| length != self.size - *done) {
            return Err(self.wrong_length(client));
        }
        file.seek(SeekFrom::Start(*done))
            .map_err(ModelError::io(part))?;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Unreachable(error.to_string())),
            };
            if read as u64 > self.size - *done {
                restart(file, part)?;
                return Err(self.wrong_length(client));
            }
            if let Err(error) = file.write_all(&buffer[..read]) {
                return Err(self.cannot_write(client, part, self.size - *done, error));
            }
            *done += read as u64;
            progress(self.name, *done, self.size);
        }
        if *done < self.size {
            return Err(Failure::Unreachable(
                "the connection ended too early".to_string(),
            ));
        }
        Ok(())
    }

    fn wrong_length(&self, client: &Client<'_>) -> Failure {
        client.refuse(format!(
            "{} has another length than the {} bytes announced; try again",
            self.name, self.size
        ))
    }

    fn cannot_write(
        &self,
        client: &Client<'_>,
        part: &Path,
        missing: u64,
        error: std::io::Error,
    ) -> Failure {
        use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if ![StorageFull, QuotaExceeded, FileTooLarge].contains(&error.kind()) {
            return ModelError::io(part)(error).into();
        }
        client.refuse(format!(
            "no space for {}: it needs {missing} more bytes in {}; free some space, or set HF_HOME to another disk",
            self.name,
            part.parent().unwrap_or(part).display()
        ))
    }
}

/// Empties a file and returns its new length, 0.
fn restart(file: &File, part: &Path) -> Result<u64, ModelError> {
    file.set_len(0).map_err(ModelError::io(part))?;
    Ok(0)
}

/// True for `bytes 5-9/10`, from `from` to the end of a file of `size` bytes; the total may be unknown, `*`.
fn is_range(range: &str, from: u64, size: u64) -> bool {
    let total = range.strip_prefix(&format!("bytes {from}-{}/", size - 1));
    total.is_some_and(|total| total == "*" || total == size.to_string())
}

/// Removes the quotes of an ETag and the mark of a weak one.
fn unquoted(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

/// True if an ETag can be the name of a file, and not that of an unfinished one.
fn is_plain(etag: &str) -> bool {
    (1..=128).contains(&etag.len())
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn sha256(file: &mut File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(format!("{:x}", hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_be_the_one_asked_for() {
        assert!(is_range("bytes 5-9/10", 5, 10) && is_range("bytes 5-9/*", 5, 10));
        for other in [
            "",
            "bytes 0-9/10",
            "bytes 5-8/10",
            "bytes 5-9/11",
            "5-9/10",
            "bytes */10",
        ] {
            assert!(!is_range(other, 5, 10), "{other}");
        }
    }

    #[test]
    fn an_etag_that_leads_elsewhere_is_no_file_name() {
        assert_eq!(unquoted("W/\"abc\""), "abc");
        assert!(is_plain("d41d8cd98f00b204e9800998ecf8427e") && is_plain("abc-2"));
        for etag in ["", "..", "../x", "a/b", "a\\b", "a.part", "a:b", "é"] {
            assert!(!is_plain(etag), "{etag}");
        }
    }

    #[test]
    fn a_file_is_hashed_from_its_beginning() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&mut file).unwrap(), expected);
    }
}
