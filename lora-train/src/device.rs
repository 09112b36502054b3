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
use crate::progress::print_message;
use burn::tensor::{Device, DeviceType, Tensor};
use lora_core::ops::{Tuning, device_facts};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::panic::{self, UnwindSafe};
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Choice of the user; unset for the class of the device.
static TUNING: OnceLock<Tuning> = OnceLock::new();

/// Sets how kernels are chosen on the devices of this process; to be called before the first one is opened. By default fixed
/// kernels on a software adapter, and a short search on a GPU.
pub fn set_tuning(tuning: Tuning) {
    let _ = TUNING.set(tuning);
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
    open_numbered(name, 0)
}

/// Opens one of several devices, for a rank with this number on its machine. More ranks than devices share them in turn: a launcher
/// may show each rank its own device alone.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_numbered(name: DeviceName, number: usize) -> Result<Device, TrainError> {
    let tuning = TUNING.get().copied();
    Tuning::prepare(tuning);
    let device = select(name, number)?;
    Tuning::apply(tuning, &device);
    Ok(device)
}

fn select(name: DeviceName, number: usize) -> Result<Device, TrainError> {
    let kinds = compiled_in();
    if name == DeviceName::Auto {
        let found = kinds
            .into_iter()
            .find_map(|kind| Some((kind.name, numbered(kind.hardware, number)?)));
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
        // The first one is the backend's default, which may be a software adapter.
        let other = (number > 0).then(|| numbered(kind.hardware, number));
        let device = other.flatten().unwrap_or_else(kind.default);
        let one = Tensor::<1>::ones([1], &device).try_into_data().is_ok();
        one.then_some(device)
    };
    let no_device =
        |reason: &str| missing(format!("this machine has no device for `{name}`: {reason}"));
    match quietly(probe) {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(no_device("it does not compute")),
        Err(reason) => Err(no_device(&reason)),
    }
}

/// Returns the device with this number among the machine's devices of a type, counted in a circle; `None` without any.
fn numbered(hardware: DeviceType, number: usize) -> Option<Device> {
    let mut devices = Device::enumerate(hardware).into_vec();
    let count = devices.len();
    (count > 0).then(|| devices.swap_remove(number % count))
}

/// Runs `work`, and returns the message of its first panic, also one on another thread, instead of printing it.
fn quietly<T>(work: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    let messages = Arc::new(Mutex::new(Vec::new()));
    let kept = messages.clone();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(panic.payload_as_str().unwrap_or("it panicked").to_string());
    }));
    let result = panic::catch_unwind(work);
    panic::set_hook(hook);
    let messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(result) => {
            // Those of threads with other work.
            messages.iter().for_each(print_message);
            Ok(result)
        }
        Err(_) => Err(messages.first().cloned().unwrap_or_default()),
    }
}

/// Checks that the files are there that a backend needs beside its driver.
fn check_files(name: DeviceName) -> Result<(), TrainError> {
    if name == DeviceName::Cuda {
        cuda::check().map_err(missing)?;
    }
    Ok(())
}

/// Describes a device for people: its hardware and its backend, such as `CPU (flex)`.
pub fn describe(device: &Device) -> String {
    let facts = device_facts(device);
    if facts.name.is_empty() {
        return format!("{device:?}");
    }
    let on_host = matches!(facts.runtime.as_str(), "flex" | "ndarray");
    let software = if facts.software && !on_host {
        ", in software"
    } else {
        ""
    };
    format!("{} ({}{software})", facts.name, facts.runtime)
}

fn missing(message: String) -> TrainError {
    TrainError::config("device", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "flex")]
    #[test]
    fn a_device_has_a_name_for_people() {
        assert_eq!(describe(&Device::flex()), "CPU (flex)");
        assert_eq!(describe(&Device::flex().autodiff()), "CPU (flex)");
    }

    #[test]
    fn a_panic_of_another_thread_is_the_reason_of_the_one_that_follows() {
        let work = || {
            let thread = std::thread::spawn(|| panic!("no adapter"));
            thread.join().expect("the thread ended");
        };
        assert_eq!(quietly(work), Err("no adapter".to_string()));
        assert_eq!(quietly(|| 5), Ok(5));
    }
}
