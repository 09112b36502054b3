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
    #[must_use]
    pub fn in_memory(name: impl Into<PathBuf>) -> Self {
        let path = name.into();
        let files = Some(Arc::default());
        Self { path, files }
    }

    /// Adds a file in memory. The name of a file in a subdirectory has a slash: `prefix/adapter_config.json`.
    ///
    /// Bytes of the program, such as those of `include_bytes!`, are not copied. Tensors are used where they lie only if their
    /// address fits their type. `include_bytes!` gives any address; a wrapper aligns it:
    ///
    /// ```
    /// use lora_core::files::Directory;
    ///
    /// #[repr(align(4))]
    /// struct Aligned<T: ?Sized>(T);
    ///
    /// // In place of `*b"…"`: `*include_bytes!("model.safetensors")`.
    /// static WEIGHTS: &Aligned<[u8]> = &Aligned(*b"weights");
    /// assert_eq!(WEIGHTS.0.as_ptr().addr() % 4, 0);
    /// let model = Directory::in_memory("my model").with_file("model.safetensors", &WEIGHTS.0);
    /// assert_eq!(model.names(9), ["model.safetensors"]);
    /// ```
    ///
    /// # Panics
    /// If the directory is one of the file system, and for a name that no file in a directory has: one with an empty part, `.`,
    /// `..` or `\\`, and the name of another file as that of a subdirectory.
    #[must_use]
    pub fn with_file(self, name: impl Into<String>, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = match bytes.into() {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        self.with(name.into(), bytes)
    }

    /// Adds a file in memory whose bytes `owner` has, such as a memory map. It is dropped once nothing reads the file any more.
    ///
    /// # Panics
    /// As [`with_file`](Self::with_file).
    #[must_use]
    pub fn with_owned_file(
        self,
        name: impl Into<String>,
        owner: impl AsRef<[u8]> + Send + 'static,
    ) -> Self {
        self.with(name.into(), Bytes::from_owner(owner))
    }

    fn with(mut self, name: String, bytes: Bytes) -> Self {
        let files = self.files.as_mut();
        let files = files.expect("files are added to a directory in memory only");
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\\');
        let is_below = |long: &str, short: &str| {
            let rest = long.strip_prefix(short);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        assert!(
            name.split('/').all(is_part),
            "{name:?} is no name of a file in a directory"
        );
        assert!(
            !files
                .keys()
                .any(|other| is_below(other, &name) || is_below(&name, other)),
            "{name:?} would be a file and a directory"
        );
        Arc::make_mut(files).insert(name, bytes);
        self
    }

    /// Returns the directory with no more than the named files, if it is in memory: the others can be dropped. One of the file system
    /// stays as it is.
    #[must_use]
    pub fn with_only(&self, names: &[&str]) -> Self {
        let files = self.files.as_ref().map(|files| {
            let named = names.iter().filter_map(|name| files.get_key_value(*name));
            Arc::new(
                named
                    .map(|(name, bytes)| (name.clone(), bytes.clone()))
                    .collect(),
            )
        });
        let path = self.path.clone();
        Self { path, files }
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
            Some(files) => {
                let first = |name: &String| name.split('/').next().unwrap_or_default().to_string();
                let mut names: Vec<String> = files.keys().map(first).collect();
                names.dedup();
                names.truncate(limit);
                names
            }
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
    fn the_names_in_memory_are_those_on_disk() {
        let (_disk, [disk, memory]) = both();
        let memory = memory
            .with_file("prefix.txt", b"x")
            .with_file("prefix/a", b"x");
        fs::write(disk.path().join("prefix.txt"), "x").unwrap();
        fs::write(disk.path().join("prefix/a"), "x").unwrap();
        assert_eq!(memory.names(9), ["a.json", "c", "prefix", "prefix.txt"]);
        assert_eq!(disk.names(9), memory.names(9));
        assert_eq!(memory.names(2).len(), disk.names(2).len());
        let names = |directory: &Directory| directory.subdirectory("prefix").unwrap().names(9);
        assert_eq!(names(&memory), names(&disk));
    }

    #[test]
    fn names_that_no_file_in_a_directory_has_are_a_mistake() {
        let names = [
            "", "/a", "..", "../a", "a/../b", "./a", "a/.", "a//b", "a/", "a\\b", "prefix", "c/d",
        ];
        for name in names {
            let (_disk, [disk, memory]) = both();
            for directory in [disk, memory] {
                let add = move || drop(directory.with_file(name, b"x"));
                let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(add));
                assert!(added.is_err(), "{name}");
            }
        }
        let (_disk, [_, memory]) = both();
        // The same name again is another content.
        let memory = memory.with_file("prefix/b", b"other");
        assert_eq!(memory.file("prefix/b").read(9).unwrap(), b"other");
    }

    #[test]
    fn bytes_are_dropped_with_the_last_reader() {
        struct Counted {
            _count: Arc<()>,
        }
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                b"content"
            }
        }
        let counted = |count: &Arc<()>| Counted {
            _count: count.clone(),
        };
        let (kept, dropped) = (Arc::new(()), Arc::new(()));
        let all = Directory::in_memory("memory")
            .with_owned_file("kept", counted(&kept))
            .with_owned_file("dropped", counted(&dropped));
        let some = all.with_only(&["kept", "none"]);
        let (opened, _) = all.file("dropped").open().unwrap();
        drop(all);
        assert_eq!([&kept, &dropped].map(Arc::strong_count), [2, 2]);
        drop(opened);
        assert_eq!([&kept, &dropped].map(Arc::strong_count), [2, 1]);
        assert_eq!(some.file("kept").read(9).unwrap(), b"content");
        drop(some);
        assert_eq!(Arc::strong_count(&kept), 1);
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
