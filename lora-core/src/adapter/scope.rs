//! Selection of the active adapter of a set, for all threads or for a scope on one thread.

use super::concatenated::Cache;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Number of an adapter in its set, not reused after a removal.
pub(crate) type Key = usize;

/// The key of the active adapter, shared by all parameters of a model. Clones share it too.
#[derive(Clone, Debug)]
pub(crate) struct ActiveAdapter(Arc<AtomicUsize>);

/// Key of no adapter.
const NONE: usize = usize::MAX;

impl ActiveAdapter {
    /// Creates the state without active adapter.
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(NONE)))
    }

    /// Activates an adapter, or none.
    pub fn set(&self, key: Option<Key>) {
        self.0.store(key.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// Returns the adapter that is active outside of scopes.
    pub fn get(&self) -> Option<Key> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            key => Some(key),
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Returns the selection on this thread: that of the innermost scope, or else the active adapter.
    pub fn selection(&self) -> Selection {
        let scoped = SCOPES.with_borrow(|scopes| {
            let innermost = scopes.iter().rev().find(|scope| scope.adapters.is(self));
            innermost.map(|scope| scope.selection.clone())
        });
        scoped.unwrap_or_else(|| Selection::One(self.get()))
    }

    /// Runs `work` with a selection on this thread, whatever is active.
    pub fn within<T>(&self, selection: Selection, work: impl FnOnce() -> T) -> T {
        let scope = Scope {
            adapters: self.clone(),
            selection,
        };
        within(vec![scope], work)
    }
}

/// Selection among the adapters of a set.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    /// One adapter, or none, for all that is computed.
    One(Option<Key>),
    /// Another adapter for each example of a batch.
    PerExample(Arc<BatchRows>),
}

/// The adapters of the rows of a batch.
#[derive(Clone, Debug)]
pub(crate) struct BatchRows {
    /// The adapters that occur, each once.
    pub adapters: Arc<Vec<Key>>,
    /// Index in `adapters` of each row's adapter.
    pub indices: Vec<Option<usize>>,
    /// Results that depend on `adapters` alone, kept for the next step of a generation.
    pub(super) cache: Arc<Mutex<Cache>>,
}

impl BatchRows {
    /// Joins the adapters that occur, and the index of each row's adapter.
    pub fn new(adapters: Vec<Key>, indices: Vec<Option<usize>>) -> Self {
        Self {
            adapters: Arc::new(adapters),
            indices,
            cache: Arc::default(),
        }
    }

    /// Returns the adapters of these rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            indices: rows.iter().map(|&row| self.indices[row]).collect(),
            ..self.clone()
        }
    }
}

/// A selection in place of the active adapter.
struct Scope {
    adapters: ActiveAdapter,
    selection: Selection,
}

thread_local! {
    /// The scopes of this thread, the innermost last.
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

/// Returns true if this thread is inside a scope.
pub(super) fn is_scoped() -> bool {
    SCOPES.with_borrow(|scopes| !scopes.is_empty())
}

fn within<T>(scopes: Vec<Scope>, work: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPES.with_borrow_mut(|scopes| scopes.truncate(self.0));
        }
    }
    let before = SCOPES.with_borrow_mut(|all| {
        let before = all.len();
        all.extend(scopes);
        before
    });
    let _restore = Restore(before);
    work()
}

/// Runs `work` on rows that were selected from a batch: row `i` belongs to example `examples[i]`.
///
/// In a batch with an adapter for each example
/// ([`NamedAdapters::per_example`](crate::named::NamedAdapters::per_example)), layers find the example of a row by its
/// position. A model that selects rows, such as the positions with a label, has to call this function. It has no effect on
/// other batches.
///
/// # Panics
/// If an index is outside the batch.
pub fn in_rows<T>(examples: &[usize], work: impl FnOnce() -> T) -> T {
    let selected = SCOPES.with_borrow(|scopes| {
        let mut selected: Vec<Scope> = Vec::new();
        for Scope {
            adapters,
            selection,
        } in scopes.iter().rev()
        {
            if selected.iter().any(|inner| inner.adapters.is(adapters)) {
                continue;
            }
            selected.push(Scope {
                adapters: adapters.clone(),
                selection: match selection {
                    Selection::PerExample(rows) => {
                        Selection::PerExample(Arc::new(rows.select(examples)))
                    }
                    one => one.clone(),
                },
            });
        }
        selected
    });
    if selected.is_empty() {
        work()
    } else {
        within(selected, work)
    }
}
