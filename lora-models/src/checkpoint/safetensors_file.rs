//! A safetensors file, mapped into memory.

use super::bounded::open_regular;
use super::host_tensor::{ByteOrder, HostTensor};
use super::{DType, TensorFile, TensorInfo};
use crate::error::ModelError;
use bytes::Bytes;
use lora_core::file::read_header;
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo as StoredInfo};
use std::path::{Path, PathBuf};

/// A safetensors file whose header has been checked against its size.
#[derive(Debug)]
pub(super) struct SafetensorsFile {
    path: PathBuf,
    /// Bytes of the whole file, mapped as long as any part of them is held.
    map: Bytes,
    header: Metadata,
    /// Offset of the first element in bytes.
    data_start: usize,
}

impl SafetensorsFile {
    /// Maps a file and checks its header; no element is read yet.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Malformed`] if the header does not describe the file.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let (file, _) = open_regular(path)?;
        // SAFETY: the map is only read, as bytes or as `f32`, for which every bit pattern is valid, and no reference to it
        // is mutable. No program can prevent another process from changing the file while it is mapped: changed
        // elements would be read as they are then, and truncating the file would end this process by a signal
        // (SIGBUS), not corrupt its memory. Replacing a file by renaming another over it,
        // as this crate's export and package managers do, is harmless: the map keeps the file that was opened.
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(path))?;
        let map = Bytes::from_owner(map);
        let (header, data_start) = read_header(&map[..], map.len() as u64)
            .map_err(|message| ModelError::malformed(path, message))?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            header,
            // Within the map.
            data_start: data_start as usize,
        })
    }

    fn elements(&self, info: &StoredInfo) -> Result<&[u8], ModelError> {
        let (from, to) = info.data_offsets;
        // `read_header` compared the last offset with the file; this check costs nothing and cannot panic.
        self.map
            .get(self.data_start..)
            .and_then(|data| data.get(from..to))
            .ok_or_else(|| ModelError::malformed(&self.path, "a tensor lies outside the file"))
    }

    /// Returns the elements of a tensor of one of these types in the map, wherever they lie. `None` on Windows, where a mapped
    /// file cannot be replaced.
    fn mapped(&self, name: &str, dtypes: &[DType]) -> Option<Bytes> {
        let info = self.header.info(name)?;
        if cfg!(not(all(unix, target_endian = "little"))) || !dtypes.contains(&info.dtype) {
            return None;
        }
        Some(self.map.slice_ref(self.elements(info).ok()?))
    }
}

impl TensorFile for SafetensorsFile {
    fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    fn tensors(&self) -> Vec<(String, TensorInfo)> {
        let tensors = self.header.tensors().into_iter().map(|(name, stored)| {
            let info = TensorInfo {
                dtype: stored.dtype,
                shape: stored.shape.clone(),
            };
            (name, info)
        });
        tensors.collect()
    }

    fn metadata(&self) -> Vec<(String, String)> {
        let notes = self.header.metadata().clone();
        notes.into_iter().flatten().collect()
    }

    fn read_f32(&self, name: &str) -> Option<Result<HostTensor, ModelError>> {
        let info = self.header.info(name)?;
        Some(self.elements(info).and_then(|bytes| {
            let shape = info.shape.clone();
            HostTensor::from_bytes(name, info.dtype, shape, bytes, ByteOrder::Little)
        }))
    }

    fn mapped_f32(&self, name: &str) -> Option<Bytes> {
        let elements = self.mapped(name, &[DType::F32])?;
        let aligned = elements.as_ptr().cast::<f32>().is_aligned();
        aligned.then_some(elements)
    }

