//! Enters an epoch after a number of items, with a batch size that may differ from the batches before. Also sends a
//! loader back to an earlier epoch.
//!
//! Burn's loader trait has no parameter for this, and a loader of this crate may be inside another loader. So the
//! request is kept in a thread-local of the thread that asks for the iterator.

use std::cell::Cell;

thread_local! {
    static ENTRY: Cell<Option<Entry>> = const { Cell::new(None) };
    static BACK: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The place at which an epoch is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The number of items of the epoch before this place.
    pub items: usize,
}

/// Runs `ask`, which requests an iterator. If that reaches a loader of this crate, its iterator starts after `items`
/// items of `epoch`. `None` if no loader of this crate was asked.
pub(crate) fn enter<T>(epoch: u64, items: usize, ask: impl FnOnce() -> T) -> Option<T> {
    ENTRY.set(Some(Entry { epoch, items }));
    let asked = ask();
    ENTRY.take().is_none().then_some(asked)
}

/// Runs `ask`, which requests an iterator. If that reaches a loader of this crate, the loader goes back by `epochs`
/// epochs. That iterator must not be used; the next one starts that many epochs earlier. Returns whether a loader of
/// this crate was asked.
pub(crate) fn roll_back<T>(epochs: u64, ask: impl FnOnce() -> T) -> bool {
    BACK.set(Some(epochs));
    drop(ask());
    BACK.take().is_none()
}

/// The number of epochs that the loader must go back, if any.
pub(super) fn take_back() -> Option<u64> {
    BACK.take()
}

/// The place at which the requested iterator enters its epoch, if not at the start.
pub(super) fn take() -> Option<Entry> {
    ENTRY.take()
}
