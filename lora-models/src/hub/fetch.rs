//! Files of a model on the Hub, and their download into the cache.

use super::cache::{CONFIG, RepoCache};
use super::download::Remote;
use super::http::{Client, Failure, Method, encoded};
use super::name::{RepoName, is_commit};
pub(super) use super::push::push;
use super::{HubOptions, Progress};
use crate::checkpoint::layout::FILES as WEIGHTS;
use crate::checkpoint::shard_index::ShardIndex;
use crate::error::ModelError;
use lora_core::file::TOKENIZER_FILES;
use lora_core::files::{Overwrite, write_file};
use serde::Deserialize;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Files of a model beside its weights and its tokenizer. Only the configuration is required.
const SMALL_FILES: [&str; 3] = [CONFIG, "generation_config.json", "spiece.model"];

/// Limit for one of the small files, in bytes: twice the limit for reading any of them.
const MAX_SMALL_BYTES: u64 = 128 << 20;

/// Limit for a file of weights, in bytes; the Hub's own for files outside of its newer storage is 50 GB.
const MAX_WEIGHT_BYTES: u64 = 64 << 30;

/// Limit for all weights together, in bytes: as many as the largest published models have.
const MAX_TOTAL_BYTES: u64 = 1 << 40;

/// Limit for the list of files, in bytes; that of a model with a thousand files has some 100 kB.
const MAX_LISTING_BYTES: u64 = 16 << 20;

/// Size of the buffer for the list of files, in bytes.
const LISTING_BUFFER: usize = 1 << 16;

/// Fields of the server's description of a revision.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Downloads the files of a model's revision that the cache lacks. If the server cannot be reached, returns `cached`.
///
/// # Errors
/// The errors of [`resolve`](super::resolve).
pub(super) fn fetch(
    repo: &RepoName,
    cache: &RepoCache,
    cached: Option<PathBuf>,
    options: &HubOptions,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, ModelError> {
    let client = Client::new(repo, options)?;
    let explain = |failure: Failure| {
        match failure {
        Failure::Refused(error) => error,
        Failure::Unreachable(why) => repo.error(format!(
            "not complete in the cache {}, and {} cannot be reached: {why}; try again, or set HF_ENDPOINT, HTTPS_PROXY \
             or SSL_CERT_FILE if your network needs them",
            cache.dir().display(),
            client.endpoint()
        )),
    }
    };
    let listing = match (list(&client), cached) {
        (Ok(listing), _) => listing,
        (Err(Failure::Unreachable(_)), Some(cached)) => return Ok(cached),
        (Err(failure), _) => return Err(explain(failure)),
    };
    let download = Download {
        client: &client,
        cache,
        commit: &listing.sha,
        snapshot: cache.snapshot(&listing.sha),
    };
    let files = listing.siblings.iter().map(|file| &*file.rfilename);
    let done = download.run(&files.collect(), progress);
    done.map(|()| download.snapshot).map_err(explain)
}

/// Requests the commit of the revision and its files.
fn list(client: &Client<'_>) -> Result<Listing, Failure> {
    let (id, revision) = (client.repo().id(), encoded(client.repo().revision()));
    let url = client.url(&format!("api/models/{id}/revision/{revision}"));
    let response = client.send(Method::Get, &url, None)?;
    let mut reader = response.into_body().into_reader();
    let (mut body, mut buffer) = (Vec::new(), vec![0; LISTING_BUFFER]);
    let mut pace = client.pace(0);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => body.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::unreachable(error)),
        }
        if body.len() as u64 > MAX_LISTING_BYTES {
            return Err(client.refuse(format!(
                "the list of its files is longer than {MAX_LISTING_BYTES} bytes"
            )));
        }
        pace.check(body.len() as u64)
            .map_err(Failure::unreachable)?;
    }
    let odd = |message: String| {
        let message = format!("{} is not a model server: {message}", client.endpoint());
        client.refuse(message)
    };
    let listing: Listing = serde_json::from_slice(&body).map_err(|error| odd(error.to_string()))?;
    // The commit becomes part of a path.
    if !is_commit(&listing.sha) {
        return Err(odd(format!("the commit is {:?}", listing.sha)));
    }
    if let Some(pinned) = client.repo().commit()
        && pinned != listing.sha
    {
        let (endpoint, sha) = (client.endpoint(), &listing.sha);
        return Err(client.refuse(format!(
            "{endpoint} answered with commit {sha} in place of {pinned}; nothing of it is used"
        )));
    }
    Ok(listing)
}

