//! Repetition of requests whose failure may pass.

use super::http::Failure;
use std::time::Duration;

/// Number of attempts at a request, or at a download since its last progress.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// Wait before the second attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Waits after a failed attempt, counted from one, for `most` at most.
pub(super) fn wait_after(attempt: u32, most: Duration) {
    std::thread::sleep((FIRST_WAIT * 2_u32.pow(attempt - 1)).min(most));
}

/// Repeats a request until the server answers or refuses it, a few times at most, with waits of `most` at most.
pub(super) fn retried<T>(
    most: Duration,
    mut request: impl FnMut() -> Result<T, Failure>,
) -> Result<T, Failure> {
    for attempt in 1..MAX_ATTEMPTS {
        match request() {
            Err(Failure::Unreachable(_)) => wait_after(attempt, most),
            result => return result,
        }
    }
    request()
}
