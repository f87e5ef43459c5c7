//! An epoch that is entered in between: after so many items, in batches that may be of another size than
//! those before. And a loader that goes back to an epoch before.
//!
//! Burn's loader trait has no parameter for it, and a loader of ours may stand inside another one. So it is
//! told to the thread that asks for the iterator.

use std::cell::Cell;

thread_local! {
    static ENTRY: Cell<Option<Entry>> = const { Cell::new(None) };
    static BACK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Where an epoch is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Counted from 0.
    pub epoch: u64,
    /// After so many of its items.
    pub items: usize,
}

/// Has a loader of ours, for whose iterator `ask` asks, enter its epoch after so many items. `None` if no
/// loader of ours was asked.
pub(crate) fn enter<T>(epoch: u64, items: usize, ask: impl FnOnce() -> T) -> Option<T> {
    ENTRY.set(Some(Entry { epoch, items }));
    let asked = ask();
    ENTRY.take().is_none().then_some(asked)
}

/// Has a loader of ours, for whose iterator `ask` asks, go back by so many epochs. That iterator is not to be used; the
/// next one begins so many epochs earlier. Gives whether a loader of ours was asked.
pub(crate) fn go_back<T>(epochs: u64, ask: impl FnOnce() -> T) -> bool {
    BACK.set(Some(epochs));
    drop(ask());
    BACK.take().is_none()
}

/// By how many epochs the loader goes back, if it does.
pub(super) fn take_back() -> Option<u64> {
    BACK.take()
}

/// Where the iterator that is asked for enters its epoch, if not at its start.
pub(super) fn take() -> Option<Entry> {
    ENTRY.take()
}
