//! Lines of a text file, with bounds on the memory that a hostile file can take.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use lora_core::files::lfs_pointer;

use super::record::Origin;
use crate::error::TrainError;

/// Maximum length of a line, or of a row over several lines, in bytes. A file without line breaks
/// (a disk image given by mistake, `/dev/zero`) would otherwise fill the memory.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Byte order mark that some editors on Windows write before the first line. It is not part of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reader of a text line by line, which counts the lines.
pub(crate) struct Lines {
    reader: Box<dyn BufRead>,
    path: Arc<Path>,
    line: usize,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens `path` at its first line.
    pub(crate) fn open(path: &Path) -> Result<Self, TrainError> {
        let file = File::open(path).map_err(TrainError::io(path))?;
        Ok(Self::from_reader(BufReader::new(file), path))
    }

    /// Opens `path` at its first line, or standard input for `-`.
    pub(crate) fn open_input(path: &Path) -> Result<Self, TrainError> {
        if path.as_os_str() == "-" {
            let input = std::io::stdin().lock();
            return Ok(Self::from_reader(input, Path::new("standard input")));
        }
        Self::open(path)
    }

    /// Returns the next line that is not blank, as [`next_line`](Self::next_line).
    pub(crate) fn next_text(&mut self) -> Result<Option<(String, Origin)>, TrainError> {
        while let Some((line, origin)) = self.next_line()? {
            if !is_blank(line) {
                return Ok(Some((line.to_string(), origin)));
            }
        }
        Ok(None)
    }

    /// Reads the lines of a reader, which messages call `path`.
    pub(crate) fn from_reader(reader: impl BufRead + 'static, path: &Path) -> Self {
        Self {
            reader: Box::new(reader),
            path: Arc::from(path),
            line: 0,
            buffer: Vec::new(),
        }
    }

    /// Returns the next line without its ending (`\n` or `\r\n`), with its origin; `None` at the end of
    /// the file.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] if the line is longer than [`MAX_LINE_BYTES`] or is not UTF-8, or the file is a Git LFS pointer;
    /// [`TrainError::Io`] if it cannot be read.
    pub(crate) fn next_line(&mut self) -> Result<Option<(&str, Origin)>, TrainError> {
        self.buffer.clear();
        // One byte more than is allowed tells a line of the greatest length from a longer one; the
        // line ending, up to two bytes, does not count.
        let limit = (MAX_LINE_BYTES + 3) as u64;
        let read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.buffer)
            .map_err(TrainError::io(&*self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;

        let origin = Origin::new(self.path.clone(), self.line);
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").unwrap_or(line);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > MAX_LINE_BYTES {
            return Err(origin.error(format!(
                "longer than {} MiB, the maximum for a line; is this a text file?",
                MAX_LINE_BYTES / (1024 * 1024)
            )));
        }
        if self.line == 1 {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if self.line == 1
            && let Some(message) = lfs_pointer(line)
        {
            return Err(origin.error(message));
        }
        let text = std::str::from_utf8(line).map_err(|error| {
            origin.error(format!(
                "not valid UTF-8 from byte {} on; convert the file to UTF-8",
                error.valid_up_to() + 1
            ))
        })?;
        Ok(Some((text, origin)))
    }
}

/// Returns true if a line holds nothing but white space.
pub(crate) fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// Reads the first line that is not blank; `None` if there is none.
pub(super) fn first_line(path: &Path) -> Result<Option<String>, TrainError> {
    let first = Lines::open(path)?.next_text()?;
    Ok(first.map(|(line, _)| line))
}

/// Reads the first kilobytes of a file, without a byte order mark and what is not UTF-8.
pub(super) fn beginning(path: &Path) -> Result<String, TrainError> {
    const BYTES: u64 = 64 * 1024;
    let file = File::open(path).map_err(TrainError::io(path))?;
    let mut bytes = Vec::new();
    let read = file.take(BYTES).read_to_end(&mut bytes);
    read.map_err(TrainError::io(path))?;
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Returns true if the first character of a file, after white space, is one of these.
pub(super) fn begins_with(path: &Path, characters: &[char]) -> Result<bool, TrainError> {
    Ok(beginning(path)?.trim_start().starts_with(characters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn all(bytes: &[u8]) -> Result<Vec<(usize, String)>, TrainError> {
        let file = file(bytes);
        let mut lines = Lines::open(file.path())?;
        let mut found = Vec::new();
        while let Some((line, origin)) = lines.next_line()? {
            found.push((origin.line(), line.to_string()));
        }
        Ok(found)
    }

    #[test]
    fn endings_of_both_kinds_are_removed_and_lines_counted_from_one() {
        let found = all(b"one\r\n\n three \nlast").unwrap();
        let expected = [(1, "one"), (2, ""), (3, " three "), (4, "last")];
        assert_eq!(found, expected.map(|(n, line)| (n, line.to_string())));
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_first_line() {
        assert_eq!(all(b"\xEF\xBB\xBFone\n").unwrap(), [(1, "one".to_string())]);
    }

    #[test]
    fn invalid_utf8_is_named_by_line_and_byte() {
        let message = all(b"good\nba\xFFd\n").unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
        assert!(message.contains("from byte 3"), "{message}");
    }

    #[test]
    fn the_longest_line_is_read_and_one_byte_more_refused() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES];
        bytes.extend(b"\r\n");
        assert_eq!(all(&bytes).unwrap()[0].1.len(), MAX_LINE_BYTES);
        bytes.insert(0, b'x');
        let message = all(&bytes).unwrap_err().to_string();
        assert!(message.contains("line 1: longer than 16 MiB"), "{message}");
    }

    #[test]
    fn a_missing_file_is_an_io_error_with_its_path() {
        let error = Lines::open(Path::new("no/such/file.txt")).err().unwrap();
        assert!(error.to_string().starts_with("no/such/file.txt: "));
    }
}
