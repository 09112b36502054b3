//! Facts about a device that its backend reports: [`DeviceFacts`].

use super::limits::max_buffer_bytes;
use super::tolerance::multiplies_in_tf32;
use burn::tensor::Device;

/// Facts about a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Name of the hardware, as its driver reports it; `CPU` for a CPU backend.
    pub name: String,
    /// Runtime of the backend: `flex`, `ndarray`, `cuda`, `hip`, `metal`, `wgpu` or `cpu`.
    pub runtime: String,
    /// Target that kernels are compiled for, such as `ptx_sm90`.
    pub target: Option<String>,
    /// True for a CPU, directly or through a software implementation of a GPU interface.
    pub software: bool,
    /// Memory of the device in bytes, if the backend reports it.
    pub memory_bytes: Option<u64>,
    /// Largest buffer that the device binds, in bytes; `None` without such a limit.
    pub max_buffer_bytes: Option<u64>,
    /// True if f32 matrices may be multiplied in TF32.
    pub tf32: bool,
    /// Element types that the device's matrix units multiply, such as `f16`.
    pub matrix_units: Vec<String>,
}

/// Returns the facts that a device's backend reports. Opens the device.
///
/// # Panics
/// Panics if the device does not exist, as Burn does.
pub fn device_facts(device: &Device) -> DeviceFacts {
    let device = device.clone().inner();
    let common = DeviceFacts {
        max_buffer_bytes: max_buffer_bytes(&device),
        tf32: multiplies_in_tf32(&device),
        ..DeviceFacts::default()
    };
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(_) => on_host("flex", common),
        #[cfg(feature = "ndarray")]
        burn::backend::DispatchDevice::NdArray(_) => on_host("ndarray", common),
        #[cfg(feature = "gpu")]
        burn::backend::DispatchDevice::Cube(device) => on_cube(device, common),
        #[allow(unreachable_patterns)] // Unreachable if all backends of Burn are compiled in.
        _ => common,
    }
}

#[cfg(feature = "host")]
fn on_host(runtime: &str, common: DeviceFacts) -> DeviceFacts {
    DeviceFacts {
        name: "CPU".into(),
        runtime: runtime.into(),
        software: true,
        ..common
    }
}

/// Returns true if a GPU interface is implemented in software: such an adapter is no card.
#[cfg(feature = "gpu")]
pub(super) fn is_software(client: &burn_cubecl::cubecl::client::Client) -> bool {
    client.properties().identity.physical.is_none()
}

#[cfg(feature = "gpu")]
fn on_cube(device: &burn_cubecl::CubeDevice, common: DeviceFacts) -> DeviceFacts {
    use burn_cubecl::CubeDevice;
    let client = device.client();
    let properties = client.properties();
    let identity = &properties.identity;
    let matmul = &properties.features.matmul;
    let mut units: Vec<String> = (matmul.cmma.iter().chain(&matmul.mma))
        .map(|config| config.a_type.to_string())
        .collect();
    units.sort();
    units.dedup();
    let runtime = match device {
        CubeDevice::Cuda(_) => "cuda",
        CubeDevice::Hip(_) => "hip",
        CubeDevice::Metal(_) => "metal",
        CubeDevice::Wgpu(_) => "wgpu",
        CubeDevice::Cpu(_) => "cpu",
        _ => "another",
    };
    DeviceFacts {
        name: identity.name.clone(),
        runtime: runtime.into(),
        target: Some(identity.fingerprint.clone()).filter(|target| !target.is_empty()),
        software: is_software(&client),
        memory_bytes: properties.memory.max_memory(),
        matrix_units: units,
        ..common
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_no_limit_of_a_buffer() {
        let facts = device_facts(&Device::flex().autodiff());
        assert_eq!(
            (facts.name.as_str(), facts.runtime.as_str()),
            ("CPU", "flex")
        );
        assert!(facts.software && facts.max_buffer_bytes.is_none() && !facts.tf32);
    }
}