    fn mapped_half(&self, name: &str) -> Option<Bytes> {
        self.mapped(name, &[DType::F16, DType::BF16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<SafetensorsFile, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        SafetensorsFile::open(&path)
    }

    fn assert_malformed(bytes: &[u8]) {
        match open(bytes) {
            Err(ModelError::Malformed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }

    const ONE: &str = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn a_tensor_is_read_from_its_place() {
        let data: Vec<u8> = [1.5f32, -2.0]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let file = open(&file(ONE, &data)).unwrap();
        let info = TensorInfo {
            dtype: DType::F32,
            shape: vec![2],
        };
        assert_eq!(info.bytes(), 8);
        assert_eq!(file.tensors(), [("w".to_string(), info)]);
        assert_eq!(file.read_f32("w").unwrap().unwrap().values, [1.5, -2.0]);
        assert!(file.read_f32("v").is_none());
    }

    #[test]
    fn elements_are_taken_where_they_lie_if_they_are_aligned_f32() {
        let data: Vec<u8> = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
        // The elements follow the header, whose length says whether they are aligned.
        let padding = " ".repeat((8 + ONE.len()).next_multiple_of(4) - 8 - ONE.len());
        let aligned = open(&file(&format!("{ONE}{padding}"), &data)).unwrap();
        let unaligned = open(&file(&format!("{ONE}{padding} "), &data)).unwrap();
        let mapped = aligned.mapped_f32("w");
        assert_eq!(mapped.as_deref(), cfg!(unix).then_some(data.as_slice()));
        assert!(aligned.mapped_f32("v").is_none() && unaligned.mapped_f32("w").is_none());
        assert_eq!(
            unaligned.read_f32("w").unwrap().unwrap().values,
            [1.5, -2.0]
        );
        // They outlive the file.
        drop(aligned);
        assert_eq!(mapped.as_deref(), cfg!(unix).then_some(data.as_slice()));
        let half = ONE.replace("F32", "F16").replace("[2]", "[4]");
        let half = open(&file(&half, &data)).unwrap();
        assert!(half.mapped_f32("w").is_none() && unaligned.mapped_half("w").is_none());
        let mapped = half.mapped_half("w");
        assert_eq!(mapped.as_deref(), cfg!(unix).then_some(data.as_slice()));
    }

    #[test]
    fn truncated_files_are_errors_at_every_length() {
        let whole = file(ONE, &[0; 8]);
        for length in 0..whole.len() {
            assert_malformed(&whole[..length]);
        }
    }

    #[test]
    fn a_lying_header_length_is_an_error() {
        for length in [
            u64::MAX,
            u64::MAX - 7,
            1 << 63,
            100_000_001,
            99_999_999,
            0,
            1,
        ] {
            let mut bytes = file(ONE, &[0; 8]);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            assert_malformed(&bytes);
        }
    }

    #[test]
    fn offsets_that_overlap_leave_gaps_or_run_backwards_are_errors() {
        for (first, second) in [
            ("[0,8]", "[4,12]"),
            ("[0,8]", "[12,20]"),
            ("[8,0]", "[0,8]"),
            ("[0,8]", "[0,8]"),
        ] {
            let header = format!(
                r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{first}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{second}}}}}"#
            );
            for data in [8, 12, 16, 20] {
                assert_malformed(&file(&header, &vec![0; data]));
            }
        }
    }

    #[test]
    fn a_shape_that_does_not_fit_its_bytes_is_an_error() {
        for shape in [
            "[3]",
            "[1]",
            "[2,2]",
            "[18446744073709551615,2]",
            "[-1]",
            "[0]",
            "[2.5]",
        ] {
            assert_malformed(&file(&ONE.replace("[2]", shape), &[0; 8]));
        }
    }

    #[test]
    fn offsets_that_add_up_past_the_machine_word_are_errors() {
        // Nine tensors of nearly 2^61 bytes: their end plus the header overflows 64 bits, which `safetensors` 0.8.0
        // adds without a check. Found by reading it; a debug build would stop there.
        let each = (1u64 << 61) - 8;
        let mut parts = Vec::new();
        let mut start = 0u64;
        for i in 0..8 {
            let end = start + each;
            parts.push(format!(
                r#""t{i}":{{"dtype":"U8","shape":[{each}],"data_offsets":[{start},{end}]}}"#
            ));
            start = end;
        }
        let last = u64::MAX - start;
        parts.push(format!(
            r#""t8":{{"dtype":"U8","shape":[{last}],"data_offsets":[{start},{}]}}"#,
            u64::MAX
        ));
        assert_malformed(&file(&format!("{{{}}}", parts.join(",")), &[]));
    }

    #[test]
    fn headers_that_are_no_json_are_errors() {
        for header in [
            "",
            "{",
            "[]",
            "null",
            r#"{"w":3}"#,
            r#"{"w":{"dtype":"F33"}}"#,
        ] {
            assert_malformed(&file(header, &[]));
        }
        assert_malformed(&file(&"[".repeat(100_000), &[]));
    }

    #[test]
    fn integers_are_seen_and_not_read() {
        let header = r#"{"i":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#;
        let file = open(&file(header, &[0; 8])).unwrap();
        assert_eq!(file.tensors()[0].1.dtype, DType::I64);
        assert!(matches!(
            file.read_f32("i").unwrap(),
            Err(ModelError::TensorDtype { name, .. }) if name == "i"
        ));
    }
}
