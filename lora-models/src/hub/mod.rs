//! Models by name: from the Hugging Face Hub, or its cache on this machine.
//!
//! [`resolve`] takes what a user gives for a model, a directory or a name such as `roberta-base`,
//! `microsoft/deberta-v3-base` or `gpt2@main`, and gives the directory with its files. What is downloaded lies where the
//! Hub's own programs put it, `models--org--name/snapshots/<commit>/` in the cache, and what they downloaded is found.
//!
//! Downloading is behind the feature `hub`, off by default; without it, a name is looked up in the cache only.
//!
//! | variable | what it says |
//! | --- | --- |
//! | `HF_ENDPOINT` | the server, by default `https://huggingface.co` |
//! | `HF_HOME` | where cache and token lie, by default `~/.cache/huggingface` (`$XDG_CACHE_HOME/huggingface`) |
//! | `HF_HUB_CACHE` | the cache alone, by default `$HF_HOME/hub` |
//! | `HF_TOKEN` | the token, by default the content of `$HF_TOKEN_PATH` or `$HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`: nothing is asked of the server |
//! | `SSL_CERT_FILE` | the certificates to trust, by default Mozilla's |
//! | `HTTPS_PROXY`, `NO_PROXY`, … | a proxy |
//!
//! What is asked of the server and how its answers are checked:
//!
//! - The revision's commit and list of files come first, and all files are of that commit. If the server cannot be
//!   reached, the commit last downloaded for the revision is used, if it is complete.
//! - `config.json`, the tokenizer's files and the weights are downloaded, safetensors before pickles.
//! - A file is written to `blobs/<etag>.part` and renamed once it has the length announced and, where the server gives
//!   one, its SHA-256. A download that broke off goes on from there, by itself or at the next call.
//! - One process at a time downloads a model; another waits for it.
//! - The token goes to the server alone, not where it redirects to.

mod cache;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod http;
mod name;
mod options;
#[cfg(feature = "hub")]
#[path = "fetch.rs"]
mod remote;
#[cfg(not(feature = "hub"))]
#[path = "no_fetch.rs"]
mod remote;

pub use options::HubOptions;

use crate::error::ModelError;
use cache::RepoCache;
use name::Named;
use std::path::PathBuf;

/// What is told of a download: the file, the bytes of it that are there, and the bytes it has.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// The directory of a model that is given as a directory or by its name on the Hub.
///
/// A directory that is there is given back as it is. What begins with `.` or `/`, has a `\` or more than one `/` is meant
/// as a path. All else is the name of a model, `name` or `organization/name`, with `@revision` behind it for another
/// branch, tag or commit than `main`; it is downloaded unless it is in the cache, see the [module](self). A full commit
/// that is in the cache takes no question to the server.
///
/// # Errors
///
/// [`ModelError::Hub`] if there is no such directory or model, if it may not be read without a token or without having
/// asked for access, if it lacks the files of a model, the server cannot be reached, a file is not what was announced, or
/// the disk is full; [`ModelError::Io`] for other failures of the file system; [`ModelError::Malformed`] and its like for
/// an index of shards that cannot be one.
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
    let repo = match Named::parse(name_or_dir)? {
        Named::Directory(path) => return Ok(path),
        Named::Repo(repo) => repo,
    };
    let cache = RepoCache::new(&repo, options.cache()?);
    let cached = cache.complete_snapshot(&repo);
    if options.is_offline() {
        return cached.ok_or_else(|| {
            repo.error(format!(
                "not complete in the cache {}, and HF_HUB_OFFLINE forbids to download it",
                cache.dir().display()
            ))
        });
    }
    match cached {
        // A commit never changes, so there is nothing to ask.
        Some(snapshot) if repo.commit().is_some() => Ok(snapshot),
        cached => remote::fetch(&repo, &cache, cached, options, progress),
    }
}
