//! Models by name: from the Hugging Face Hub, or from its cache on this machine.
//!
//! [`resolve`] takes a directory or a model name such as `roberta-base`, `microsoft/deberta-v3-base` or `gpt2@main`,
//! and returns the directory with the model's files. Downloads are stored where the Hub's own programs store theirs,
//! `models--org--name/snapshots/<commit>/` in the cache, so that their downloads are used too.
//!
//! | concept | file |
//! | --- | --- |
//! | directory or name of a model | `name.rs` |
//! | endpoint, cache directory, token | `options.rs` |
//! | layout and state of the cache | `cache.rs` |
//! | files of a model, and their download; their replacement without the feature | `fetch.rs`, `no_fetch.rs` |
//! | download of a file; downloads that stall; requests, and their repetition | `download.rs`, `pace.rs`, `http.rs`, `retry.rs` |
//! | upload of an adapter: its files | `push.rs`, `local_file.rs` |
//! | requests of an upload: all; for the repository, the commit and large files | `api.rs`; `create.rs`, `commit.rs`, `store.rs` |
//!
//! [`push`] uploads an adapter as one commit. Downloads and uploads need the feature `hub`, which is off by default; without it, names are looked up in the cache only.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `HF_ENDPOINT` | the server, by default `https://huggingface.co` |
//! | `HF_HOME` | directory of cache and token, by default `~/.cache/huggingface` (`$XDG_CACHE_HOME/huggingface`) |
//! | `HF_HUB_CACHE` | the cache, by default `$HF_HOME/hub` |
//! | `HF_TOKEN` | the token, by default the content of `$HF_TOKEN_PATH` or `$HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1` for offline mode |
//! | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds without progress after which a download ends, by default 120 |
//! | `SSL_CERT_FILE` | the certificates to trust, by default Mozilla's |
//! | `HTTPS_PROXY`, `NO_PROXY`, … | a proxy |
//!
//! The requests to the server, and the checks of its answers:
//!
//! - The revision's commit and list of files come first, and all files belong to that commit. If the name has a full commit, the
//!   server must answer with it. If the server cannot be
//!   reached, the commit last downloaded for the revision is used, if it is complete.
//! - `config.json`, the tokenizer's files and the weights are downloaded, safetensors before pickles.
//! - A file is written to `blobs/<etag>.part` and renamed once it has the announced length and hash: the SHA-256 of large files,
//!   and of small ones git's SHA-1, by which the Hub names them. A broken download is resumed, automatically or at the next
//!   call, and one that stalls ends.
//! - A file of weights has 64 GiB at most, all together 1 TiB.
//! - One process at a time downloads a model; another waits for it.
//! - The token is sent to this server only, not to the targets of redirections, and without encryption to this machine only.
//!
//! Hugging Face's own crate, `hf-hub` 1.0, is not used: it brings tokio, reqwest, hyper and hf-xet into every build. This
//! client needs `ureq` alone and is tested against a local server.

#[cfg(feature = "hub")]
mod api;
mod cache;
#[cfg(feature = "hub")]
mod commit;
#[cfg(feature = "hub")]
mod create;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod http;
#[cfg(feature = "hub")]
mod local_file;
mod name;
mod options;
#[cfg(feature = "hub")]
mod pace;
#[cfg(feature = "hub")]
mod push;
#[cfg(feature = "hub")]
#[path = "fetch.rs"]
mod remote;
#[cfg(not(feature = "hub"))]
#[path = "no_fetch.rs"]
mod remote;
#[cfg(feature = "hub")]
mod retry;
#[cfg(feature = "hub")]
mod store;

pub use options::HubOptions;

use crate::error::ModelError;
use cache::RepoCache;
use name::{ModelRef, RepoName};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// Callback for the progress of a download: the file, its bytes on disk, and its length in bytes.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Returns the name of a model on the Hub by its directory in the Hub's cache, `…/models--organization--name/snapshots/<commit>`;
/// `None` for any other directory.
///
/// # Examples
/// ```
/// use lora_models::hub::name_of_snapshot;
///
/// let dir = "hub/models--org--model/snapshots/0123456789abcdef0123456789abcdef01234567";
/// assert_eq!(name_of_snapshot(dir.as_ref()).as_deref(), Some("org/model"));
/// assert_eq!(name_of_snapshot("models/gpt2".as_ref()), None);
/// ```
pub fn name_of_snapshot(dir: &Path) -> Option<String> {
    cache::name_of_snapshot(dir)
}

