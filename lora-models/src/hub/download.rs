//! Download of one file into the cache, complete or not at all.

use super::Progress;
use super::http::{Client, Failure, Method, encoded, header};
use super::pace::Pace;
use super::retry::{MAX_ATTEMPTS, wait_after};
use crate::error::ModelError;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use ureq::http::StatusCode;

/// Size of the read buffer in bytes.
const BUFFER: usize = 1 << 16;

/// A file of the model, as the server describes it.
#[derive(Debug)]
pub(super) struct Remote<'a> {
    name: &'a str,
    url: String,
    pub(super) size: u64,
    /// ETag, which is the name of the file's content in the cache.
    pub(super) etag: String,
    /// Hash of the file, if the server sends it.
    hash: Option<Hash>,
}

/// Hash of a file in hexadecimal digits.
#[derive(Debug, PartialEq, Eq)]
enum Hash {
    /// SHA-256, of files in large file storage.
    Sha256(String),
    /// SHA-1 of the object that git stores, of other files.
    Git(String),
}

impl Hash {
    /// Returns the hash that an ETag is, by its length. Servers other than the Hub may send other ETags.
    fn announced(etag: &str, is_linked: bool) -> Option<Self> {
        let digits = etag.to_lowercase();
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match digits.len() {
            40 => Some(Self::Git(digits)),
            64 if is_linked => Some(Self::Sha256(digits)),
            _ => None,
        }
    }

    /// Computes the hash of the same kind of a file of `size` bytes.
    fn of(&self, file: &mut File, size: u64) -> std::io::Result<Self> {
        Ok(match self {
            Self::Sha256(_) => Self::Sha256(digest(file, Sha256::new())?),
            Self::Git(_) => {
                let object = Sha1::new_with_prefix(format!("blob {size}\0"));
                Self::Git(digest(file, object)?)
            }
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "git hash",
        }
    }
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
        Ok(Self {
            name,
            url,
            size,
            etag: etag.to_string(),
            hash: Hash::announced(etag, linked.is_some()),
        })
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
        if let Some(hash) = &self.hash
            && *hash
                != hash
                    .of(&mut file, self.size)
                    .map_err(ModelError::io(&part))?
        {
            // Resuming from it would not help.
            fs::remove_file(&part).map_err(ModelError::io(&part))?;
            return Err(client.refuse(format!(
                "{} has another {} than announced, and was removed; try again",
                self.name,
                hash.name()
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
        let mut watch = Watch {
            pace: client.pace(done),
            progress,
        };
        while done < self.size {
            let broken = match self.attempt(client, file, part, &mut done, &mut watch) {
                Err(Failure::Unreachable(broken)) => broken,
                result => return result,
            };
            // Compared with the maximum, because a server without ranges starts over each time.
            if done > farthest {
                (farthest, attempts) = (done, 0);
            }
            self.check_pace(client, &mut watch.pace, done)?;
            attempts += 1;
            if attempts == MAX_ATTEMPTS {
                return Err(client.refuse(format!(
                    "the download of {} broke off after {done} of {} bytes: {broken}; try again to \
                     resume it",
                    self.name, self.size
                )));
            }
            wait_after(attempts, client.time_limit());
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
        watch: &mut Watch<'_, '_>,
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
                    let broken = format!("the server sent another range than requested, {range:?}");
                    return Err(Failure::unreachable(broken));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                *done = restart(file, part)?;
                let broken = "the server does not have the requested range";
                return Err(Failure::unreachable(broken));
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
                Err(error) => return Err(Failure::unreachable(error)),
            };
            if read as u64 > self.size - *done {
                restart(file, part)?;
                return Err(self.wrong_length(client));
            }
            if let Err(error) = file.write_all(&buffer[..read]) {
                return Err(self.cannot_write(client, part, self.size - *done, error));
            }
            *done += read as u64;
            (watch.progress)(self.name, *done, self.size);
            if *done < self.size {
                self.check_pace(client, &mut watch.pace, *done)?;
            }
        }
        if *done < self.size {
            return Err(Failure::unreachable("the connection ended too early"));
        }
        Ok(())
    }

    /// Refuses to wait for a download that has stalled.
    fn check_pace(&self, client: &Client<'_>, pace: &mut Pace, done: u64) -> Result<(), Failure> {
        pace.check(done).map_err(|stalled| {
            client.refuse(format!(
                "the download of {} stalled after {done} of {} bytes: {stalled}; try again to resume it, or set \
                 HF_HUB_DOWNLOAD_TIMEOUT to more seconds",
                self.name, self.size
            ))
        })
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

/// Receivers of the bytes that a download has.
struct Watch<'p, 'c> {
    pace: Pace,
    progress: &'p mut Progress<'c>,
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

/// Computes a hash of a whole file, in hexadecimal digits.
fn digest(file: &mut File, mut hasher: impl Digest) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let digits = hasher.finalize();
    Ok(digits.iter().map(|byte| format!("{byte:02x}")).collect())
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
        let hash = |content: &[u8], announced: &str, is_linked| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            let announced = Hash::announced(announced, is_linked).unwrap();
            assert_eq!(
                announced.of(&mut file, content.len() as u64).unwrap(),
                announced
            );
        };
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        hash(b"abc", &expected.to_uppercase(), true);
        // What `git hash-object` prints.
        hash(
            b"hello\n",
            "ce013625030ba8dba906f756967f9e9ca394464a",
            false,
        );
        hash(b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", false);
        assert_eq!(Hash::announced(expected, false), None);
        assert_eq!(
            Hash::announced("d41d8cd98f00b204e9800998ecf8427e", false),
            None
        );
        assert_eq!(Hash::announced(&"x".repeat(40), false), None);
    }
}
