//! Directories to read from: of the file system, or files in memory under their names.

use super::companion::read_companion;
use super::read::{note_read, open_regular, read_at_most, read_bounded};
use crate::error::LoraError;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory to read from: one of the file system, or files in memory, such as those that a program embeds by
/// `include_bytes!`.
///
/// Readers of models, tokenizers and adapters take either. A path converts to a directory of the file system.
///
/// # Example
/// ```
/// use lora_core::file::ConfigFile;
/// use lora_core::files::Directory;
///
/// let adapter = Directory::in_memory("the adapter").with_file("adapter_config.json", b"{\"r\": 4}");
/// let config = ConfigFile::read(&adapter)?;
/// assert_eq!(config.keys()["r"], 4);
/// // Messages name the directory and the file.
/// let error = config.lora().unwrap_err().to_string();
/// assert!(error.contains("the adapter/adapter_config.json"), "{error}");
/// # Ok::<(), lora_core::LoraError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
    /// Files in memory by name; `None` for a directory of the file system.
    files: Option<Arc<BTreeMap<String, Bytes>>>,
}

impl<P: AsRef<Path>> From<P> for Directory {
    fn from(path: P) -> Self {
        let path = path.as_ref().into();
        Self { path, files: None }
    }
}

impl From<&Directory> for Directory {
    fn from(directory: &Directory) -> Self {
        directory.clone()
    }
}

impl Directory {
    /// Creates a directory in memory without files. Messages use `name` in the place of a path.
    pub fn in_memory(name: impl Into<PathBuf>) -> Self {
        let path = name.into();
        let files = Some(Arc::default());
        Self { path, files }
    }

