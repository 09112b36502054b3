//! Layout of the Hub's cache, and the state of a model in it.

use super::name::{RepoName, is_commit};
use crate::checkpoint::bounded::read_bounded;
use crate::checkpoint::layout::Layout;
use std::path::{Path, PathBuf};

/// Name of the configuration file, which every model has.
pub(super) const CONFIG: &str = "config.json";

/// Folder of one model in the cache: `refs/<revision>` holds a commit, and `snapshots/<commit>` holds links with the
/// files' names to their contents in `blobs`.
#[derive(Debug)]
pub(super) struct RepoCache {
    cache: PathBuf,
    /// Name of the folder, `models--organization--name`.
    folder: String,
}

/// Returns the name of the model whose snapshot a directory is.
pub(super) fn name_of_snapshot(dir: &Path) -> Option<String> {
    let commit = dir.file_name()?.to_str()?;
    let snapshots = dir.parent()?;
    let folder = snapshots.parent()?.file_name()?.to_str()?;
    let name = folder.strip_prefix("models--")?.replace("--", "/");
    let is_snapshot = is_commit(commit) && snapshots.ends_with("snapshots");
    (is_snapshot && RepoName::parse(&name).is_ok()).then_some(name)
}

impl RepoCache {
    pub(super) fn new(repo: &RepoName, cache: &Path) -> Self {
        // The links are relative, but the caller's directory may change before it uses the path.
        let cache = std::path::absolute(cache).unwrap_or_else(|_| cache.to_path_buf());
        Self {
            cache,
            folder: format!("models--{}", repo.id().replace('/', "--")),
        }
    }

    /// Returns the folder of the model.
    pub(super) fn dir(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    /// Returns the lock file for downloads of the model.
    #[cfg(feature = "hub")]
    pub(super) fn lock(&self) -> PathBuf {
        self.cache
            .join(".locks")
            .join(&self.folder)
            .join("lora.lock")
    }

    /// Returns the directory with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir().join("snapshots").join(commit)
    }

    /// Returns the file that holds the commit of a revision.
    pub(super) fn reference(&self, repo: &RepoName) -> PathBuf {
        self.dir().join("refs").join(repo.revision())
    }

    /// Returns the snapshot of the revision that was downloaded last, if it has a configuration and all weights.
    ///
    /// Only the server knows the tokenizer files of a model. They are downloaded before the weights, so a snapshot
    /// with weights has them.
    pub(super) fn complete_snapshot(&self, repo: &RepoName) -> Option<PathBuf> {
        let commit = match repo.commit() {
            Some(commit) => commit.to_string(),
            None => {
                // A commit, optionally followed by a line break.
                let bytes = read_bounded(&self.reference(repo).into(), 64).ok()?;
                String::from_utf8(bytes).ok()?.trim().to_string()
            }
        };
        let snapshot = self.snapshot(&commit);
        let complete = is_commit(&commit)
            && snapshot.join(CONFIG).is_file()
            && Layout::find(&(&snapshot).into()).is_ok();
        complete.then_some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::ModelRef;
    use super::*;
    use std::fs;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn repo(name: &str) -> RepoName {
        match ModelRef::parse(name).unwrap() {
            ModelRef::Repo(repo) => repo,
            ModelRef::Directory(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn a_snapshot_is_complete_with_its_configuration_and_all_its_weights() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo("org/model");
        let cache = RepoCache::new(&repo, dir.path());
        assert_eq!(cache.dir(), dir.path().join("models--org--model"));
        let snapshot = cache.snapshot(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(cache.dir().join("refs")).unwrap();
        fs::write(cache.reference(&repo), format!("{COMMIT}\n")).unwrap();
        assert_eq!(cache.complete_snapshot(&repo), None);
        fs::write(snapshot.join(CONFIG), "{}").unwrap();
        assert_eq!(cache.complete_snapshot(&repo), None);
        let index = r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#;
        fs::write(snapshot.join("model.safetensors.index.json"), index).unwrap();
        fs::write(snapshot.join("1.safetensors"), "").unwrap();
        assert_eq!(cache.complete_snapshot(&repo), None);
        fs::write(snapshot.join("2.safetensors"), "").unwrap();
        assert_eq!(cache.complete_snapshot(&repo), Some(snapshot));
    }

    #[test]
    fn a_reference_that_is_no_commit_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let repo = repo("model");
        let cache = RepoCache::new(&repo, dir.path());
        // A model where the reference would lead.
        fs::create_dir_all(cache.dir().join("refs")).unwrap();
        fs::create_dir_all(cache.dir().join("snapshots")).unwrap();
        fs::write(cache.dir().join(CONFIG), "{}").unwrap();
        fs::write(cache.dir().join("model.safetensors"), "").unwrap();
        fs::write(cache.reference(&repo), "..").unwrap();
        assert_eq!(cache.complete_snapshot(&repo), None);
    }
}
