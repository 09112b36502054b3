//! Distinction between directories and names of models, and checks of names: they become part of paths and addresses.

use crate::error::ModelError;
use std::path::{Path, PathBuf};

/// Limit for an organization, model or revision, in bytes; the Hub has the same limit for the first two.
const MAX_LENGTH: usize = 96;

/// Limit for a message, in characters: a server decides about a part of it.
const MAX_MESSAGE: usize = 2000;

/// A model as given by the user.
#[derive(Debug)]
pub(super) enum ModelRef {
    /// Existing directory.
    Directory(PathBuf),
    /// Model of the Hub.
    Repo(RepoName),
}

impl ModelRef {
    /// Parses a directory or a name.
    ///
    /// # Errors
    /// [`ModelError::Hub`] for a path to nothing or to a file, and for a text that is neither a path nor a name.
    pub(super) fn parse(name: &str) -> Result<Self, ModelError> {
        let error = |message: &str| Err(error(name, message));
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_path_buf()));
        }
        if path.exists() {
            return error("this is a file; give its directory");
        }
        let (id, _) = name.split_once('@').unwrap_or((name, ""));
        let is_path = name.starts_with(['.', '/', '~']) || name.contains('\\');
        if is_path || id.matches('/').count() > 1 {
            return error(
                "no such directory; give an existing one, or the name of a model on the Hub, such as `roberta-base`",
            );
        }
        RepoName::parse(name).map(Self::Repo)
    }
}

/// Checked name of a model on the Hub, with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepoName {
    id: String,
    revision: String,
}

impl RepoName {
    pub(super) fn parse(name: &str) -> Result<Self, ModelError> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        if !id.split('/').all(is_part) || id.contains("--") {
            return Err(error(
                name,
                "no such directory, and not a valid name of a model on the Hub: `name` or `organization/name` of letters, \
                 digits, `-`, `_` and `.`",
            ));
        }
        if revision.len() > MAX_LENGTH || !revision.split('/').all(is_part) {
            return Err(error(
                name,
                "the text after `@` is not a branch, tag or commit; omit it for `main`",
            ));
        }
        Ok(Self {
            id: id.to_string(),
            revision: revision.to_string(),
        })
    }

    /// Parses the name of a repository to upload to.
    ///
    /// # Errors
    /// [`ModelError::Hub`] for what is no name.
    pub(super) fn parse_repository(name: &str) -> Result<Self, ModelError> {
        let (id, _) = name.split_once('@').unwrap_or((name, ""));
        let parsed = Self::parse(name)
            .ok()
            .filter(|_| id.matches('/').count() <= 1);
        parsed.ok_or_else(|| {
            error(
                name,
                "not a valid name of a repository: `name` or `organization/name` of letters, digits, `-`, `_` and `.`, and a branch \
                 of such parts",
            )
        })
    }

    /// Returns the repository of another name, at the same revision.
    ///
    /// # Errors
    /// [`ModelError::Hub`] for what is no name.
    #[cfg(feature = "hub")]
    pub(super) fn renamed(&self, id: &str) -> Result<Self, ModelError> {
        Self::parse_repository(&format!("{id}@{}", self.revision))
    }

    /// Returns `name` or `organization/name`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the branch, tag or commit.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// Returns the revision if it is a full commit, which cannot change.
    pub(super) fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(&*self.revision)
    }

    /// Builds an error about this model.
    pub(super) fn error(&self, message: impl AsRef<str>) -> ModelError {
        error(&self.id, message.as_ref())
    }
}

/// True if `text` is the SHA-1 of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// True if `text` is valid between slashes: not empty, not leading upwards, neither hidden nor with special
/// characters.
fn is_part(text: &str) -> bool {
    let is_end =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.len() <= MAX_LENGTH
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && is_end(text.bytes().next())
        && is_end(text.bytes().last())
        && !text.contains("..")
}

fn error(name: &str, message: &str) -> ModelError {
    let end = message.char_indices().nth(MAX_MESSAGE);
    let (message, more) = match end {
        Some((end, _)) => (&message[..end], "…"),
        None => (message, ""),
    };
    ModelError::hub(format!("model `{name}`: {message}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(name: &str) -> RepoName {
        match ModelRef::parse(name).unwrap() {
            ModelRef::Repo(repo) => repo,
            ModelRef::Directory(path) => panic!("{name} is the directory {}", path.display()),
        }
    }

    #[test]
    fn names_have_an_organization_or_not_and_a_revision_or_not() {
        let plain = repo("roberta-base");
        assert_eq!((plain.id(), plain.revision()), ("roberta-base", "main"));
        let full = repo("microsoft/deberta-v3-base@refs/pr/1");
        assert_eq!(
            (full.id(), full.revision()),
            ("microsoft/deberta-v3-base", "refs/pr/1")
        );
        assert_eq!(full.commit(), None);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(repo(&format!("gpt2@{commit}")).commit(), Some(commit));
    }

    #[test]
    fn a_directory_comes_before_a_name_and_a_file_is_neither() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(
            matches!(ModelRef::parse(path), Ok(ModelRef::Directory(found)) if found == dir.path())
        );
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, b"").unwrap();
        let error = ModelRef::parse(file.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("this is a file"), "{error}");
    }

    #[test]
    fn a_path_to_nothing_is_no_name() {
        for path in [
            "./none",
            "../none",
            "/none/at/all",
            "none\\x",
            "a/b/c",
            ".none",
            "~/none",
        ] {
            let error = ModelRef::parse(path).unwrap_err().to_string();
            assert!(error.contains("no such directory"), "{error}");
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn a_message_has_an_end_whatever_a_server_says() {
        let error = repo("gpt2").error("é".repeat(MAX_MESSAGE + 1)).to_string();
        let prefix = "model `gpt2`: ".len();
        assert_eq!(error.chars().count(), prefix + MAX_MESSAGE + 1);
        assert!(error.ends_with("é…"), "{error}");
    }

    #[test]
    fn what_leads_out_of_the_cache_or_the_address_is_no_name() {
        for name in [
            "", "a/", "a..b", "a--b", "a b", "a?b", "a%2f", "-a", "a.", "org/..", "é", "a#b",
            "C:x", "http:x", "a@", "a@..", "a@x/../y", "a@x//y", "a@/x", "a@x\\y", "a@b@c",
            "a@x y",
        ] {
            assert!(
                matches!(ModelRef::parse(name), Err(ModelError::Hub { .. })),
                "{name}"
            );
        }
        assert!(ModelRef::parse(&"a".repeat(97)).is_err());
        assert!(ModelRef::parse(&format!("a@{}", "b/".repeat(60) + "b")).is_err());
    }
}
