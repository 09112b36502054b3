//! Backends that are compiled in, and the CPU that others are compared with.

use super::{DeviceName, compiled_in};
use burn::tensor::Device;

/// Returns the CPU that other devices are compared with; `None` if no CPU backend is compiled in.
pub fn host() -> Option<Device> {
    let on_host = |name| matches!(name, DeviceName::Flex | DeviceName::Ndarray);
    let kind = compiled_in().into_iter().find(|kind| on_host(kind.name))?;
    Some((kind.default)())
}

/// Returns the names of the backends that are compiled in, fastest first.
pub fn backends() -> Vec<DeviceName> {
    compiled_in().into_iter().map(|kind| kind.name).collect()
}

/// Returns true if kernel fusion is compiled in. It has an effect on GPUs only.
pub fn has_fusion() -> bool {
    cfg!(feature = "fusion")
}
