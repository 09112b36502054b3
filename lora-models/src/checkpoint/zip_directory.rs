//! Where the pickle lies in the ZIP archive that `torch.save` writes.
//!
//! `pytorch_reader` reads these archives; this is the part of the format needed to look at the pickle before it does:
//! the directory at the end of the archive. Only what `torch.save` writes is accepted: no compression (a compressed
//! entry can be a thousand times as long as its file), no comment, no bytes before the archive, one pickle. Whatever
//! could be read in two ways is thereby refused, and both readers see the same.
//!
//! Layout: APPNOTE.TXT of PKWARE, sections 4.3.7 to 4.3.16.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The longest directory read: some 80 bytes an entry, an entry for each tensor.
const MAX_DIRECTORY_BYTES: u64 = 64 << 20;

const END_BYTES: u64 = 22;
const END_ZIP64_BYTES: u64 = 56;
const LOCATOR_ZIP64_BYTES: u64 = 20;
const ENTRY_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;

/// Stands in a 32-bit field whose value is in the ZIP64 extra field instead.
const IN_ZIP64: u32 = u32::MAX;

/// The identifier of the ZIP64 extra field, the only extra field that PyTorch writes into the directory.
const ZIP64_EXTRA: u16 = 1;

/// Reads the pickle of an archive of `length` bytes, of at most `limit` bytes.
///
/// # Errors
///
/// What is wrong with the archive, for a message that names the file.
pub(super) fn read_pickle(file: &mut File, length: u64, limit: u64) -> Result<Vec<u8>, String> {
    let directory = read_directory(file, length)?;
    let pickle = find_pickle(&directory)?;
    if pickle.length > limit {
        return Err(format!(
            "its pickle has {} bytes; at most {limit} are read",
            pickle.length
        ));
    }
    let local = read_at(file, length, pickle.local_header, LOCAL_BYTES as u64)?;
    if local.get(..4) != Some(b"PK\x03\x04") {
        return Err("its directory points to no entry of the archive".to_string());
    }
    let names = u64::from(u16_at(&local, 26)?) + u64::from(u16_at(&local, 28)?);
    read_at(
        file,
        length,
        pickle.local_header + LOCAL_BYTES as u64 + names,
        pickle.length,
    )
}

/// The place of the entry `data.pkl`.
struct PickleEntry {
    local_header: u64,
    length: u64,
}

/// Reads the central directory, found through the record at the end of the archive.
fn read_directory(file: &mut File, length: u64) -> Result<Vec<u8>, String> {
    let cut = || "not a whole ZIP archive as torch.save writes it: its end is missing".to_string();
    let end_at = length.checked_sub(END_BYTES).ok_or_else(cut)?;
    let end = read_at(file, length, end_at, END_BYTES)?;
    if !end.starts_with(b"PK\x05\x06") {
        return Err(cut());
    }
    let mut size = u64::from(u32_at(&end, 12)?);
    let mut offset = u64::from(u32_at(&end, 16)?);
    let mut directory_end = end_at;

    // PyTorch writes the 64-bit form of the record as well, whether it needs it or not.
    let zip64_at = end_at.checked_sub(LOCATOR_ZIP64_BYTES + END_ZIP64_BYTES);
    if let Some(zip64_at) = zip64_at {
        let records = read_at(
            file,
            length,
            zip64_at,
            END_ZIP64_BYTES + LOCATOR_ZIP64_BYTES,
        )?;
        let locator = &records[END_ZIP64_BYTES as usize..];
        if locator.starts_with(b"PK\x06\x07") {
            if !records.starts_with(b"PK\x06\x06") || u64_at(locator, 8)? != zip64_at {
                return Err("its 64-bit directory record is not where it belongs".to_string());
            }
            size = u64_at(&records, 40)?;
            offset = u64_at(&records, 48)?;
            directory_end = zip64_at;
        }
    }
    if offset.checked_add(size) != Some(directory_end) {
        return Err("its directory is not where its last record says".to_string());
    }
    if size > MAX_DIRECTORY_BYTES {
        return Err(format!(
            "its directory has {size} bytes; at most {MAX_DIRECTORY_BYTES} are read"
        ));
    }
    read_at(file, length, offset, size)
}

/// Goes through all entries of the directory and returns the one pickle.
fn find_pickle(directory: &[u8]) -> Result<PickleEntry, String> {
    let mut found = None;
    let mut rest = directory;
    while !rest.is_empty() {
        if !rest.starts_with(b"PK\x01\x02") || rest.len() < ENTRY_BYTES {
            return Err("its directory is damaged".to_string());
        }
        if u16_at(rest, 10)? != 0 {
            return Err("its entries are compressed, which torch.save never does".to_string());
        }
        let (name_len, extra_len, comment_len) =
            (u16_at(rest, 28)?, u16_at(rest, 30)?, u16_at(rest, 32)?);
        let name_end = ENTRY_BYTES + usize::from(name_len);
        let extra_end = name_end + usize::from(extra_len);
        let entry_end = extra_end + usize::from(comment_len);
        let (Some(name), Some(extra), Some(next)) = (
            rest.get(ENTRY_BYTES..name_end),
            rest.get(name_end..extra_end),
            rest.get(entry_end..),
        ) else {
            return Err("its directory is damaged".to_string());
        };
        check_extra(extra)?;
        if name == b"data.pkl" || name.ends_with(b"/data.pkl") {
            let (stored, length) = (u32_at(rest, 20)?, u32_at(rest, 24)?);
            let local_header = u32_at(rest, 42)?;
            if stored != length || length == IN_ZIP64 || local_header == IN_ZIP64 {
                return Err("its pickle has no usable length or place".to_string());
            }
            let entry = PickleEntry {
                local_header: local_header.into(),
                length: length.into(),
            };
            if found.replace(entry).is_some() {
                return Err("it holds more than one pickle".to_string());
            }
        }
        rest = next;
    }
    found.ok_or_else(|| "it is a ZIP archive without the data.pkl of torch.save".to_string())
}

/// Refuses extra fields but ZIP64: another one can give an entry a second name.
fn check_extra(mut extra: &[u8]) -> Result<(), String> {
    while !extra.is_empty() {
        let (id, size) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        if id != ZIP64_EXTRA {
            return Err(format!("its directory has the extra field 0x{id:04x}"));
        }
        extra = extra
            .get(4 + size..)
            .ok_or_else(|| "its directory is damaged".to_string())?;
    }
    Ok(())
}

/// Reads `count` bytes from `offset`, after comparing both with the length of the file.
fn read_at(file: &mut File, length: u64, offset: u64, count: u64) -> Result<Vec<u8>, String> {
    if offset.checked_add(count).is_none_or(|end| end > length) {
        return Err("a part of the archive lies outside the file".to_string());
    }
    let size = usize::try_from(count).map_err(|err| err.to_string())?;
    let mut bytes = vec![0; size];
    file.seek(SeekFrom::Start(offset))
        .map_err(|err| err.to_string())?;
    file.read_exact(&mut bytes).map_err(|err| err.to_string())?;
    Ok(bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or_else(|| "its directory is damaged".to_string())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    field(bytes, at).map(u64::from_le_bytes)
}
