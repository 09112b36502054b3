//! Files of an adapter, and their upload.

use super::commit::Commit;
use super::http::{Client, Failure};
use super::name::RepoName;
use super::upload::Upload;
use super::{HubOptions, Progress, PushOptions, Pushed};
use crate::error::ModelError;
use crate::prefix::PREFIX_DIR;
use lora_core::file::{AdapterDir, CONFIG_FILE, PICKLED_FILE, TOKENIZER_FILES, WEIGHTS_FILE};
use lora_core::files::open_companion;
use std::path::Path;

/// Limit for a file of tensors, in bytes; the Hub's own is 50 GB.
const MAX_TENSOR_BYTES: u64 = 50_000_000_000;

/// Limit for any other file, in bytes: twice the limit for reading a tokenizer's.
const MAX_SMALL_BYTES: u64 = 128 << 20;

/// The card, and the labels of a classifier.
const NOTES: [&str; 2] = ["README.md", "config.json"];

/// Uploads an adapter.
///
/// # Errors
/// As [`hub::push`](super::push).
pub(super) fn push(
    adapter: &Path,
    repo: &RepoName,
    push: &PushOptions,
    options: &HubOptions,
    progress: &mut Progress<'_>,
) -> Result<Pushed, ModelError> {
    if options.token().is_none() {
        return Err(repo.error(
            "an upload needs a token with the right to write: set HF_TOKEN, or log in with `huggingface-cli login`",
        ));
    }
    // What cannot be read is of use to nobody.
    AdapterDir::open(adapter)?.tensors()?;
    let files = files(adapter)?;
    let client = Client::new(repo, options)?;
    let explain = |failure: Failure| {
        match failure {
        Failure::Refused(error) => error,
        Failure::Unreachable(why) => repo.error(format!(
            "{} cannot be reached: {why}; the repository is as it was, unless it was new: try again",
            client.endpoint()
        )),
    }
    };
    let owner = Commit::new(&client).create(push.private);
    // The server knows the account that a name without an organization belongs to.
    let repo = &owner.map_err(explain)?;
    let client = Client::new(repo, options)?;
    let commit = Commit::new(&client);
    let message = push.message.as_deref().unwrap_or("Upload adapter");
    commit.run(files, message, progress).map_err(explain)
}

/// Opens the files of an adapter that are published.
fn files(adapter: &Path) -> Result<Vec<Upload>, ModelError> {
    let mut files = Vec::new();
    let tensors = [WEIGHTS_FILE, PICKLED_FILE];
    for dir in ["", PREFIX_DIR] {
        // PEFT and this crate read the pickle only where there are no safetensors.
        let tensors = tensors
            .iter()
            .find(|name| adapter.join(dir).join(name).exists());
        for name in tensors.into_iter().chain(&[CONFIG_FILE]) {
            let limit = if *name == CONFIG_FILE {
                MAX_SMALL_BYTES
            } else {
                MAX_TENSOR_BYTES
            };
            let name = match dir {
                "" => (*name).to_string(),
                dir => format!("{dir}/{name}"),
            };
            files.extend(open(adapter, name, limit)?);
        }
    }
    for name in NOTES.iter().chain(&TOKENIZER_FILES) {
        files.extend(open(adapter, (*name).to_string(), MAX_SMALL_BYTES)?);
    }
    Ok(files)
}

fn open(adapter: &Path, name: String, limit: u64) -> Result<Option<Upload>, ModelError> {
    let Some((file, size)) = open_companion(adapter, &name)? else {
        return Ok(None);
    };
    let path = adapter.join(&name);
    if size > limit {
        return Err(ModelError::TooLarge { path, limit });
    }
    Upload::new(name, path, file, size).map(Some)
}
