use std::fmt;

use burn::data::dataset::DatasetError;

use crate::burn_api::{Items, LoaderKind};
use crate::resume;

/// Batches that a [`Session`](crate::Session) gives one by one, with [`next`](crate::Session::next).
///
/// They are created by [`batches`](crate::Session::batches), [`batches_of`](crate::Session::batches_of),
/// [`stream`](crate::Session::stream) and [`steps`](crate::Session::steps). They are not an iterator: before each
/// batch, the session checks whether to stop and seeds the device, and a loader may fail.
pub struct Batches<'l, O> {
    pub(super) role: Role,
    pub(super) source: Source<'l, O>,
    /// The maximum number of batches per epoch.
    pub(super) most_in_epoch: Option<u64>,
}

/// What the batches are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Training in one epoch. `epoch` is its number in this process.
    Epoch { slot: usize, epoch: u64 },
    /// Training across epochs. `rollbacks` is the number of rollbacks in this process at the time of the call.
    Stream { place: usize, rollbacks: u64 },
    /// Validation.
    Validation { slot: usize },
}

/// The source of the batches.
pub(super) enum Source<'l, O> {
    Loader {
        rest: resume::Batches<'l, O>,
        kind: LoaderKind,
    },
    Iterator(Box<dyn Iterator<Item = O> + 'l>),
    /// There are no batches left: all are trained.
    Over,
}

impl<O> Batches<'_, O> {
    /// Gives at most `batches` batches in each epoch. Use it for an endless loader, with which the program defines
    /// the length of an epoch.
    pub fn take(mut self, batches: usize) -> Self {
        self.most_in_epoch = Some(batches as u64);
        self
    }

    /// The index among the epoch's loaders or among the streams, and whether it is a stream.
    pub(super) fn place(&self) -> (usize, bool) {
        match self.role {
            Role::Epoch { slot, .. } | Role::Validation { slot } => (slot, false),
            Role::Stream { place, .. } => (place, true),
        }
    }

    /// Fetches the next batch. Calls `seed` before.
    pub(super) fn fetch(&mut self, seed: impl FnOnce()) -> Option<Result<O, DatasetError>> {
        match &mut self.source {
            Source::Loader { rest, .. } => rest.next(seed),
            Source::Iterator(iterator) => {
                seed();
                iterator.next().map(Ok)
            }
            Source::Over => None,
        }
    }

    /// The progress of the loader, if there is one.
    pub(super) fn items(&self) -> Option<Items> {
        match &self.source {
            Source::Loader { rest, .. } => Some(rest.items()),
            Source::Iterator(_) | Source::Over => None,
        }
    }
}

impl<O> fmt::Debug for Batches<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
