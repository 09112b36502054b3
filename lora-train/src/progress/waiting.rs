//! Elapsed seconds of a wait whose end is unknown.

use super::LINE_INTERVAL;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Thread that shows the elapsed seconds, until it is dropped.
///
/// GPU backends select and compile kernels when they are first used, and do not say how many there are.
pub(super) struct Waiting {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Starts to show the seconds: each second on a terminal, and with the interval of lines elsewhere.
    pub fn start(terminal: bool, show: impl Fn(u64) + Send + 'static) -> Self {
        let interval = if terminal {
            Duration::from_secs(1)
        } else {
            LINE_INTERVAL
        };
        Self::each(interval, show)
    }

    fn each(interval: Duration, show: impl Fn(u64) + Send + 'static) -> Self {
        let (stop, stopped) = channel();
        let start = Instant::now();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                show(start.elapsed().as_secs());
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Waiting {
    /// Waits for the thread, so that nothing is shown afterwards.
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It only prints; a panic there must not become one here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn seconds_are_shown_until_the_wait_ends() {
        let shown = Arc::new(AtomicUsize::new(0));
        let counter = shown.clone();
        let waiting = Waiting::each(Duration::from_millis(1), move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        while shown.load(Ordering::SeqCst) < 3 {
            thread::sleep(Duration::from_millis(1));
        }
        drop(waiting);
        let end = shown.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(shown.load(Ordering::SeqCst), end);
    }

    #[test]
    fn a_wait_that_is_over_at_once_shows_nothing() {
        drop(Waiting::start(true, |_| panic!("shown")));
    }
}
