//! Progress of a download over time: one that stalls ends.

use std::time::{Duration, Instant};

/// Number of bytes that count as progress. A connection that brings fewer in the time limit would take days for a model.
const PROGRESS: u64 = 1 << 16;

/// Watch over the bytes of a download, whose clock starts again with each progress.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Duration,
    since: Instant,
    /// Number of bytes at the last progress.
    from: u64,
}

impl Pace {
    /// Starts the clock at a number of bytes.
    pub(super) fn new(limit: Duration, bytes: u64) -> Self {
        Self {
            limit,
            since: Instant::now(),
            from: bytes,
        }
    }

    /// Takes the number of bytes that there are now, and returns a message if the download has stalled. Bytes that were there
    /// before are no progress.
    pub(super) fn check(&mut self, bytes: u64) -> Result<(), String> {
        if bytes >= self.from.saturating_add(PROGRESS) {
            self.from = bytes;
            self.since = Instant::now();
        }
        if self.since.elapsed() < self.limit {
            return Ok(());
        }
        let seconds = self.limit.as_secs_f64();
        Err(format!(
            "fewer than {PROGRESS} bytes came in {seconds:.0} seconds"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bytes_that_are_new_and_many_keep_a_download_alive() {
        let mut pace = Pace::new(Duration::from_secs(3600), 10);
        pace.check(11).unwrap();
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3601));
        let Some(long_ago) = long_ago else {
            return; // A machine that has just started.
        };
        pace.since = long_ago;
        pace.check(10 + PROGRESS).unwrap();
        pace.since = long_ago;
        // From the start again, and to just before where it was.
        for bytes in [0, PROGRESS, 9 + 2 * PROGRESS] {
            let message = pace.check(bytes).unwrap_err();
            assert!(message.contains("65536 bytes came in 3600 seconds"));
        }
    }
}
