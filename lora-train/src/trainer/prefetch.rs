//! Prefetch: items are produced on a thread of their own, a few ahead of their use.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// Items that are ready before they are taken.
const CAPACITY: usize = 2;

/// Iterator that runs another one on a thread of its own, at most [`CAPACITY`] items ahead.
pub(super) struct Prefetch<T> {
    items: Receiver<T>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts the thread. When dropped early, the thread ends after at most one more item.
    pub(super) fn new(items: impl Iterator<Item = T> + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(CAPACITY);
        let thread = thread::spawn(move || {
            for item in items {
                if sender.send(item).is_err() {
                    break;
                }
            }
        });
        Self {
            items: receiver,
            thread: Some(thread),
        }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    /// # Panics
    /// Resumes a panic of the inner iterator, so that it is not mistaken for the end of the items.
    fn next(&mut self) -> Option<T> {
        if let Ok(item) = self.items.recv() {
            return Some(item);
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn items_come_in_order_and_end() {
        let mut items = Prefetch::new((0..100).map(|i| i * i));
        assert!(items.by_ref().eq((0..100).map(|i| i * i)));
        assert_eq!((items.next(), items.next()), (None, None));
    }

    #[test]
    fn no_more_than_a_few_items_are_made_before_they_are_taken() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = made.clone();
        let endless = (0usize..).inspect(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let mut items = Prefetch::new(endless);
        assert_eq!(items.next(), Some(0));
        let thread = items.thread.take().unwrap();
        drop(items);
        thread.join().unwrap();
        // One was taken, `CAPACITY` wait in the channel, and one is being sent.
        assert!(made.load(Ordering::SeqCst) <= 1 + CAPACITY + 2);
    }

    #[test]
    fn a_panic_on_the_thread_is_not_the_end() {
        let items = (0..3).inspect(|&i| assert!(i < 2, "the third item"));
        let mut items = Prefetch::new(items);
        assert_eq!((items.next(), items.next()), (Some(0), Some(1)));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| items.next()));
        let panic = caught.unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"the third item"));
    }
}
