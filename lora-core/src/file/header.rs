//! The header of a safetensors file, checked against the file's length.

use crate::files::{LFS_MESSAGE, LFS_POINTER};
use safetensors::tensor::Metadata;
use std::io::Read;

/// Bytes of the length at the start of a file.
const LENGTH_BYTES: u64 = 8;

/// Longest header that the format allows, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Reads the header of a safetensors file of `file_bytes` bytes, and returns it with the offset of the first element.
///
/// Layout: the length `n` of the header as a little-endian `u64`, `n` bytes of JSON with each tensor's type, shape and
/// place, then the elements of all tensors without gaps (<https://github.com/huggingface/safetensors#format>).
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
    let mut json = vec![0; length as usize];
    file.read_exact(&mut json).map_err(read_error)?;
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
}
