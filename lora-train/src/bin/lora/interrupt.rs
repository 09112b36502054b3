//! Ctrl-C.

use burn_train::Interrupter;
use lora_train::TrainError;
use lora_train::jobs::INTERRUPTED;
use lora_train::progress::print_message;
use std::sync::atomic::{AtomicBool, Ordering};

/// Returns a handle that the first Ctrl-C stops a run by; the second ends the program.
pub fn interrupter() -> Result<Interrupter, TrainError> {
    let interrupter = Interrupter::new();
    let handle = interrupter.clone();
    let interrupted = AtomicBool::new(false);
    let handler = ctrlc::set_handler(move || {
        if interrupted.swap(true, Ordering::Relaxed) {
            exit_at_once();
        }
        print_message("finishing this step and saving; press Ctrl-C again to exit at once");
        handle.stop(Some(INTERRUPTED));
    });
    handler.map_err(|error| TrainError::burn(format!("cannot handle Ctrl-C: {error}")))?;
    Ok(interrupter)
}

/// Ends the program with the exit code of an interrupt.
fn exit_at_once() -> ! {
    const CODE: i32 = 130;
    // Without the handlers that drivers of GPUs registered: these may wait for kernels that are being compiled.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a function of C")]
    // SAFETY: `_exit` takes an integer and may be called at any time.
    unsafe {
        libc::_exit(CODE)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    std::process::exit(CODE)
}
