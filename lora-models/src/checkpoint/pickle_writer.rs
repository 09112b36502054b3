//! Writer for files in the form of `torch.save`: a ZIP archive of a pickle, which describes the tensors, and one entry
//! for the elements of each tensor.
//!
//! The pickle is the one that Python writes for an `OrderedDict` of float tensors: `torch.load(path,
//! weights_only=True)` reads it, and [`super::pickle_scan`] accepts it. Source for the instructions and their
//! operands: `pickletools` of the Python standard library.

use super::safetensors_writer::plan_tensors;
use super::{ExportDType, TensorRef};
use crate::error::ModelError;
use lora_core::files::{Overwrite, write_file};
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Folder of all entries. Python uses the name of the file, and reads any name.
const FOLDER: &str = "archive";
/// Alignment of the elements in bytes, as in Python's files, which allows to map them into memory.
const ALIGNMENT: u16 = 64;

/// Writes tensors to one file as f32, atomically, and returns its length in bytes.
///
/// # Errors
/// [`ModelError::Export`] if two tensors have one name, or the file would be longer than the 4 GB that this form
/// holds; [`ModelError::TensorShape`] if a shape and its values disagree; [`ModelError::Lora`] if the file exists and
/// must not be replaced, or cannot be written.
pub fn write_pickle(
    path: impl AsRef<Path>,
    tensors: &[TensorRef<'_>],
    overwrite: Overwrite,
) -> Result<u64, ModelError> {
    let path = path.as_ref();
    let planned = plan_tensors(path, TensorRef::shapes(tensors), ExportDType::F32)?;
    let bytes: usize = planned.iter().map(|tensor| tensor.bytes).sum();
    for tensor in tensors {
        if tensor.shape.iter().product::<usize>() != tensor.values.len() {
            let found = tensor.values.len();
            return Err(ModelError::shape(tensor.name, tensor.shape, &[found]));
        }
    }
    // Leaves room for names.
    if bytes as u64 > u64::from(u32::MAX) - (64 << 20) {
        let message =
            format!("{bytes} bytes of tensors exceed the limit of a pickle; write safetensors");
        return Err(ModelError::export(path, message));
    }
    let archive = archive(tensors).map_err(|error| ModelError::export(path, error.to_string()))?;
    write_file(path, overwrite, |file| file.write_all(&archive))?;
    Ok(archive.len() as u64)
}

fn archive(tensors: &[TensorRef<'_>]) -> zip::result::ZipResult<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut entry = |name: &str, content: &[u8]| {
        zip.start_file(format!("{FOLDER}/{name}"), options)?;
        zip.write_all(content)?;
        zip::result::ZipResult::Ok(())
    };
    entry("data.pkl", &pickle(tensors))?;
    entry("byteorder", b"little")?;
    for (number, tensor) in tensors.iter().enumerate() {
        let elements = tensor.values.iter().flat_map(|value| value.to_le_bytes());
        entry(&format!("data/{number}"), &elements.collect::<Vec<u8>>())?;
    }
    entry("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// Builds `OrderedDict((name, torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())), …)`
/// in protocol 2.
fn pickle(tensors: &[TensorRef<'_>]) -> Vec<u8> {
    const ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = Pickle(b"\x80\x02".to_vec());
    out.raw(ORDERED_DICT);
    out.raw(b"(");
    for (number, tensor) in tensors.iter().enumerate() {
        out.text(tensor.name);
        out.raw(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        // A persistent id refers to another entry of the archive.
        out.text("storage");
        out.raw(b"ctorch\nFloatStorage\n");
        out.text(&number.to_string());
        out.text("cpu");
        out.number(tensor.values.len());
        out.raw(b"tQ");
        out.number(0);
        out.tuple(tensor.shape);
        out.tuple(&strides(tensor.shape));
        out.raw(b"\x89"); // No gradient is asked for.
        out.raw(ORDERED_DICT); // No hooks.
        out.raw(b"tR");
    }
    out.raw(b"u.");
    out.0
}

/// Returns the distance between neighbours along each axis, in elements, row-major.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at].max(1);
    }
    strides
}

/// Builder for the instructions of a pickle.
struct Pickle(Vec<u8>);

impl Pickle {
    fn raw(&mut self, instructions: &[u8]) {
        self.0.extend_from_slice(instructions);
    }

    /// Appends a BINUNICODE.
    fn text(&mut self, text: &str) {
        self.raw(b"X");
        self.raw(&(text.len() as u32).to_le_bytes());
        self.raw(text.as_bytes());
    }

    /// Appends the shortest of BININT1, BININT and LONG1 that holds the number.
    fn number(&mut self, number: usize) {
        match (u8::try_from(number), i32::try_from(number)) {
            (Ok(small), _) => self.raw(&[b'K', small]),
            (_, Ok(middle)) => {
                self.raw(b"J");
                self.raw(&middle.to_le_bytes());
            }
            _ => {
                // Nine bytes, so that the last one, which holds the sign, is zero.
                self.raw(&[0x8a, 9]);
                self.raw(&(number as u64).to_le_bytes());
                self.raw(&[0]);
            }
        }
    }

    fn tuple(&mut self, numbers: &[usize]) {
        self.raw(b"(");
        numbers.iter().for_each(|&number| self.number(number));
        self.raw(b"t");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Checkpoint, CheckpointSource};
    use super::*;

    fn tensor<'a>(name: &'a str, shape: &'a [usize], values: &'a [f32]) -> TensorRef<'a> {
        TensorRef {
            name,
            shape,
            values,
        }
    }

    #[test]
    fn what_is_written_is_read_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.bin");
        let long: Vec<f32> = (0..70_000).map(|i| (i as f32).sin()).collect();
        let odd = [
            0.1,
            -0.0,
            f32::MIN_POSITIVE / 3.0,
            f32::INFINITY,
            f32::MAX,
            1.0 / 3.0,
        ];
        let tensors = [
            tensor("h.0.lora_A", &[2, 3], &odd),
            tensor("long", &[70, 1000], &long),
            tensor("scalar", &[], &[7.5]),
            tensor("empty", &[0, 4], &[]),
            tensor("ünï", &[1], &[-2.0]),
        ];
        let length = write_pickle(&path, &tensors, Overwrite::Refuse).unwrap();
        let file = Checkpoint::open(&path).unwrap();
        assert_eq!(file.source(), CheckpointSource::PytorchBin);
        assert_eq!((file.len(), file.file_bytes()), (5, length));
        for expected in tensors {
            let found = file.read_f32(expected.name).unwrap();
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(found.shape, expected.shape, "{}", expected.name);
            assert_eq!(
                bits(&found.values),
                bits(expected.values),
                "{}",
                expected.name
            );
        }
    }

    #[test]
    fn the_same_tensors_make_the_same_bytes() {
        let tensors = [tensor("a", &[2], &[1.0, 2.0])];
        assert_eq!(archive(&tensors).unwrap(), archive(&tensors).unwrap());
    }

    #[test]
    fn elements_begin_where_they_can_be_mapped() {
        let tensors = [tensor("a", &[3], &[1.0; 3]), tensor("b", &[2], &[2.0; 2])];
        let archive = archive(&tensors).unwrap();
        let mut zip = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
        for name in ["archive/data/0", "archive/data/1"] {
            let entry = zip.by_name(name).unwrap();
            assert_eq!(entry.data_start().unwrap() % 64, 0, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_a_state_dict_is_refused_and_nothing_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.pt");
        let one = tensor("a", &[1], &[1.0]);
        let twice = write_pickle(&path, &[one, one], Overwrite::Refuse);
        assert!(matches!(twice, Err(ModelError::Export { .. })));
        let short = write_pickle(&path, &[tensor("a", &[2], &[1.0])], Overwrite::Refuse);
        assert!(matches!(short, Err(ModelError::TensorShape { .. })));
        assert!(!path.exists());
        write_pickle(&path, &[one], Overwrite::Refuse).unwrap();
        assert!(write_pickle(&path, &[one], Overwrite::Refuse).is_err());
        write_pickle(&path, &[one], Overwrite::Replace).unwrap();
    }

    #[test]
    fn numbers_take_the_bytes_they_need() {
        let of = |number: usize| {
            let mut pickle = Pickle(Vec::new());
            pickle.number(number);
            pickle.0
        };
        assert_eq!(of(255), [b'K', 255]);
        assert_eq!(of(256), [b'J', 0, 1, 0, 0]);
        assert_eq!(of(1 << 31), [0x8a, 9, 0, 0, 0, 128, 0, 0, 0, 0, 0]);
    }
}
