//! Changes that a program allows at a restart.

use std::fmt;

/// An intended change between a backup and the program that resumes it.
///
/// By default, a restart with a changed setting is refused, because the result would differ from that of the original
/// training. [`BackupAndRestore::allow`](crate::BackupAndRestore::allow) permits a named change, and the log states its
/// consequences. The next backup holds the new setting, so later restarts don't need `allow` for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// The batch size. Inside an epoch, a loader of
    /// [`data::DataLoaderBuilder`](crate::data::DataLoaderBuilder) continues at the next item.
    /// With any other loader, and with several devices, the epoch starts again.
    BatchSize,
    /// The number of items in an epoch. Inside an epoch, the training continues as for [`BatchSize`](Self::BatchSize).
    Data,
    /// The learning-rate schedule. The program's schedule is used from the current optimizer step on.
    Schedule,
    /// The optimizer. The weights are kept. The state of the old optimizer is dropped if the new one can't load it.
    Optimizer,
    /// Burn's `grads_accumulation`.
    Accumulation,
    /// The run seed given with [`seed`](crate::BackupAndRestore::seed). Random numbers are derived from the new one.
    Seed,
    /// The program's [`label`](crate::BackupAndRestore::label).
    Label,
    /// The set of trained parameters. The program's set is used.
    TrainedParameters,
    /// The version of Burn.
    BurnVersion,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Change::{self:?}")
    }
}

/// The changes that are allowed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    pub(crate) fn allow(&mut self, change: Change) {
        self.0.push(change);
    }

    pub(crate) fn allows(&self, change: Change) -> bool {
        self.0.contains(&change)
    }
}