/// Returns the directory of a model that is given as a directory or by its name on the Hub.
///
/// An existing directory is returned unchanged. A text that begins with `.` or `/`, or has a `\` or more than one `/`,
/// is a path. Any other text is the name of a model, `name` or `organization/name`, optionally followed by `@revision`
/// for another branch, tag or commit than `main`. It is downloaded unless it is in the cache, see the [module](self).
/// A full commit that is in the cache needs no request.
///
/// # Errors
/// [`ModelError::Hub`] if there is no such directory or model, if it needs a token or granted access, if it lacks the
/// files of a model, the server cannot be reached, a file differs from its announcement, or the disk is full;
/// [`ModelError::Io`] for other failures of the file system; [`ModelError::Malformed`] and similar errors for an
/// invalid index of shards.
///
/// # Examples
/// ```
/// use lora_models::hub::{HubOptions, resolve};
///
/// # fn main() -> Result<(), lora_models::ModelError> {
/// # let dir = tempfile::tempdir().map_err(|source| lora_models::ModelError::Io { path: "tmp".into(), source })?;
/// # let dir = dir.path();
/// let options = HubOptions::new("https://huggingface.co", dir.join("hub")).offline();
/// let mut show = |file: &str, done: u64, total: u64| eprintln!("{file}: {done} of {total} bytes");
/// // `dir` is a directory.
/// assert_eq!(resolve(&dir.to_string_lossy(), &options, &mut show)?, dir);
/// // This is a name, and not in the cache.
/// assert!(resolve("roberta-base", &options, &mut show).is_err());
/// # Ok(())
/// # }
/// ```
pub fn resolve(
    name_or_dir: &str,
    options: &HubOptions,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, ModelError> {
    let repo = match ModelRef::parse(name_or_dir)? {
        ModelRef::Directory(path) => return Ok(path),
        ModelRef::Repo(repo) => repo,
    };
    let cache = RepoCache::new(&repo, options.cache()?);
    let cached = cache.complete_snapshot(&repo);
    if options.is_offline() {
        return cached.ok_or_else(|| {
            repo.error(format!(
                "not complete in the cache {}, and HF_HUB_OFFLINE forbids the download",
                cache.dir().display()
            ))
        });
    }
    match cached {
        // A commit never changes, so no request is needed.
        Some(snapshot) if repo.commit().is_some() => Ok(snapshot),
        cached => remote::fetch(&repo, &cache, cached, options, progress),
    }
}

/// Options of [`push`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Creates a private repository, if there is none of the name; one that exists must be private.
    pub private: bool,
    /// Name of the base model on the Hub that the configuration is published with, in place of its own, which may be a path of this
    /// computer. Default: its own.
    pub base_model: Option<String>,
    /// Branch that the commit is added to. It is created if it is missing. Default: `main`.
    pub revision: Option<String>,
    /// Message of the commit. Default: `Upload adapter`.
    pub message: Option<String>,
}

/// Result of [`push`]. Shown as a text, it is the address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pushed {
    /// Address of the repository, or of its branch.
    pub url: String,
    /// Hash of the commit; `None` if there was nothing to change.
    pub commit: Option<String>,
    /// Address of the commit.
    pub commit_url: Option<String>,
    /// Names of the files in the commit.
    pub files: Vec<String>,
    /// Names of the files that the repository has already.
    pub unchanged: Vec<String>,
    /// Names of the files that the repository's `.gitignore` names, which were not sent.
    pub ignored: Vec<String>,
}

impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.commit.is_none() {
            writeln!(
                f,
                "nothing to change: the repository has these files already"
            )?;
        }
        writeln!(f, "{}", self.url)
    }
}

/// Uploads the adapter in a PEFT directory to a repository of the Hub, `name` or `organization/name`, as one commit. A repository
/// that does not exist is created.
///
/// These files are sent, and no others: `adapter_config.json`, the tensors, a prefix beside them, the card `README.md`, the labels
/// of a classifier in `config.json`, and the tokenizer's files. A link that leads out of the directory is an error, as the file
/// behind it may not be for the public. The adapter is opened first, so that nothing is sent of one that cannot be read. Files that the
/// repository has already are not part of the commit, and without a difference there is none.
///
/// Requests that fail for a while are repeated, but not the commit: if its answer is lost, it may have been made, and the error says
/// so.
///
/// The token is that of the [options](HubOptions), which needs the right to write.
///
/// # Errors
/// [`ModelError::Lora`] if the directory has no adapter, or the adapter or a prefix beside it cannot be read;
/// [`ModelError::Malformed`] for a base model that is a path of this computer, and for a file that changes meanwhile or is a Git LFS
/// pointer; [`ModelError::Hub`] without a token, without the feature `hub`, if the server refuses the token, the repository or the
/// commit, if it cannot be reached, and if a repository that is to be private exists and is not.
pub fn push(
    adapter: &Path,
    repository: &str,
    push: &PushOptions,
    options: &HubOptions,
    progress: &mut Progress<'_>,
) -> Result<Pushed, ModelError> {
    let name = match &push.revision {
        Some(revision) => format!("{repository}@{revision}"),
        None => repository.to_string(),
    };
    let repo = RepoName::parse_repository(&name)?;
    if options.is_offline() {
        return Err(repo.error("HF_HUB_OFFLINE forbids the upload"));
    }
    remote::push(adapter, &repo, push, options, progress)
}
