//! The pickle in the ZIP archive that `torch.save` writes.
//!
//! The archive is opened by the `zip` crate, as `pytorch_reader` opens it afterwards, so that both see the same entries.
//! An archive that `torch.save` would not write is refused: compressed entries, which can be a thousand times as long as
//! their file; a comment; bytes before or after the archive; two entries of one name; more than one pickle.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use zip::{CompressionMethod, ZipArchive};

/// The most bytes of a directory that are read: an entry takes some 80 bytes, and each tensor has one.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

/// Length of the record at the end of an archive without a comment.
const END_BYTES: usize = 22;

/// Reads the pickle of an archive, of at most `limit` bytes.
///
/// # Errors
/// A description of what is wrong with the archive, for a message that names the file.
pub(super) fn read_pickle(file: &mut File, limit: u64) -> Result<Vec<u8>, String> {
    let broken = |err: &dyn std::fmt::Display| {
        format!("not a whole ZIP archive as torch.save writes it: {err}")
    };
    let mut end = [0; END_BYTES];
    file.seek(SeekFrom::End(-(END_BYTES as i64)))
        .and_then(|_| file.read_exact(&mut end))
        .map_err(|err| broken(&err))?;
    if !end.starts_with(b"PK\x05\x06") || end[END_BYTES - 2..] != [0, 0] {
        return Err(broken(&"it does not end with the record of its directory"));
    }
    let bounded = BoundedReader {
        inner: file,
        left: MAX_DIRECTORY_BYTES + limit,
    };
    let mut archive = ZipArchive::new(BufReader::new(bounded)).map_err(|err| broken(&err))?;
    if archive.offset() != 0 || !archive.comment().is_empty() {
        return Err("there are bytes before its ZIP archive, which torch.save never writes".into());
    }
    if archive.has_duplicate_names() {
        return Err("two entries of its ZIP archive have one name".into());
    }
    let index = find_pickle(&archive)?;
    let mut entry = archive.by_index_raw(index).map_err(|err| broken(&err))?;
    let length = entry.size();
    if length > limit {
        return Err(format!(
            "its pickle has {length} bytes; the limit is {limit}"
        ));
    }
    let mut pickle = Vec::new();
    entry.read_to_end(&mut pickle).map_err(|err| broken(&err))?;
    if pickle.len() as u64 != length {
        return Err(broken(&"its pickle is truncated"));
    }
    Ok(pickle)
}

/// Checks all entries of the directory and returns the index of the only pickle.
fn find_pickle<R: Read + Seek>(archive: &ZipArchive<R>) -> Result<usize, String> {
    let mut found = None;
    for index in 0..archive.len() {
        let entry = archive
            .by_index_data(index)
            .map_err(|err| err.to_string())?;
        if entry.compression() != CompressionMethod::Stored
            || entry.compressed_size() != entry.size()
            || entry.encrypted()
        {
            return Err("its entries are compressed, which torch.save never does".to_string());
        }
        let name = entry.name().map_err(|err| err.to_string())?;
        if (name == "data.pkl" || name.ends_with("/data.pkl")) && found.replace(index).is_some() {
            return Err("it holds more than one pickle".to_string());
        }
    }
    found.ok_or_else(|| "its ZIP archive lacks the data.pkl of torch.save".to_string())
}

/// A reader that fails after a number of bytes, so that a directory cannot fill the memory.
struct BoundedReader<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for BoundedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("its directory exceeds the limit"));
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

impl<R: Seek> Seek for BoundedReader<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn archive(entries: &[&str], comment: &str) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for name in entries {
            zip.start_file(*name, stored).unwrap();
            zip.write_all(b"\x80\x02}.").unwrap();
        }
        if !comment.is_empty() {
            zip.set_comment(comment).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    fn read(bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read_pickle(&mut file, limit)
    }

    #[test]
    fn the_pickle_is_read_up_to_a_limit() {
        let bytes = archive(&["model/data.pkl", "model/data/0"], "");
        assert_eq!(read(&bytes, 4).unwrap(), b"\x80\x02}.");
        assert!(read(&bytes, 3).unwrap_err().contains("limit is 3"));
    }

    #[test]
    fn archives_that_could_be_read_in_two_ways_are_refused() {
        let honest = archive(&["a/data.pkl", "a/version"], "");
        let mut same_names = archive(&["a/data.pkl", "b/data.pkl"], "");
        for at in 0..same_names.len() - 10 {
            if same_names[at..].starts_with(b"b/data.pkl") {
                same_names[at] = b'a';
            }
        }
        for (bytes, reason) in [
            ([b"MZ".as_slice(), &honest].concat(), "before"),
            ([&honest, b"more".as_slice()].concat(), "not a whole"),
            (archive(&["a/data.pkl"], "comment"), "not a whole"),
            (archive(&["a/version"], ""), "lacks the data.pkl"),
            (
                archive(&["data.pkl", "b/data.pkl"], ""),
                "more than one pickle",
            ),
            (same_names, "one name"),
            (Vec::new(), "not a whole"),
        ] {
            let message = read(&bytes, 100).unwrap_err();
            assert!(message.contains(reason), "{message}");
        }
    }

    #[test]
    fn a_reader_stops_at_its_bound() {
        let mut reader = BoundedReader {
            inner: io::repeat(1),
            left: 100,
        };
        let mut bytes = Vec::new();
        assert!(reader.read_to_end(&mut bytes).is_err());
        assert_eq!(bytes.len(), 100);
    }
}
