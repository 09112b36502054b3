//! Small files that are copied from one directory to another, such as a chat template beside a merged model.

use super::read::{open_regular, read_at_most};
use crate::error::LoraError;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Reads a file of at most `limit` bytes for a copy, as [`open_companion`]; `None` if there is none of this name.
///
/// # Errors
/// As [`open_companion`]; [`LoraError::Malformed`] for a larger file and a Git LFS pointer.
pub fn read_companion(
    dir: &Path,
    name: impl AsRef<Path>,
    limit: u64,
) -> Result<Option<Vec<u8>>, LoraError> {
    let path = dir.join(name.as_ref());
    match open_companion(dir, name)? {
        Some((file, _)) => read_at_most(&path, file, limit).map(Some),
        None => Ok(None),
    }
}

/// Opens a file that lies in a directory, for a copy, and returns it with its length in bytes; `None` if there is none of this
/// name.
///
/// The directory may come from strangers, and the copy may be published. A link in it that leads elsewhere would publish a file
/// of the user's, so only links within the directory are followed, and those of the Hugging Face Hub's cache, whose
/// `snapshots/<commit>/` holds links to the `blobs/` beside it.
///
/// # Errors
/// [`LoraError::Malformed`] for a link that leads elsewhere and what is not a regular file; [`LoraError::Io`] if it cannot be
/// opened.
pub fn open_companion(
    dir: &Path,
    name: impl AsRef<Path>,
) -> Result<Option<(File, u64)>, LoraError> {
    let path = dir.join(name);
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(LoraError::io(&path))?,
    };
    let resolved = path.canonicalize().map_err(LoraError::io(&path))?;
    let home = dir.canonicalize().map_err(LoraError::io(dir))?;
    if !resolved.starts_with(&home) && !is_blob(&resolved, &home) {
        let message = format!(
            "is a link to {}, outside of its directory, and is not copied from there; put the file itself in its place",
            resolved.display()
        );
        return Err(LoraError::malformed(path, message));
    }
    // Not by the link, which may lead elsewhere by now.
    let named = |error: LoraError| match error {
        LoraError::Malformed { message, .. } => LoraError::malformed(&path, message),
        error => error,
    };
    open_regular(&resolved).map_err(named).map(Some)
}

/// Returns true for a file in the folder `blobs` of the Hub's cache to which a directory in `snapshots` belongs.
fn is_blob(file: &Path, dir: &Path) -> bool {
    let snapshots = dir
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"));
    let model = snapshots.and_then(Path::parent);
    // Where `blobs` is a link itself, the resolved path of a file does not lie in it.
    model.is_some_and(|model| file.starts_with(model.join("blobs")))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const NAME: &str = "chat_template.jinja";

    fn read(dir: &Path) -> Result<Option<Vec<u8>>, LoraError> {
        read_companion(dir, NAME, 16)
    }

    fn message(dir: &Path) -> String {
        match read(dir) {
            Err(LoraError::Malformed { path, message }) if path == dir.join(NAME) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn links_that_lead_out_of_the_directory_are_refused() {
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("model");
        fs::create_dir(&dir).unwrap();
        let secret = all.path().join("id_rsa");
        fs::write(&secret, "secret").unwrap();
        assert_eq!(read(&dir).unwrap(), None);
        // By its path, relative, through a folder and through another link.
        symlink(all.path(), dir.join("up")).unwrap();
        symlink("../id_rsa", dir.join("other")).unwrap();
        for target in [secret.to_str().unwrap(), "../id_rsa", "up/id_rsa", "other"] {
            symlink(target, dir.join(NAME)).unwrap();
            let message = message(&dir);
            assert!(message.contains("id_rsa, outside"), "{target}: {message}");
            fs::remove_file(dir.join(NAME)).unwrap();
        }
        // A folder of the same beginning is another.
        fs::create_dir(all.path().join("model2")).unwrap();
        fs::write(all.path().join("model2/file"), "").unwrap();
        symlink("../model2/file", dir.join(NAME)).unwrap();
        assert!(message(&dir).contains("outside"));
    }

    #[test]
    fn files_and_links_within_the_directory_are_read_up_to_the_limit() {
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("model");
        fs::create_dir_all(dir.join("templates")).unwrap();
        fs::write(dir.join("templates/chat"), "0123456789abcdef").unwrap();
        symlink("templates/chat", dir.join(NAME)).unwrap();
        assert_eq!(read(&dir).unwrap().unwrap(), b"0123456789abcdef");
        // The directory may be reached by a link.
        let link = all.path().join("link");
        symlink(&dir, &link).unwrap();
        assert!(read(&link).unwrap().is_some());
        let file = fs::File::create(dir.join("templates/chat")).unwrap();
        // Sparse: it would not fit into memory.
        file.set_len(1 << 40).unwrap();
        assert!(message(&dir).contains("larger than 16 bytes"));
        fs::remove_file(dir.join(NAME)).unwrap();
        symlink("templates", dir.join(NAME)).unwrap();
        assert!(message(&dir).contains("not a regular file"));
        fs::remove_file(dir.join(NAME)).unwrap();
        symlink("/dev/zero", dir.join(NAME)).unwrap();
        assert!(message(&dir).contains("outside"));
        fs::remove_file(dir.join(NAME)).unwrap();
        symlink("none", dir.join(NAME)).unwrap();
        assert!(matches!(read(&dir), Err(LoraError::Io { .. })));
    }

    #[test]
    fn the_links_of_the_hubs_cache_are_followed_to_its_own_blobs_only() {
        let all = tempfile::tempdir().unwrap();
        let model = all.path().join("models--a--b");
        let snapshot = model.join("snapshots/0123");
        let part = snapshot.join("part");
        fs::create_dir_all(&part).unwrap();
        fs::create_dir(model.join("blobs")).unwrap();
        fs::write(model.join("blobs/abc"), "template").unwrap();
        fs::create_dir_all(all.path().join("secrets")).unwrap();
        fs::write(all.path().join("secrets/abc"), "secret").unwrap();
        symlink("../../blobs/abc", snapshot.join(NAME)).unwrap();
        symlink("../../../blobs/abc", part.join(NAME)).unwrap();
        for dir in [&snapshot, &part] {
            assert_eq!(read(dir).unwrap().unwrap(), b"template");
        }
        fs::remove_file(snapshot.join(NAME)).unwrap();
        symlink("../../../secrets/abc", snapshot.join(NAME)).unwrap();
        assert!(message(&snapshot).contains("outside"));
        // A cache made by strangers, whose `blobs` are the user's files.
        fs::remove_dir_all(model.join("blobs")).unwrap();
        symlink("../secrets", model.join("blobs")).unwrap();
        assert!(message(&part).contains("outside"));
    }
}
