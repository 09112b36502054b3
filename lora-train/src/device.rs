//! Which device to run on: chosen at run time among those compiled in.

use crate::TrainError;
use burn::tensor::{Device, DeviceType};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names of devices, as `--device` takes them. Each but `auto` is a cargo feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceName {
    /// The fastest that is compiled in and there.
    #[default]
    Auto,
    /// CPU, Burn's own backend.
    Flex,
    /// CPU through the ndarray crate; Burn deprecates it.
    Ndarray,
    /// GPU through WGPU, whichever graphics API there is.
    Wgpu,
    /// GPU through Vulkan.
    Vulkan,
    /// GPU through WGPU with WGSL shaders.
    #[value(name = "webgpu")]
    WebGpu,
    /// GPU of an Apple machine.
    Metal,
    /// NVIDIA GPU.
    Cuda,
    /// AMD GPU.
    Rocm,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_lowercase())
    }
}

/// The kinds compiled in, the fastest first.
fn compiled_in() -> Vec<(DeviceName, DeviceType)> {
    vec![
        #[cfg(feature = "cuda")]
        (DeviceName::Cuda, DeviceType::Cuda),
        #[cfg(feature = "rocm")]
        (DeviceName::Rocm, DeviceType::Rocm),
        #[cfg(feature = "metal")]
        (DeviceName::Metal, DeviceType::Metal),
        #[cfg(feature = "vulkan")]
        (DeviceName::Vulkan, DeviceType::Vulkan),
        #[cfg(feature = "webgpu")]
        (DeviceName::WebGpu, DeviceType::WebGpu),
        #[cfg(feature = "wgpu")]
        (DeviceName::Wgpu, DeviceType::Wgpu),
        #[cfg(feature = "flex")]
        (DeviceName::Flex, DeviceType::Flex),
        #[cfg(feature = "ndarray")]
        (DeviceName::Ndarray, DeviceType::NdArray),
    ]
}

/// Opens a device.
///
/// # Errors
/// If it is not compiled in (the error names the cargo feature and what is there), or the machine
/// has none.
pub fn open(name: DeviceName) -> Result<Device, TrainError> {
    let kinds = compiled_in();
    if name == DeviceName::Auto {
        return kinds
            .into_iter()
            .find_map(|(_, kind)| first(kind))
            .ok_or_else(|| missing("no device was found; build with the feature `flex`".into()));
    }
    let names: Vec<String> = kinds.iter().map(|(name, _)| name.to_string()).collect();
    let kind = kinds.into_iter().find(|(kind, _)| *kind == name);
    let (_, kind) = kind.ok_or_else(|| {
        missing(format!(
            "`{name}` is not compiled in; build with `--features {name}`, or choose among {}",
            names.join(", ")
        ))
    })?;
    first(kind).ok_or_else(|| missing(format!("this machine has no device for `{name}`")))
}

/// What a device is, for people.
pub fn describe(device: &Device) -> String {
    format!("{device:?}")
}

fn first(kind: DeviceType) -> Option<Device> {
    Device::enumerate(kind).into_vec().into_iter().next()
}

fn missing(message: String) -> TrainError {
    TrainError::config("device", message)
}
