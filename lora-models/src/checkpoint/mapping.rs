//! Choice between files that are mapped into memory and files that are read into it.

#![expect(unsafe_code, reason = "a file that is mapped into memory")]

use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

/// True if no file is mapped.
static OFF: AtomicBool = AtomicBool::new(false);

/// Sets whether files of weights are mapped into memory, for all files that this process opens from now on. Default: true.
///
/// A mapped file needs no memory of its own and is not copied, but a process that truncates it ends this one by a signal, and
/// some network file systems are slow with maps. Where the system refuses a map, the file is read in any case.
pub fn set_mapping(on: bool) {
    OFF.store(!on, Ordering::Relaxed);
}

/// Maps a whole file. `None` if maps are off or the system refuses one, as some file systems do.
pub(super) fn map(file: &File) -> Option<Bytes> {
    if OFF.load(Ordering::Relaxed) {
        return None;
    }
    map_file(file)
}

/// Maps a whole file, which is read as bytes. `None` if the system refuses a map.
#[doc(hidden)]
pub fn map_file(file: &File) -> Option<Bytes> {
    // SAFETY: the map is only read, as bytes or as `f32`, for which every bit pattern is valid, and no reference to it
    // is mutable. No program can prevent another process from changing the file while it is mapped: changed
    // elements would be read as they are then, which `WeightFiles` notices before anything is saved, and truncating the file
    // would end this process by a signal (SIGBUS), not corrupt its memory. Replacing a file by renaming another over it,
    // as this crate's export and package managers do, leaves the map with the file that was opened.
    let map = unsafe { Mmap::map(file) };
    map.ok().map(Bytes::from_owner)
}