/// Download of a commit into the cache.
struct Download<'a> {
    client: &'a Client<'a>,
    cache: &'a RepoCache,
    commit: &'a str,
    snapshot: PathBuf,
}

impl Download<'_> {
    fn run(&self, files: &HashSet<&str>, progress: &mut Progress<'_>) -> Result<(), Failure> {
        let refuse = |message: String| Err(self.client.refuse(message));
        if !files.contains(CONFIG) {
            return refuse(format!(
                "it has no {CONFIG}, so it is not a model of transformers"
            ));
        }
        let Some((weights, source)) = WEIGHTS.into_iter().find(|(name, _)| files.contains(name))
        else {
            return refuse(format!(
                "it has none of {}; other formats of weights are not supported",
                WEIGHTS.map(|(name, _)| name).join(", ")
            ));
        };
        let _lock = self.lock()?;
        let small = SMALL_FILES.into_iter().chain(TOKENIZER_FILES);
        for name in small.filter(|name| files.contains(name)) {
            self.file(name, MAX_SMALL_BYTES, progress)?;
        }
        // The weights come last: a snapshot with weights is complete.
        if source.is_sharded() {
            let index = self.file(weights, MAX_SMALL_BYTES, progress)?;
            let mut room = MAX_TOTAL_BYTES;
            for shard in ShardIndex::read(&(&index).into(), source.extension())?.shard_names() {
                let path = self.file(shard, room.min(MAX_WEIGHT_BYTES), progress)?;
                let size = path.metadata().map_err(ModelError::io(&path))?.len();
                room = room.saturating_sub(size);
            }
        } else {
            self.file(weights, MAX_WEIGHT_BYTES, progress)?;
        }
        self.record_revision()
    }

    /// Returns the path of one file of at most `limit` bytes, from the cache or the server.
    fn file(
        &self,
        name: &str,
        limit: u64,
        progress: &mut Progress<'_>,
    ) -> Result<PathBuf, Failure> {
        let path = self.snapshot.join(name);
        if path.is_file() {
            return Ok(path);
        }
        let remote = Remote::request(self.client, self.commit, name)?;
        if remote.size > limit {
            let size = remote.size;
            let message = format!("{name} has {size} bytes; the limit for such a file is {limit}");
            return Err(self.client.refuse(message));
        }
        let blobs = self.cache.dir().join("blobs");
        let folder = path.parent().unwrap_or(&self.snapshot);
        for dir in [blobs.as_path(), folder] {
            create_dir(dir)?;
        }
        remote.download(self.client, &blobs, progress)?;
        let depth = name.matches('/').count();
        link(&blobs, &remote.etag, &path, depth).map_err(ModelError::io(&path))?;
        Ok(path)
    }

    /// Locks the model against other downloads until the file is dropped.
    fn lock(&self) -> Result<File, ModelError> {
        let path = self.cache.lock();
        create_dir(path.parent().unwrap_or(&path))?;
        let file = File::create(&path).map_err(ModelError::io(&path))?;
        match file.lock() {
            // On a file system without locks, two processes could spoil a download; its length or SHA-256 would show that.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(file),
            locked => locked.map(|()| file).map_err(ModelError::io(&path)),
        }
    }

    /// Records the commit of the revision.
    fn record_revision(&self) -> Result<(), Failure> {
        if self.client.repo().commit().is_some() {
            return Ok(());
        }
        let path = self.cache.reference(self.client.repo());
        create_dir(path.parent().unwrap_or(&path))?;
        let commit = self.commit.as_bytes();
        let written = write_file(&path, Overwrite::Replace, |out| out.write_all(commit));
        written.map_err(|error| Failure::Refused(error.into()))
    }
}

/// Creates a directory and those around it.
fn create_dir(dir: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(dir).map_err(ModelError::io(dir))
}

/// Links `path`, in a folder of `snapshots` or `depth` folders below, to the file of this ETag in `blobs`.
#[cfg(unix)]
fn link(_blobs: &Path, etag: &str, path: &Path, depth: usize) -> std::io::Result<()> {
    // There may be a broken link.
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let blobs = format!("{}blobs", "../".repeat(2 + depth));
    std::os::unix::fs::symlink(Path::new(&blobs).join(etag), path)
}

/// Moves the file itself where links need a privilege, as the Hub's own programs do.
#[cfg(not(unix))]
fn link(blobs: &Path, etag: &str, path: &Path, _depth: usize) -> std::io::Result<()> {
    fs::rename(blobs.join(etag), path)
}
