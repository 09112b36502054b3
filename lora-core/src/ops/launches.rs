//! Count of the kernels that run on GPUs.

/// Counter of the kernels that all threads of the process launch on GPUs while it exists. There is at most one at a time.
#[derive(Debug)]
pub struct LaunchCounter {
    #[cfg(feature = "gpu")]
    counter: std::sync::Arc<gpu::Counter>,
    #[cfg(feature = "gpu")]
    _observation: burn_cubecl::cubecl::logging::LaunchObservation,
}

impl LaunchCounter {
    /// Starts to count.
    #[allow(clippy::new_without_default)] // Counting has an effect.
    pub fn new() -> Self {
        #[cfg(feature = "gpu")]
        let counter = std::sync::Arc::new(gpu::Counter::default());
        Self {
            #[cfg(feature = "gpu")]
            _observation: burn_cubecl::cubecl::logging::LaunchObservation::new(counter.clone()),
            #[cfg(feature = "gpu")]
            counter,
        }
    }

    /// Returns the number of launches so far; zero without a GPU. Operations that are not executed yet are not included.
    pub fn launches(&self) -> u64 {
        #[cfg(feature = "gpu")]
        return self.counter.0.load(std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(feature = "gpu"))]
        0
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn_cubecl::cubecl::logging::LaunchObserver;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Default)]
    pub(super) struct Counter(pub(super) AtomicU64);

    impl LaunchObserver for Counter {
        fn launched(&self, _kernel: &'static str) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
