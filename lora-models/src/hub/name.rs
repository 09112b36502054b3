//! Telling a directory from the name of a model, and checking the name: it becomes part of paths and addresses.

use crate::error::ModelError;
use std::path::{Path, PathBuf};

/// The longest organization, model or revision; the Hub has the same limit for the first two.
const MAX_LENGTH: usize = 96;

/// What a user means by a model.
#[derive(Debug)]
pub(super) enum Named {
    /// A directory that is there.
    Directory(PathBuf),
    /// A model of the Hub.
    Repo(RepoName),
}

impl Named {
    /// # Errors
    ///
    /// [`ModelError::Hub`] for a path to nothing or to a file, and for what can be neither a path nor a name.
    pub(super) fn parse(name: &str) -> Result<Self, ModelError> {
        let error = |message: &str| Err(error(name, message));
        let path = Path::new(name);
        if path.is_dir() {
            return Ok(Self::Directory(path.to_path_buf()));
        }
        if path.exists() {
            return error("it is a file; give the directory it lies in");
        }
        let is_path = name.starts_with(['.', '/', '~'])
            || name.contains('\\')
            || name
                .split('@')
                .next()
                .unwrap_or_default()
                .matches('/')
                .count()
                > 1;
        if is_path {
            return error(
                "no such directory; give one that exists, or the name of a model of the Hub, such as `roberta-base`",
            );
        }
        RepoName::parse(name).map(Self::Repo)
    }
}

/// The name of a model on the Hub, checked, with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RepoName {
    id: String,
    revision: String,
}

impl RepoName {
    fn parse(name: &str) -> Result<Self, ModelError> {
        let (id, revision) = name.split_once('@').unwrap_or((name, "main"));
        if !id.split('/').all(is_part) || id.contains("--") {
            return Err(error(
                name,
                "no such directory, and it cannot be the name of a model of the Hub, which is `name` or \
                 `organization/name` of letters, digits, `-`, `_` and `.`",
            ));
        }
        if revision.len() > MAX_LENGTH || !revision.split('/').all(is_part) {
            return Err(error(
                name,
                "what follows the `@` is no branch, tag or commit; leave it out for `main`",
            ));
        }
        Ok(Self {
            id: id.to_string(),
            revision: revision.to_string(),
        })
    }

    /// `name` or `organization/name`.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A branch, tag or commit.
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    /// The revision if it is a full commit, which cannot change.
    pub(super) fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(&*self.revision)
    }

    /// An error about this model.
    pub(super) fn error(&self, message: impl AsRef<str>) -> ModelError {
        error(&self.id, message.as_ref())
    }
}

/// Whether `text` is the SHA-1 of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether `text` may stand between slashes: not empty, not leading upwards, nothing hidden or special.
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
    ModelError::Hub {
        message: format!("model `{name}`: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(name: &str) -> RepoName {
        match Named::parse(name).unwrap() {
            Named::Repo(repo) => repo,
            Named::Directory(path) => panic!("{name} is the directory {}", path.display()),
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
        assert!(matches!(Named::parse(path), Ok(Named::Directory(found)) if found == dir.path()));
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, b"").unwrap();
        let error = Named::parse(file.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains("it is a file"), "{error}");
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
            let error = Named::parse(path).unwrap_err().to_string();
            assert!(error.contains("no such directory"), "{error}");
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn what_leads_out_of_the_cache_or_the_address_is_no_name() {
        for name in [
            "", "a/", "a..b", "a--b", "a b", "a?b", "a%2f", "-a", "a.", "org/..", "é", "a#b",
            "C:x", "http:x", "a@", "a@..", "a@x/../y", "a@x//y", "a@/x", "a@x\\y", "a@b@c",
            "a@x y",
        ] {
            assert!(
                matches!(Named::parse(name), Err(ModelError::Hub { .. })),
                "{name}"
            );
        }
        assert!(Named::parse(&"a".repeat(97)).is_err());
        assert!(Named::parse(&format!("a@{}", "b/".repeat(60) + "b")).is_err());
    }
}
