//! Place of the kernels that GPU backends keep.

use std::path::PathBuf;

/// Returns the database in which the GPU backends of this build keep selected and compiled kernels between processes,
/// whether it exists or not. `None` if no GPU backend is compiled in.
///
/// The configuration of the backends is fixed by the call.
pub fn kernel_cache() -> Option<PathBuf> {
    #[cfg(feature = "gpu")]
    {
        use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
        // The place is known when the configuration has been read.
        CubeClRuntimeConfig::get();
        Some(burn_cubecl::cubecl::environment::path())
    }
    #[cfg(not(feature = "gpu"))]
    None
}