    /// Adds a file in memory. The name of a file in a subdirectory has a slash: `prefix/adapter_config.json`.
    ///
    /// Bytes of the program, such as those of `include_bytes!`, are not copied.
    ///
    /// # Panics
    /// If the directory is one of the file system.
    pub fn with_file(
        mut self,
        name: impl Into<String>,
        bytes: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        let bytes = match bytes.into() {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        let files = self.files.as_mut();
        let files = files.expect("files are added to a directory in memory only");
        Arc::make_mut(files).insert(name.into(), bytes);
        self
    }

    /// Returns the path, or the name of a directory in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if the files are in memory.
    pub fn is_in_memory(&self) -> bool {
        self.files.is_some()
    }

    /// Returns true if there is a file or a directory at the path.
    pub fn exists(&self) -> bool {
        self.is_in_memory() || self.path.exists()
    }

    /// Returns true if the path is that of a directory.
    pub fn is_directory(&self) -> bool {
        self.is_in_memory() || self.path.is_dir()
    }

    /// Returns the file of this name, which may not exist.
    pub fn file(&self, name: &str) -> DirectoryFile {
        DirectoryFile {
            path: self.path.join(name),
            content: match &self.files {
                None => Content::OnDisk,
                Some(files) => files
                    .get(name)
                    .map_or(Content::Absent, |bytes| Content::InMemory(bytes.clone())),
            },
        }
    }

    /// Returns a subdirectory; `None` if there is none of this name.
    pub fn subdirectory(&self, name: &str) -> Option<Self> {
        let path = self.path.join(name);
        let Some(files) = &self.files else {
            return path.is_dir().then(|| path.into());
        };
        let files = files.iter().filter_map(|(file, bytes)| {
            let file = file.strip_prefix(name)?.strip_prefix('/')?;
            Some((file.to_string(), bytes.clone()))
        });
        let files: BTreeMap<String, Bytes> = files.collect();
        (!files.is_empty()).then(|| Self {
            path,
            files: Some(Arc::new(files)),
        })
    }

    /// Returns the names of at most `limit` files and directories in the directory, sorted; none if it cannot be listed.
    pub fn names(&self, limit: usize) -> Vec<String> {
        let mut names: Vec<String> = match &self.files {
            Some(files) => files.keys().take(limit).cloned().collect(),
            None => {
                let entries = fs::read_dir(&self.path).into_iter().flatten();
                let entries = entries.take(limit).flatten();
                entries
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect()
            }
        };
        names.sort();
        names
    }

    /// Reads a file for a copy, as [`read_companion`]; `None` if there is none of this name.
    ///
    /// # Errors
    /// As [`read_companion`].
    pub fn read_companion(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, LoraError> {
        let file = self.file(name);
        match &file.content {
            Content::OnDisk => read_companion(&self.path, name, limit),
            Content::InMemory(bytes) => read_at_most(&file.path, &bytes[..], limit).map(Some),
            Content::Absent => Ok(None),
        }
    }
}

/// A file of a [`Directory`], which may not exist.
#[derive(Clone, Debug)]
pub struct DirectoryFile {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    OnDisk,
    InMemory(Bytes),
    /// No file of the name in memory.
    Absent,
}

impl<P: AsRef<Path>> From<P> for DirectoryFile {
    fn from(path: P) -> Self {
        Self {
            path: path.as_ref().into(),
            content: Content::OnDisk,
        }
    }
}

impl From<&DirectoryFile> for DirectoryFile {
    fn from(file: &DirectoryFile) -> Self {
        file.clone()
    }
}

impl DirectoryFile {
    /// Returns the path, which starts with the name of a directory in memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if there is a file, or a directory in its place.
    pub fn exists(&self) -> bool {
        match self.content {
            Content::OnDisk => self.path.exists(),
            Content::InMemory(_) => true,
            Content::Absent => false,
        }
    }

    /// Returns true if there is a file.
    pub fn is_file(&self) -> bool {
        match self.content {
            Content::OnDisk => self.path.is_file(),
            _ => self.exists(),
        }
    }

    /// Returns true if the file is, or would be, in memory.
    pub fn is_in_memory(&self) -> bool {
        !matches!(self.content, Content::OnDisk)
    }

    /// Opens a regular file and returns it with its length in bytes, as [`open_regular`].
    ///
    /// # Errors
    /// [`LoraError::Io`] if it cannot be opened, [`LoraError::Malformed`] if it is not a regular file.
    pub fn open(&self) -> Result<(Opened, u64), LoraError> {
        match &self.content {
            Content::OnDisk => {
                let (file, length) = open_regular(&self.path)?;
                Ok((Opened::File(file), length))
            }
            Content::InMemory(bytes) => {
                let length = bytes.len() as u64;
                Ok((Opened::Bytes(Cursor::new(bytes.clone())), length))
            }
            Content::Absent => Err(LoraError::io(&self.path)(self.absent())),
        }
    }

    /// Reads a whole file of at most `limit` bytes, as [`read_bounded`].
    ///
    /// # Errors
    /// As [`read_bounded`].
    pub fn read(&self, limit: u64) -> Result<Vec<u8>, LoraError> {
        match &self.content {
            Content::OnDisk => read_bounded(&self.path, limit),
            Content::InMemory(bytes) => {
                note_read(&self.path);
                read_at_most(&self.path, &bytes[..], limit)
            }
            Content::Absent => Err(LoraError::io(&self.path)(self.absent())),
        }
    }

    fn absent(&self) -> io::Error {
        io::Error::new(ErrorKind::NotFound, "there is no such file in memory")
    }
}

/// Content of an open file.
#[derive(Debug)]
pub enum Opened {
    /// A file of the file system.
    File(File),
    /// A file in memory.
    Bytes(Cursor<Bytes>),
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Opened {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(position),
            Self::Bytes(bytes) => bytes.seek(position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (tempfile::TempDir, [Directory; 2]) {
        let disk = tempfile::tempdir().unwrap();
        fs::create_dir(disk.path().join("prefix")).unwrap();
        let mut memory = Directory::in_memory("memory");
        for (name, content) in [
            ("a.json", "{}"),
            ("prefix/b", "beta"),
            ("c", "version https://git-lfs.github.com/spec/v1\noid"),
        ] {
            fs::write(disk.path().join(name), content).unwrap();
            memory = memory.with_file(name, content.as_bytes());
        }
        let directories = [disk.path().into(), memory];
        (disk, directories)
    }

    #[test]
    fn files_on_disk_and_in_memory_are_read_with_the_same_bounds_and_errors() {
        let (_disk, directories) = both();
        for directory in &directories {
            let file = directory.file("a.json");
            assert!(file.exists() && file.is_file() && directory.is_directory());
            assert_eq!(file.read(2).unwrap(), b"{}");
            assert_eq!(
                directory.read_companion("a.json", 2).unwrap().unwrap(),
                b"{}"
            );
            let error = file.read(1).unwrap_err().to_string();
            assert!(error.contains("larger than 1 bytes"), "{error}");
            assert!(directory.read_companion("a.json", 1).is_err());
            let (mut opened, length) = file.open().unwrap();
            let mut content = String::new();
            opened.seek(SeekFrom::Start(1)).unwrap();
            opened.read_to_string(&mut content).unwrap();
            assert_eq!((content.as_str(), length), ("}", 2));

            let error = directory.file("c").read(100).unwrap_err().to_string();
            assert!(error.contains("Git LFS pointer"), "{error}");
            assert!(directory.read_companion("c", 100).is_err());

            let none = directory.file("none");
            assert!(!none.exists() && !none.is_file());
            for error in [none.open().unwrap_err(), none.read(1).unwrap_err()] {
                let is_named =
                    matches!(&error, LoraError::Io { path, .. } if path.ends_with("none"));
                assert!(is_named, "{error}");
            }
            assert_eq!(directory.read_companion("none", 1).unwrap(), None);
        }
    }

    #[test]
    fn a_subdirectory_has_the_files_below_its_name() {
        let (_disk, directories) = both();
        for directory in &directories {
            let prefix = directory.subdirectory("prefix").unwrap();
            assert_eq!(prefix.file("b").read(9).unwrap(), b"beta");
            assert_eq!(prefix.names(9), ["b"]);
            assert!(!prefix.file("a.json").exists());
            assert!(directory.subdirectory("pre").is_none());
        }
    }
}
