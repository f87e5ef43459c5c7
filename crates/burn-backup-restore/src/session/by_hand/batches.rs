use std::fmt;

use burn::data::dataset::DatasetError;

use crate::burn_api::{Items, LoaderKind};
use crate::resume;

/// Batches that a [`Session`](crate::Session) gives one by one, with [`next`](crate::Session::next).
///
/// They are made by [`batches`](crate::Session::batches), [`batches_of`](crate::Session::batches_of),
/// [`stream`](crate::Session::stream) and [`steps`](crate::Session::steps). They are no iterator: before a
/// batch is fetched the session looks for a reason to stop and seeds the device, and a loader may fail.
pub struct Batches<'l, O> {
    pub(super) role: Role,
    pub(super) source: Source<'l, O>,
    /// How many are given at most in each epoch.
    pub(super) most_in_epoch: Option<u64>,
}

/// What batches are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// To be trained in one epoch, which is the one that this counts.
    Epoch { slot: usize, epoch: u64 },
    /// To be trained, from one epoch to the next, after so many rollbacks in this process.
    Stream { place: usize, rollbacks: u64 },
    /// To be validated.
    Validation { slot: usize },
}

/// Where batches come from.
pub(super) enum Source<'l, O> {
    Loader {
        rest: resume::Batches<'l, O>,
        kind: LoaderKind,
    },
    Iterator(Box<dyn Iterator<Item = O> + 'l>),
    /// They are all trained.
    Over,
}

impl<O> Batches<'_, O> {
    /// Gives at most `batches` of them in each epoch: for an endless loader, whose epochs are what the program
    /// says they are.
    pub fn take(mut self, batches: usize) -> Self {
        self.most_in_epoch = Some(batches as u64);
        self
    }

    /// Its place among the loaders of an epoch, or among the streams.
    pub(super) fn place(&self) -> (usize, bool) {
        match self.role {
            Role::Epoch { slot, .. } | Role::Validation { slot } => (slot, false),
            Role::Stream { place, .. } => (place, true),
        }
    }

    /// The next one; `seed` is called before it is fetched.
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

    /// How far a loader is.
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
