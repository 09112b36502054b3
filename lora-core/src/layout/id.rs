//! Ids and hashes that are the same in every process.

use burn::module::ParamId;

/// Returns the id of the parameter at `path`, the same in every process.
///
/// An optimizer keeps its state by id, so a model whose ids depend on paths alone finds the state
/// that another process saved.
pub fn param_id(path: &str) -> ParamId {
    ParamId::from(stable_hash(path))
}

/// Returns the FNV-1a hash of a text, which is the same on every platform and in every version. The standard library's hash
/// is not.
pub(crate) fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
