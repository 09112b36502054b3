//! Replacement for `fetch.rs` and `push.rs` without the feature `hub`: returns cached models only.

use super::cache::RepoCache;
use super::name::RepoName;
use super::{HubOptions, Progress, PushOptions, Pushed};
use crate::error::ModelError;
use std::path::{Path, PathBuf};

/// Returns the cached model.
///
/// # Errors
/// [`ModelError::Hub`] with advice on how to get the model, if it is not cached.
pub(super) fn fetch(
    repo: &RepoName,
    cache: &RepoCache,
    cached: Option<PathBuf>,
    _options: &HubOptions,
    _progress: &mut Progress<'_>,
) -> Result<PathBuf, ModelError> {
    cached.ok_or_else(|| {
        repo.error(format!(
            "no such directory here, not complete in the cache {}, and this program was built without downloads; build \
             it with `--features hub`, or download the model with `huggingface-cli download {}` or git, and give its \
             directory",
            cache.dir().display(),
            repo.id()
        ))
    })
}

/// Returns the error of a build without uploads.
///
/// # Errors
/// [`ModelError::Hub`].
pub(super) fn push(
    adapter: &Path,
    repo: &RepoName,
    _push: &PushOptions,
    _options: &HubOptions,
    _progress: &mut Progress<'_>,
) -> Result<Pushed, ModelError> {
    Err(repo.error(format!(
        "this program was built without uploads; build it with `--features hub`, or run `huggingface-cli upload {} {}`",
        repo.id(),
        adapter.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::resolve;

    #[test]
    fn a_name_without_downloads_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let options = HubOptions::new("https://huggingface.co", dir.path());
        let error = resolve("org/model", &options, &mut |_, _, _| ()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("`org/model`"), "{message}");
        assert!(message.contains("--features hub"), "{message}");
        assert!(
            message.contains("huggingface-cli download org/model"),
            "{message}"
        );
    }

    #[test]
    fn an_upload_without_the_feature_says_what_to_do() {
        let options = HubOptions::new("https://huggingface.co", "").with_token("hf_x");
        let push = |name: &str, options: &HubOptions| {
            let push = PushOptions::default();
            crate::hub::push(Path::new("out"), name, &push, options, &mut |_, _, _| ())
                .unwrap_err()
                .to_string()
        };
        let message = push("me/adapter", &options);
        assert!(message.contains("--features hub"), "{message}");
        assert!(message.contains("upload me/adapter out"), "{message}");
        assert!(push("../adapter", &options).contains("not a valid name of a repository"));
        assert!(push("me/adapter", &options.offline()).contains("HF_HUB_OFFLINE"));
    }
}
