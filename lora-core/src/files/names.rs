//! Names under which files and directories are written.

use super::host::host_name;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;

/// Start of the names, followed by a mark of the host, random letters and [`SUFFIX`].
pub(super) const PREFIX: &str = ".lora-";
pub(super) const SUFFIX: &str = ".tmp";

/// Number of random letters in a name.
pub(super) const RANDOM: usize = 6;

/// Locked file of a temporary directory, with the name of the directory that it is to become.
pub(super) const LOCK: &str = "lock";

/// Directory with the new content, in a temporary directory.
pub(super) const NEW: &str = "new";

/// Directory with the replaced content, in a temporary directory.
pub(super) const OLD: &str = "old";

/// Returns true for such a name, made on any host.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    let name = name.to_str();
    let middle = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
    let parts = middle.and_then(|middle| middle.split_once('-'));
    let all_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    parts.is_some_and(|(host, random)| host.len() == 8 && all_hex(host) && random.len() == RANDOM)
}

/// Returns the start of the names on this host, the same for every build of this crate.
pub(super) fn own_prefix() -> String {
    prefix_of(&host_name())
}

pub(super) fn prefix_of(host: &str) -> String {
    let hash = Sha256::digest(host);
    let mark: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{mark}-")
}
