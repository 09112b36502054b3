//! A hash that is the same everywhere.

/// FNV-1a: a hash that is the same on every platform and in every version, which the standard
/// library's is not.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
