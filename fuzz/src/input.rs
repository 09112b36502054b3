//! Files of an input.

use std::path::Path;

/// Separator between the files of an input.
pub const MARK: &[u8] = b"\n%%\n";

/// Splits an input; missing parts are empty.
pub(super) fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = input;
    let mut parts = [[].as_slice(); N];
    for part in &mut parts {
        let at = rest.windows(MARK.len()).position(|bytes| bytes == MARK);
        let end = at.unwrap_or(rest.len());
        *part = &rest[..end];
        rest = rest.get(end + MARK.len()..).unwrap_or_default();
    }
    parts
}

/// Puts the length of a header before it, as a safetensors file begins.
pub(super) fn with_length(header: &[u8], values: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, values].concat()
}

/// Writes the files that are not empty to a folder, with the folders in their names, and reads it.
pub(super) fn in_folder(files: &[(&str, &[u8])], read: impl FnOnce(&Path) -> bool) -> bool {
    // A folder for each input: nothing of the one before can be left.
    let Ok(folder) = tempfile::tempdir() else {
        return false;
    };
    for (name, bytes) in files {
        let path = folder.path().join(name);
        let written = || {
            if let Some(parent) = path.parent().filter(|_| name.contains('/')) {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(&path, bytes)
        };
        if !bytes.is_empty() && written().is_err() {
            return false;
        }
    }
    read(folder.path())
}

/// Builds a ZIP archive without compression: APPNOTE.TXT of PKWARE, sections 4.3.7 to 4.3.16.
pub(super) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let length = (bytes.len() as u32).to_le_bytes();
        let sizes = [crc32(bytes).to_le_bytes(), length, length].concat();
        let name_length = (name.len() as u16).to_le_bytes();
        let place = (file.len() as u32).to_le_bytes();
        let head = [0x14, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        file.extend([b"PK\x03\x04", &head[..], &sizes, &name_length, &[0, 0]].concat());
        file.extend([name.as_bytes(), bytes].concat());
        directory.extend([b"PK\x01\x02\x14\x00", &head[..], &sizes, &name_length].concat());
        directory.extend([&[0; 12][..], &place, name.as_bytes()].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let size = (directory.len() as u32).to_le_bytes();
    let place = (file.len() as u32).to_le_bytes();
    file.extend(&directory);
    file.extend(
        [
            b"PK\x05\x06\0\0\0\0",
            &count[..],
            &count,
            &size,
            &place,
            &[0, 0],
        ]
        .concat(),
    );
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(!0, step)
}
