//! Selection of a device at run time, among the backends compiled in.
//!
//! | file | contents |
//! | --- | --- |
//! | `host` | backends that are compiled in, and the CPU to compare with |
//! | `cuda` | files of the CUDA toolkit |
//! | `known` | known wrong results of Burn |

mod cuda;
mod host;
mod known;

pub use host::{backends, has_fusion, host};
pub use known::{BURN_VERSION, known_problems};

use crate::TrainError;
use burn::tensor::{Device, DeviceType, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names of devices for `--device`. Each except `auto` is a cargo feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceName {
    /// The fastest available device whose backend is compiled in.
    #[default]
    Auto,
    /// CPU, Burn's own backend.
    Flex,
    /// CPU through the ndarray crate; Burn deprecates it.
    Ndarray,
    /// GPU through WGPU, with the system's graphics API.
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

/// Kind of device whose backend is compiled in.
struct Kind {
    name: DeviceName,
    /// Device type for the search of the machine's hardware.
    hardware: DeviceType,
    /// Default device of the backend. For WGPU it may be a software adapter, which the search leaves out.
    default: fn() -> Device,
}

/// Lists the kinds compiled in, fastest first.
fn compiled_in() -> Vec<Kind> {
    let kind = |name, hardware, default| Kind {
        name,
        hardware,
        default,
    };
    vec![
        #[cfg(feature = "cuda")]
        kind(DeviceName::Cuda, DeviceType::Cuda, || Device::cuda(0)),
        #[cfg(feature = "rocm")]
        kind(DeviceName::Rocm, DeviceType::Rocm, || Device::rocm(0)),
        #[cfg(feature = "metal")]
        kind(DeviceName::Metal, DeviceType::Metal, || {
            Device::metal(Default::default())
        }),
        #[cfg(feature = "vulkan")]
        kind(DeviceName::Vulkan, DeviceType::Vulkan, || {
            Device::vulkan(Default::default())
        }),
        #[cfg(feature = "webgpu")]
        // Burn's own `webgpu` device is the browser's. Elsewhere WGPU takes the system's graphics
        // API, and WGSL unless the feature `vulkan` or `metal` brings another compiler.
        kind(DeviceName::WebGpu, DeviceType::Wgpu, || {
            Device::wgpu(Default::default())
        }),
        #[cfg(feature = "wgpu")]
        kind(DeviceName::Wgpu, DeviceType::Wgpu, || {
            Device::wgpu(Default::default())
        }),
        #[cfg(feature = "flex")]
        kind(DeviceName::Flex, DeviceType::Flex, Device::flex),
        #[cfg(feature = "ndarray")]
        kind(DeviceName::Ndarray, DeviceType::NdArray, ndarray),
    ]
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // Burn deprecates ndarray; it is offered as long as Burn has it.
fn ndarray() -> Device {
    Device::ndarray()
}

/// Opens a device.
///
/// # Errors
/// Fails if the backend is not compiled in (the error names the cargo feature and the alternatives), or the
/// machine has no such device.
pub fn open(name: DeviceName) -> Result<Device, TrainError> {
    let kinds = compiled_in();
    if name == DeviceName::Auto {
        let found = kinds.into_iter().find_map(|kind| {
            let devices = Device::enumerate(kind.hardware).into_vec();
            Some((kind.name, devices.into_iter().next()?))
        });
        let (name, device) = found
            .ok_or_else(|| missing("no device was found; build with the feature `flex`".into()))?;
        check_files(name)?;
        return Ok(device);
    }
    let names: Vec<String> = kinds.iter().map(|kind| kind.name.to_string()).collect();
    let kind = kinds.into_iter().find(|kind| kind.name == name);
    let kind = kind.ok_or_else(|| {
        missing(format!(
            "`{name}` is not compiled in; build with `--features {name}`, or choose one of {}",
            names.join(", ")
        ))
    })?;
    check_files(name)?;
    // Burn panics at the first use of a device that does not exist.
    let probe = move || {
        let device = (kind.default)();
        let one = Tensor::<1>::ones([1], &device).try_into_data().is_ok();
        one.then_some(device)
    };
    let device = std::panic::catch_unwind(probe).ok().flatten();
    device.ok_or_else(|| missing(format!("this machine has no device for `{name}`")))
}

/// Checks that the files are there that a backend needs beside its driver.
fn check_files(name: DeviceName) -> Result<(), TrainError> {
    if name == DeviceName::Cuda {
        cuda::check().map_err(missing)?;
    }
    Ok(())
}

/// Describes a device for the user.
pub fn describe(device: &Device) -> String {
    format!("{device:?}")
}

fn missing(message: String) -> TrainError {
    TrainError::config("device", message)
}
