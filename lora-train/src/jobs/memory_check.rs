//! Check of the memory that a run needs in any case.

use crate::TrainError;
use crate::memory::available_mib;
use burn::tensor::Device;
use lora_core::ops::is_on_host;

const MIB: f64 = (1 << 20) as f64;

/// Refuses tensors that do not fit into the available memory: `copies` of `elements` numbers in 32 bits, for `what`. GPU
/// backends do not say how much memory is available, so that only CPUs are checked.
///
/// # Errors
/// If more is needed than available.
pub(super) fn check_memory(
    elements: usize,
    copies: usize,
    what: &str,
    device: &Device,
) -> Result<(), TrainError> {
    let needed = (elements * copies * size_of::<f32>()) as f64 / MIB;
    match available_mib().filter(|_| is_on_host(device)) {
        Some(available) => check(needed, available, what),
        None => Ok(()),
    }
}

fn check(needed: f64, available: f64, what: &str) -> Result<(), TrainError> {
    if needed <= available {
        return Ok(());
    }
    let message = format!(
        "has {available:.0} MiB of memory available, and {what} take {needed:.0} MiB; train fewer weights, or take a \
         smaller model"
    );
    Err(TrainError::config("device", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_what_is_needed_and_what_there_is() {
        assert!(check(99.0, 100.0, "the gradients").is_ok());
        let error = check(300.0, 100.0, "the gradients").unwrap_err();
        let error = error.to_string();
        for part in ["device", "100 MiB", "the gradients take 300 MiB"] {
            assert!(error.contains(part), "{error}");
        }
        let device = Device::flex();
        assert!(check_memory(usize::MAX >> 8, 3, "all", &device).is_err());
        assert!(check_memory(1000, 3, "all", &device).is_ok());
    }
}
