//! Hashes of names, shapes and values.

use crate::adapter::base_head;
use burn::module::Module;
use sha2::{Digest, Sha256};

/// Number of values that are hashed of a tensor: its first rows, a mebibyte of them.
const SAMPLED_VALUES: usize = 1 << 18;

/// Hashes the first values of a parameter without its adapter; `None` if there is no parameter at the path.
pub(super) fn hash_of_values<M: Module>(module: &M, path: &str) -> Option<String> {
    let values = base_head(module, path, SAMPLED_VALUES)?;
    let mut hash = Sha256::new();
    for block in values.chunks(1 << 12) {
        let bytes: Vec<u8> = block.iter().flat_map(|value| value.to_le_bytes()).collect();
        hash.update(bytes);
    }
    Some(digits(hash))
}

/// Returns the first half of a hash in hexadecimal digits, which is enough to distinguish bases.
pub(super) fn digits(hash: Sha256) -> String {
    let bytes = hash.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
