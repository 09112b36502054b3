//! The header of a safetensors file, checked against the file's length.

use crate::files::{LFS_MESSAGE, LFS_POINTER};
use safetensors::tensor::Metadata;
use std::io::{ErrorKind, Read};

/// Bytes of the length at the start of a file.
const LENGTH_BYTES: u64 = 8;

/// Longest header that the format allows, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Most tensors in a file. Published models of a trillion parameters have some hundred thousand, in many files.
pub const MAX_TENSORS: usize = 1 << 18;

/// Most entries in a header for each tensor: its name, type, extents and offsets, or a note in the metadata.
const ENTRIES_PER_TENSOR: usize = 8;

/// Size of the parts in which a header is read, in bytes.
const PART: usize = 1 << 16;

/// Reads the header of a safetensors file of `file_bytes` bytes, and returns it with the offset of the first element.
///
/// Layout: the length `n` of the header as a little-endian `u64`, `n` bytes of JSON with each tensor's type, shape and
/// place, then the elements of all tensors without gaps (<https://github.com/huggingface/safetensors#format>).
///
/// The header is read into memory of its own, and its entries are counted as they come: what describes more than
/// [`MAX_TENSORS`] is refused before it is parsed, which takes ten times the memory of the text.
///
/// The `safetensors` crate checks that the tensors lie one after another and that each is as long as its type and shape
/// say. The comparison of their end with the end of the file is done here: version 0.8.0 adds up sizes from the file
/// without a check for overflow, so that a hostile header stops a debug build and passes a release build.
///
/// # Errors
/// A message that says what is wrong with the header.
pub fn read_header(mut file: impl Read, file_bytes: u64) -> Result<(Metadata, u64), String> {
    let read_error = |error: std::io::Error| format!("its header cannot be read: {error}");
    let Some(rest) = file_bytes.checked_sub(LENGTH_BYTES) else {
        return Err("is too short for the header of a safetensors file".into());
    };
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(read_error)?;
    if LFS_POINTER.starts_with(&length) {
        // As a length these bytes would be more than any disk holds.
        return Err(LFS_MESSAGE.into());
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(format!(
            "its header claims {length} bytes, more than the {MAX_HEADER_BYTES} of the format"
        ));
    }
    let Some(data_bytes) = rest.checked_sub(length) else {
        return Err(format!(
            "its header claims {length} bytes, more than the file has"
        ));
    };
    let mut json = Vec::new();
    let mut entries = Entries::default();
    let mut part = vec![0; PART.min(length as usize)];
    while (json.len() as u64) < length {
        let missing = length - json.len() as u64;
        let room = &mut part[..PART.min(missing as usize)];
        let read = match file.read(room) {
            Ok(0) => return Err(read_error(ErrorKind::UnexpectedEof.into())),
            Ok(read) => &room[..read],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(error)),
        };
        entries.count(read)?;
        json.extend_from_slice(read);
    }
    let header: Metadata = serde_json::from_slice(&json)
        .map_err(|error| format!("its safetensors header is invalid: {error}"))?;
    if header.data_len() as u64 != data_bytes {
        return Err(format!(
            "its header describes {} bytes of tensors, but {data_bytes} follow",
            header.data_len()
        ));
    }
    Ok((header, LENGTH_BYTES + length))
}

/// Number of entries in a JSON text that comes in parts, by its commas.
#[derive(Default)]
struct Entries {
    /// Commas of the outer object: the tensors but for one.
    tensors: usize,
    all: usize,
    depth: usize,
    in_string: bool,
    /// True after a backslash in a string.
    escaped: bool,
}

impl Entries {
    /// Counts the entries in the next part.
    ///
    /// # Errors
    /// A message if there are more than a header may have.
    fn count(&mut self, part: &[u8]) -> Result<(), String> {
        for &byte in part {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b',' => {
                    self.all += 1;
                    self.tensors += usize::from(self.depth == 1);
                }
                _ => {}
            }
        }
        if self.tensors >= MAX_TENSORS {
            return Err(format!(
                "its header describes more than the {MAX_TENSORS} tensors that a file may have"
            ));
        }
        if self.all > MAX_TENSORS * ENTRIES_PER_TENSOR {
            return Err(format!(
                "its header has more entries than {MAX_TENSORS} tensors can need"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_lfs_pointer_is_named() {
        let pointer =
            b"version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 548105171\n";
        let error = read_header(&pointer[..], pointer.len() as u64).unwrap_err();
        assert!(error.contains("Git LFS pointer"), "{error}");
    }

    #[test]
    fn offsets_that_add_up_past_the_machine_word_are_an_error_and_no_panic() {
        // Nine tensors of nearly 2^61 bytes, whose end plus the header is 7 in 64 bits.
        let each = (1u64 << 61) - 8;
        let info = |i: u64, size: u64| {
            let start = i * each;
            let end = start + size;
            format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        };
        let mut infos: Vec<String> = (0..8).map(|i| info(i, each)).collect();
        infos.push(info(8, u64::MAX - 8 * each));
        let json = format!("{{{}}}", infos.join(","));
        let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        let error = read_header(&bytes[..], bytes.len() as u64).unwrap_err();
        assert!(
            error.contains("describes 18446744073709551615 bytes"),
            "{error}"
        );
    }

    /// A file whose header is `before`, many times `each`, and `after`.
    fn file(before: &str, each: &str, times: usize, after: &str) -> impl Read {
        let length = before.len() + each.len() * times + after.len();
        let text = [
            before.as_bytes(),
            each.repeat(times).as_bytes(),
            after.as_bytes(),
        ]
        .concat();
        std::io::Cursor::new((length as u64).to_le_bytes()).chain(std::io::Cursor::new(text))
    }

    #[test]
    fn more_tensors_notes_or_extents_than_a_file_can_need_are_refused_before_they_are_parsed() {
        let tensor = r#""a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"#;
        let last = r#""b":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#;
        for (before, each, times, after, expected) in [
            ("{", tensor, 2 * MAX_TENSORS, last, "262144 tensors"),
            (
                r#"{"__metadata__":{"#,
                r#""a":"","#,
                3 << 20,
                r#""b":""}}"#,
                "entries",
            ),
            (
                r#"{"a":{"dtype":"F32","shape":["#,
                "1,",
                3 << 20,
                "1]}}",
                "entries",
            ),
            ("{", ",", 2 * MAX_TENSORS, "}", "262144 tensors"),
        ] {
            let mut file = file(before, each, times, after);
            let error = read_header(&mut file, 1 << 40).unwrap_err();
            assert!(error.contains(expected), "{error}");
            // It was not read to its end.
            let rest = std::io::copy(&mut file, &mut std::io::sink()).unwrap();
            assert!(rest > 0, "{error}");
        }
    }

    #[test]
    fn commas_in_names_are_no_entries() {
        let name = r#"\",\\"#.repeat(MAX_TENSORS + 2);
        let json = format!(r#"{{"__metadata__":{{"a":"{name}"}}}}"#);
        let bytes = [&(json.len() as u64).to_le_bytes(), json.as_bytes()].concat();
        let (header, start) = read_header(&bytes[..], bytes.len() as u64).unwrap();
        assert_eq!(start, bytes.len() as u64);
        let note = &header.metadata().as_ref().unwrap()["a"];
        assert_eq!(note.len(), 3 * (MAX_TENSORS + 2));
    }
}
