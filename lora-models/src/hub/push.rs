//! Files of an adapter, and their upload.

use super::api::Api;
use super::commit::Commit;
use super::create::create;
use super::http::{Client, Failure};
use super::local_file::LocalFile;
use super::name::{ModelRef, RepoName};
use super::{HubOptions, Progress, PushOptions, Pushed};
use crate::error::ModelError;
use crate::prefix::PREFIX_DIR;
use bytes::Bytes;
use lora_core::file::{
    AdapterDir, CONFIG_FILE, ConfigFile, PICKLED_FILE, TOKENIZER_FILES, WEIGHTS_FILE,
};
use lora_core::files::{Opened, open_companion};
use std::io::Cursor;
use std::path::Path;

/// Limit for a file of tensors, in bytes; the Hub's own is 50 GB.
const MAX_TENSOR_BYTES: u64 = 50_000_000_000;

/// Limit for any other file, in bytes: twice the limit for reading a tokenizer's.
const MAX_SMALL_BYTES: u64 = 128 << 20;

/// The card, and the labels of a classifier.
const NOTES: [&str; 2] = ["README.md", "config.json"];

/// Key of the base model in a configuration.
const BASE: &str = "base_model_name_or_path";

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
    check_prefix(adapter)?;
    let files = files(adapter, push.base_model.as_deref())?;
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
    // The server knows the account that a name without an organization belongs to.
    let repo = &create(&Api { client: &client }, push.private).map_err(explain)?;
    let client = Client::new(repo, options)?;
    let commit = Commit {
        api: &Api { client: &client },
    };
    let message = push.message.as_deref().unwrap_or("Upload adapter");
    commit.run(files, message, progress).map_err(explain)
}

/// Refuses a prefix that cannot be read, such as one that lacks its tensors.
fn check_prefix(adapter: &Path) -> Result<(), ModelError> {
    let dir = adapter.join(PREFIX_DIR);
    let mut files = [CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE].iter();
    if files.any(|name| dir.join(name).symlink_metadata().is_ok()) {
        AdapterDir::open(&dir)?.tensors()?;
    }
    Ok(())
}

/// Opens the files of an adapter that are published, with another base model in their configurations if one is given.
fn files(adapter: &Path, base: Option<&str>) -> Result<Vec<LocalFile>, ModelError> {
    let mut files = Vec::new();
    let tensors = [WEIGHTS_FILE, PICKLED_FILE];
    for dir in ["", PREFIX_DIR] {
        let named = |name: &str| match dir {
            "" => name.to_string(),
            dir => format!("{dir}/{name}"),
        };
        // PEFT and this crate read the pickle only where there are no safetensors.
        let tensors = tensors
            .iter()
            .find(|name| adapter.join(dir).join(name).exists());
        if let Some(name) = tensors {
            files.extend(open(adapter, named(name), MAX_TENSOR_BYTES)?);
        }
        if let Some(file) = open(adapter, named(CONFIG_FILE), MAX_SMALL_BYTES)? {
            let config = ConfigFile::read(adapter.join(dir))?;
            files.push(with_base(adapter, file, &config, base)?);
        }
    }
    for name in NOTES.iter().chain(&TOKENIZER_FILES) {
        files.extend(open(adapter, (*name).to_string(), MAX_SMALL_BYTES)?);
    }
    Ok(files)
}

fn open(adapter: &Path, name: String, limit: u64) -> Result<Option<LocalFile>, ModelError> {
    let Some((file, size)) = open_companion(adapter, &name)? else {
        return Ok(None);
    };
    let path = adapter.join(&name);
    if size > limit {
        return Err(ModelError::TooLarge { path, limit });
    }
    LocalFile::new(name, path, Opened::File(file), size).map(Some)
}

/// Returns a configuration as it is published: its base model must be one that others have.
fn with_base(
    adapter: &Path,
    file: LocalFile,
    config: &ConfigFile,
    base: Option<&str>,
) -> Result<LocalFile, ModelError> {
    let path = adapter.join(&file.name);
    let refuse = |base: &str, source: &str| {
        let message = format!(
            "`{BASE}`{source} is `{base}`, a path of this computer or no name of the Hub, where nobody else finds the model; give \
             its name on the Hub with `--base-model NAME`"
        );
        Err(ModelError::malformed(&path, message))
    };
    let Some(base) = base else {
        let own = config.keys().get(BASE).and_then(|base| base.as_str());
        return match own.filter(|own| !own.is_empty()) {
            Some(own) if !matches!(ModelRef::parse(own), Ok(ModelRef::Repo(_))) => refuse(own, ""),
            _ => Ok(file),
        };
    };
    if base.contains('@') || RepoName::parse_repository(base).is_err() {
        return refuse(base, " to publish");
    }
    let mut keys = config.keys().clone();
    keys.insert(BASE.into(), base.into());
    let text = serde_json::to_string_pretty(&keys);
    let text = text.map_err(|error| ModelError::malformed(&path, error.to_string()))?;
    let bytes = format!("{text}\n").into_bytes();
    let size = bytes.len() as u64;
    let content = Opened::Bytes(Cursor::new(Bytes::from(bytes)));
    LocalFile::new(file.name, path, content, size)
}
