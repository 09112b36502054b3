//! Which adapter of a set acts, here and now.

use super::side_by_side::Groups;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// An adapter's number in its set; not used again once it is removed.
pub(super) type Key = usize;

/// What all adapters of a set look at. Clones are the same handle.
#[derive(Clone, Debug)]
pub(super) struct Handle(Arc<AtomicUsize>);

/// Stands for none.
const NONE: usize = usize::MAX;

impl Handle {
    pub fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(NONE)))
    }

    pub fn set(&self, key: Option<Key>) {
        self.0.store(key.unwrap_or(NONE), Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Key> {
        match self.0.load(Ordering::Relaxed) {
            NONE => None,
            key => Some(key),
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What acts on this thread.
    pub fn acting(&self) -> Acting {
        let of_scope = SCOPES.with_borrow(|scopes| {
            let mut scopes = scopes.iter().rev();
            let scope = scopes.find(|scope| scope.handle.is(self))?;
            Some(scope.acting.clone())
        });
        of_scope.unwrap_or_else(|| Acting::One(self.get()))
    }

    /// Runs `work` with this acting on this thread, whatever is active.
    pub fn within<T>(&self, acting: Acting, work: impl FnOnce() -> T) -> T {
        within(
            vec![Scope {
                handle: self.clone(),
                acting,
            }],
            work,
        )
    }
}

/// What acts.
#[derive(Clone, Debug)]
pub(super) enum Acting {
    /// One adapter, or none, on all that is computed.
    One(Option<Key>),
    /// Another one on each example of a batch.
    Each(Arc<Rows>),
}

/// The adapters of a batch.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    /// Those that occur, each once.
    pub adapters: Arc<Vec<Key>>,
    /// The place in `adapters` of each example's.
    pub of: Vec<Option<usize>>,
    /// What depends on `adapters` alone and is the same at every step of a generation.
    pub groups: Arc<Mutex<Groups>>,
}

impl Rows {
    /// Those of these rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            of: rows.iter().map(|&row| self.of[row]).collect(),
            ..self.clone()
        }
    }
}

struct Scope {
    handle: Handle,
    acting: Acting,
}

thread_local! {
    /// What is acting on this thread instead of what is active, the innermost last.
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

/// Whether anything but what is active acts on this thread.
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

/// Runs `work` on rows that were picked out of a batch: row `i` belongs to example `examples[i]`.
///
/// In a batch where each example has an adapter of its own
/// ([`NamedAdapters::per_example`](super::NamedAdapters::per_example)) the layers tell by its place in the batch which
/// example a row is of. A model that picks rows, such as the positions that carry a label, says so with this; without
/// such a batch it does nothing.
///
/// # Panics
/// If there is no such example.
pub fn in_rows<T>(examples: &[usize], work: impl FnOnce() -> T) -> T {
    let mixed = SCOPES.with_borrow(|scopes| {
        let mut picked: Vec<Scope> = Vec::new();
        for scope in scopes.iter().rev() {
            if picked.iter().any(|inner| inner.handle.is(&scope.handle)) {
                continue;
            }
            picked.push(Scope {
                handle: scope.handle.clone(),
                acting: match &scope.acting {
                    Acting::Each(rows) => Acting::Each(Arc::new(rows.select(examples))),
                    one => one.clone(),
                },
            });
        }
        picked
    });
    match mixed.is_empty() {
        true => work(),
        false => within(mixed, work),
    }
}
