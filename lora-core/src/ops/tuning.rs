//! Choice of kernels on GPUs: fixed, or measured at their first use.
//!
//! Burn has several kernels for a matrix product or a sum. At the first use of each size it compiles the candidates and measures
//! them, which pays on a GPU. On a software adapter the compilation alone takes longer than a training run, and products have a
//! kernel of their own.

use burn::tensor::Device;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Search for the fastest kernels of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// One kernel for each operation, without a measurement.
    Off,
    /// Few measurements: sizes within a factor of 2.5 share a kernel, and the first candidate at 60 % of the device's peak is
    /// taken.
    Few,
    /// Burn's own search.
    Full,
}

impl FromStr for Tuning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "few" => Ok(Self::Few),
            "full" => Ok(Self::Full),
            _ => Err("expected off, few or full".into()),
        }
    }
}

/// True if [`Tuning::Off`] was chosen for a device of this process.
static FIXED: AtomicBool = AtomicBool::new(false);

/// Returns true if products take a fixed kernel.
pub(super) fn is_fixed() -> bool {
    FIXED.load(Ordering::Relaxed)
}

#[cfg_attr(not(feature = "gpu"), allow(unused_variables))] // There is nothing to tune.
impl Tuning {
    /// Prepares the process for the devices that it is going to open. `None` stands for the class of the device.
    ///
    /// Burn reads its configuration at the first use of a GPU, so that a later call has no effect. Variables such as
    /// `CUBECL_AUTOTUNE_LEVEL` take precedence.
    pub fn prepare(tuning: Option<Self>) {
        #[cfg(feature = "gpu")]
        if tuning != Some(Self::Full) {
            gpu::prepare();
        }
    }

    /// Applies the choice to a device, or by default the one for its class: [`Off`](Self::Off) on a software adapter, else
    /// [`Few`](Self::Few). Returns the choice, or `None` on a CPU backend, which has nothing to tune.
    ///
    /// [`Off`](Self::Off) holds for the whole process.
    pub fn apply(tuning: Option<Self>, device: &Device) -> Option<Self> {
        match device.clone().inner().as_dispatch() {
            #[cfg(feature = "gpu")]
            burn::backend::DispatchDevice::Cube(device) => {
                let client = device.client();
                let class = if super::facts::is_software(&client) {
                    Self::Off
                } else {
                    Self::Few
                };
                let tuning = tuning.unwrap_or(class);
                if tuning == Self::Off {
                    FIXED.store(true, Ordering::Relaxed);
                    gpu::accept_first_candidate(&client);
                }
                Some(tuning)
            }
            _ => None,
        }
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn_cubecl::cubecl::client::Client;
    use burn_cubecl::cubecl::config::autotune::AutotuneLevel;
    use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    use burn_cubecl::cubecl::ir::{ElemType, FloatKind, IntKind, UIntKind};
    use burn_cubecl::cubecl::throughput::{
        MemoryAccess, MemorySpec, ThroughputCache, ThroughputKey, ThroughputMode, ThroughputValue,
        working_set_sweep,
    };
    use std::time::Duration;

    /// Configures few measurements.
    pub(super) fn prepare() {
        let mut config = CubeClRuntimeConfig::from_current_dir();
        config.autotune.level = AutotuneLevel::Minimal;
        config.autotune.bench.min_samples = 1;
        config.autotune.bench.max_samples = 3;
        config.autotune.bench.short_circuit_samples = 1;
        CubeClRuntimeConfig::try_set(config.override_from_env());
    }

    /// Ends the search of Burn's own operations at their first candidate.
    ///
    /// The search ends at a candidate that comes near the peak of the device, which is measured and kept in a table. The peak
    /// written there, one operation a second, is reached by every candidate.
    pub(super) fn accept_first_candidate(client: &Client) {
        let table = ThroughputCache::get_for_device(client.name(), client.properties());
        let mut table = table.lock();
        let value = ThroughputValue {
            ops_count: 1,
            duration: Duration::from_secs(1),
        };
        let types = [
            ElemType::Float(FloatKind::F16),
            ElemType::Float(FloatKind::BF16),
            ElemType::Float(FloatKind::F32),
            ElemType::Int(IntKind::I32),
            ElemType::UInt(UIntKind::U32),
        ];
        let compute = types.map(|dtype| ThroughputMode::ComputeDirect { dtype });
        let memory = working_set_sweep(u64::MAX >> 1)
            .into_iter()
            .flat_map(|bytes| {
                [MemoryAccess::Copy, MemoryAccess::Read]
                    .map(|access| ThroughputMode::Memory(MemorySpec::new(access, bytes)))
            });
        for mode in compute
            .into_iter()
            .chain(memory)
            .chain([ThroughputMode::Launch])
        {
            table.insert(ThroughputKey { mode }, value);
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn there_is_nothing_to_tune_on_the_cpu() {
        assert_eq!(Tuning::apply(Some(Tuning::Off), &Device::flex()), None);
        assert!(!is_fixed());
        assert_eq!("few".parse(), Ok(Tuning::Few));
        assert!("some".parse::<Tuning>().is_err());
    }
}
