//! A safetensors file, mapped into memory or read tensor by tensor.

use super::host_tensor::{ByteOrder, HostTensor};
use super::mapping;
use super::{DType, TensorFile, TensorInfo};
use crate::error::ModelError;
use bytes::Bytes;
use lora_core::file::read_header;
use lora_core::files::{DirectoryFile, Opened};
use safetensors::tensor::{Metadata, TensorInfo as StoredInfo};
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A safetensors file whose header has been checked against its size.
#[derive(Debug)]
pub(super) struct SafetensorsFile {
    path: PathBuf,
    content: Content,
    /// True if the file is in memory and not of the file system.
    in_memory: bool,
    length: u64,
    header: Metadata,
    /// Offset of the first element in bytes.
    data_start: u64,
}

#[derive(Debug)]
enum Content {
    /// Bytes of the whole file, in memory or mapped as long as any part of them is held.
    Whole(Bytes),
    Read(Mutex<File>),
}

impl SafetensorsFile {
    /// Opens a file and checks its header; no element is read yet. A file that is not in memory is mapped, unless that is
    /// [off](super::set_mapping) or refused.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Malformed`] if the header does not describe the file.
    pub(super) fn open(file: &DirectoryFile) -> Result<Self, ModelError> {
        Self::open_with(file, mapping::map)
    }

    /// Opens a file, mapped if `map` returns its bytes.
    fn open_with(
        file: &DirectoryFile,
        map: impl FnOnce(&File) -> Option<Bytes>,
    ) -> Result<Self, ModelError> {
        let path = file.path();
        let (mut file, length) = file.open().map_err(ModelError::of_file)?;
        // Into memory of its own: bytes in a map may change after they were checked.
        let header = read_header(&mut file, length);
        let (header, data_start) =
            header.map_err(|message| ModelError::malformed(path, message))?;
        Ok(Self {
            path: path.to_path_buf(),
            in_memory: matches!(file, Opened::Bytes(_)),
            content: match file {
                Opened::Bytes(bytes) => Content::Whole(bytes.into_inner()),
                Opened::File(file) => match map(&file) {
                    Some(bytes) => Content::Whole(bytes),
                    None => Content::Read(Mutex::new(file)),
                },
            },
            length,
            header,
            data_start,
        })
    }

    /// Returns the elements of a tensor in the bytes of the file; `None` if the file is read tensor by tensor.
    fn in_place(&self, info: &StoredInfo) -> Option<Result<&[u8], ModelError>> {
        let Content::Whole(bytes) = &self.content else {
            return None;
        };
        let (from, to) = info.data_offsets;
        // `read_header` compared the last offset with the file, which may have become shorter until it was mapped.
        let start = usize::try_from(self.data_start).ok();
        let data = start.and_then(|start| bytes.get(start..));
        let elements = data.and_then(|data| data.get(from..to));
        let outside = || ModelError::malformed(&self.path, "a tensor lies outside the file");
        Some(elements.ok_or_else(outside))
    }

    fn elements(&self, info: &StoredInfo) -> Result<Cow<'_, [u8]>, ModelError> {
        let file = match &self.content {
            Content::Read(file) => file,
            Content::Whole(_) => {
                let elements = self.in_place(info).unwrap_or(Ok(&[]))?;
                return Ok(Cow::Borrowed(elements));
            }
        };
        let (from, to) = info.data_offsets;
        // Within the file, whose length the header was compared with.
        let mut bytes = vec![0; to - from];
        // A reader that panicked left the file at another place, which is set here.
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let place = SeekFrom::Start(self.data_start + from as u64);
        let read = file.seek(place).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(ModelError::io(&self.path))?;
        Ok(Cow::Owned(bytes))
    }

    /// Returns the elements of a tensor of one of these types where they lie. `None` if the file is read tensor by tensor, and for a
    /// mapped file on Windows, where it could not be replaced.
    fn mapped(&self, name: &str, dtypes: &[DType]) -> Option<Bytes> {
        let info = self.header.info(name)?;
        let may_stay = cfg!(target_endian = "little") && (cfg!(unix) || self.in_memory);
        if !may_stay || !dtypes.contains(&info.dtype) {
            return None;
        }
        let elements = self.in_place(info)?.ok()?;
        match &self.content {
            Content::Whole(bytes) => Some(bytes.slice_ref(elements)),
            Content::Read(_) => None,
        }
    }
}

impl TensorFile for SafetensorsFile {
    fn file_bytes(&self) -> u64 {
        self.length
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
            HostTensor::from_bytes(name, info.dtype, shape, &bytes, ByteOrder::Little)
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
        open_with(bytes, mapping::map)
    }

    fn open_with(
        bytes: &[u8],
        map: impl FnOnce(&File) -> Option<Bytes>,
    ) -> Result<SafetensorsFile, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        SafetensorsFile::open_with(&path.into(), map)
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
    fn a_file_that_cannot_be_mapped_is_read() {
        let two = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        let data = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
        let file = open_with(&file(two, &data), |_| None).unwrap();
        assert!(file.mapped_f32("b").is_none() && file.mapped_half("b").is_none());
        for (name, value) in [("b", -2.0), ("a", 1.5), ("b", -2.0)] {
            assert_eq!(file.read_f32(name).unwrap().unwrap().values, [value]);
        }
    }

    #[test]
    fn a_file_that_was_cut_after_its_header_was_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, file(ONE, &[0; 8])).unwrap();
        let cut = |file: &File| {
            let length = file.metadata().unwrap().len();
            let options = File::options().write(true).open(&path).unwrap();
            options.set_len(length - 4).unwrap();
        };
        let read = SafetensorsFile::open_with(&(&path).into(), |file| {
            cut(file);
            None
        });
        assert!(matches!(
            read.unwrap().read_f32("w").unwrap(),
            Err(ModelError::Io { .. })
        ));
        std::fs::write(&path, file(ONE, &[0; 8])).unwrap();
        let mapped = SafetensorsFile::open_with(&(&path).into(), |file| {
            cut(file);
            mapping::map(file)
        });
        let mapped = mapped.unwrap();
        assert!(mapped.mapped_f32("w").is_none());
        assert!(matches!(
            mapped.read_f32("w").unwrap(),
            Err(ModelError::Malformed { .. })
        ));
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
